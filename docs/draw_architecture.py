"""Draws the packages and their imports into docs/architecture.md, between its two marks. `make texts` calls it."""

import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # serve/, jobs/ and benchmarks/ lie there
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- imports: begin -->\n", "<!-- imports: end -->\n"


def arrows() -> dict[str, set[str]]:
    """{package: the packages that it imports}, of biomechgpt's packages, `commands` and the folders beside them."""
    graph = grimp.build_graph("biomechgpt", "serve", "jobs", "benchmarks", cache_dir=None)
    result: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        importer = _package(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if _package(imported) != importer:
                result.setdefault(importer, set()).add(_package(imported))
                result.setdefault(_package(imported), set())
    result.pop("biomechgpt", None)
    return {name: found - {"biomechgpt"} for name, found in result.items()}


def _package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "biomechgpt" and len(parts) > 1 else parts[0]


def reachable(name: str, graph: dict[str, set[str]]) -> set[str]:
    """All packages that `name` imports, directly or through others."""
    result: set[str] = set()
    waiting = [*graph[name]]
    while waiting:
        package = waiting.pop()
        if package not in result:
            result.add(package)
            waiting += graph[package]
    return result


def drawing() -> str:
    """A Mermaid chart. An arrow that follows from other arrows is left out, so that the layers can be seen."""
    graph = arrows()
    lines = ["```mermaid", "flowchart TD"]
    for name in sorted(graph):
        indirect = set().union(*(reachable(other, graph) for other in graph[name]))
        lines += [f"    {name} --> {other}" for other in sorted(graph[name] - indirect)]
    return "\n".join([*lines, "```", ""])


def with_drawing(page: str) -> str:
    """The page with the present drawing between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + drawing() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_drawing(PAGE.read_text()))
