"""Every test that docs/faults.md names is there."""

import re

from conftest import ROOT


def test_every_promise_has_its_test():
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", (ROOT / "docs" / "faults.md").read_text())
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
