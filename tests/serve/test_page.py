"""The web page: its API types, its unit tests, and its build are current."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from serve import openapi

PAGE, STATIC = ROOT / "serve/page", ROOT / "serve/static"

if shutil.which("node") is None:
    _MISSING = "Node is missing"
elif not (PAGE / "node_modules").is_dir():
    _MISSING = "serve/page/node_modules is missing: run `npm ci` in serve/page"
else:
    _MISSING = ""
needs_node = pytest.mark.skipif(_MISSING != "", reason=_MISSING)


def npm(*arguments: str | Path) -> None:
    """Run an npm command in serve/page; its output is the message of a failure."""
    run = subprocess.run(["npm", *map(str, arguments)], cwd=PAGE, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"


def test_the_stored_openapi_document_is_the_applications():
    assert openapi.PATH.read_text() == openapi.text(), "run `python -m serve.openapi`, then `make page`"


@needs_node
def test_the_types_of_the_page_come_from_the_stored_document():
    npm("run", "types", "--", "--check")


@needs_node
def test_the_unit_tests_of_the_page():
    npm("test")


@needs_node
def test_the_built_page_is_current(tmp_path):
    npm("run", "check")
    npm("exec", "--", "vite", "build", "--outDir", tmp_path / "static", "--emptyOutDir")
    built = {path.relative_to(tmp_path / "static"): path for path in (tmp_path / "static").rglob("*.*")}
    assert {path.relative_to(STATIC) for path in STATIC.rglob("*.*")} == set(built), "run `make page`"
    for name, path in built.items():
        assert (STATIC / name).read_bytes() == path.read_bytes(), f"{name}: run `make page`"


def test_the_page_takes_limits_and_suffixes_from_the_server():
    """A new reader or another limit must not need another page."""
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"accept=|maxlength=", html) == []
    assert html.count('type="file"') == 2  # a recording, and further ones of the person


def test_the_page_defines_no_colour_of_a_side():
    """The figure's colours come with it, so that they are those of the pictures in the reports."""
    sources = "".join(path.read_text() for path in (PAGE / "src").glob("*") if path.suffix in (".ts", ".css"))
    assert re.findall(r"--(?:right|left|middle): *#|(?:right|left|middle): 0x", sources) == []
