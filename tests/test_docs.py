"""The commands in README and docs are true: all of them parse, and the cheap ones run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from biomechgpt.commands import COMMANDS, main, read_settings
from conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "infra/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
ELSEWHERE = (
    "docker",
    "git",
    "kubectl",
    "openssl",
    "export",
    "RAY_AUTH_TOKEN",
    "umask",
    "npm",
    "cp",
    "cd",
    "diff",
    "for",
    "done",
)
"""First words of commands that need a cluster or another program; tests/infra checks those of infra/README.md."""
CHEAP = ("make", "make help")
"""Commands that are run as they stand, beside every `biomechgpt check` and every `--help`."""


def commands(page: Path) -> list[str]:
    """The command lines of a page's fenced `bash` blocks, continued lines joined, comments removed."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    result = [""]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        result[-1] += re.sub(r"(^|\s)#.*$", "", line).strip() + " "
        # A quotation may run over several lines: the command ends with the line that closes it.
        if result[-1].count("'") % 2 == 0:
            result.append("")
    return [command.strip() for command in result if command.strip()]


ALL = [(page, line) for page in PAGES for line in commands(page)]


def named(cases):
    return [pytest.param(page, line, id=f"{page.name}: {line[:60]}") for page, line in cases]


def test_there_are_commands():
    assert len(ALL) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_in_fenced_blocks(page):
    """An indented command would escape this test."""
    indented = re.findall(
        r"^ {4}(?:make|\.venv/bin|ray|curl|python|biomechgpt)\b.*$", page.read_text(), re.MULTILINE
    )
    assert not indented


@pytest.mark.parametrize(("page", "line"), named(ALL))
def test_every_command_parses(page, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert {word for word in words[1:] if "=" not in word} <= targets
    elif words[0] in (".venv/bin/biomechgpt", "biomechgpt"):
        assert words[1] in {*COMMANDS, "--help", "--version"}
        check_options(words[1], words[2:])
    elif words[0].endswith("python") and words[1].startswith("jobs/"):
        check_script(words[1], words[2:])
    elif words[0].endswith(("python", "pytest")):
        for path in words[1:]:
            assert not path.endswith(".py") or "NAME" in path or (ROOT / path).exists(), path
    elif words[0] == "ray":
        if words[1] in ("start", "get-auth-token"):  # starts or guards a cluster by hand
            return
        assert words[1:3] == ["job", "submit"]
        entrypoint = words[words.index("--") + 1 :]
        assert entrypoint[0] == "python"
        check_script(entrypoint[1], entrypoint[2:])
    elif words[0] == "sbatch":
        script = next(word for word in words if word.endswith(".sbatch"))
        assert (ROOT / script).exists()
        entrypoint = words[words.index(script) + 1 :]
        assert entrypoint[0] == "python"
        check_script(entrypoint[1], entrypoint[2:])
    elif words[0] == "curl":
        check_request(words[1:])
    else:
        assert re.split(r"\W", words[0])[0] in ELSEWHERE, f"a command that this test does not know: {line}"


def check_script(script: str, arguments: list[str]) -> None:
    if "NAME" in script:
        return
    text = (ROOT / script).read_text()
    match = re.search(r'run\("(\w+)"', text)
    assert match, script
    check_options(match[1], arguments)


WRITTEN_BY_READERS = {"configs/joint_maps/my_lab.yaml": "configs/joint_maps/clinical_csv.yaml"}
"""Files that a page tells its reader to write, and a file of the same kind that is there."""


def check_options(name: str, arguments: list[str]) -> None:
    """Every option exists and its value is of the right kind; settings files exist."""
    arguments = [WRITTEN_BY_READERS.get(argument, argument) for argument in arguments]
    if name in COMMANDS and "--help" not in arguments:
        read_settings(name, arguments)


def check_request(words: list[str]) -> None:
    """The URL is one of the application's, and so are the form's fields."""
    import json

    description = json.loads((ROOT / "serve/page/openapi.json").read_text())
    url = next(word for word in words if word.startswith("http"))
    path = "/" + url.split("://", 1)[1].partition("/")[2].partition("?")[0]
    if path.startswith("/-/"):  # Ray Serve's own
        return
    if path not in description["paths"]:  # a part in capitals, such as $BATCH, is a parameter of the path
        wanted = re.sub(r"\$[A-Z]+", "{}", path)
        path = next((p for p in description["paths"] if re.sub(r"\{\w+\}", "{}", p) == wanted), path)
    if path not in description["paths"]:  # a real id may stand there too
        path = next(
            (p for p in description["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", p), path)), path
        )
    assert path in description["paths"], path
    given = {words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-F"}
    if given:
        content = description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"][
            "schema"
        ]
        reference = content.get("$ref", "").rpartition("/")[2]
        schema = description["components"]["schemas"][reference] if reference else content
        assert given <= set(schema["properties"]), given


def is_cheap(line: str) -> bool:
    return line in CHEAP or line.endswith("--help") or re.search("biomechgpt (check|keys)", line) is not None


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder: clients that a page adds are not those of whoever runs the tests."""
    return str(tmp_path_factory.mktemp("home"))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), named([case for case in ALL if is_cheap(case[1])]))
def test_cheap_commands_run(page, line, home, monkeypatch):
    """`biomechgpt` runs in this process, which has its libraries loaded already."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HOME", home)
    program, *arguments = shlex.split(line)
    if program.endswith("biomechgpt"):
        main(arguments)
        return
    here = Path(sys.executable).parent
    line = line.replace(".venv/bin/", f"{here}/")
    environment = os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(line, shell=True, cwd=ROOT, check=True, capture_output=True, timeout=300, env=environment)


LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    missing = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not missing


def test_the_drawing_of_imports_is_current():
    """In a process of its own: here, `jobs` and `serve` are also folders of tests."""
    code = (
        "import runpy; draw = runpy.run_path('docs/draw_architecture.py'); "
        "print(draw['with_drawing'](draw['PAGE'].read_text()), end='')"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    drawn = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert drawn.stdout == (ROOT / "docs/architecture.md").read_text(), "run `make texts`"
