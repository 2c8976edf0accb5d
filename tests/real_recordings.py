"""Recordings of real people: three in tests/data, in every clone, and more in ../shared/data where it exists."""

import csv
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
SHIPPED = DATA / "recordings"
SHARED = Path(__file__).parents[2] / "shared" / "data"
_ABSENT = f"{SHARED} is absent: only the three recordings of tests/data are read"


def _rows(folder: Path) -> list[dict[str, str]]:
    table = folder / "annotations.csv"
    if not table.exists():
        return []
    with table.open(newline="") as lines:
        return list(csv.DictReader(lines))


def rows(activity: str | None = None) -> list[Any]:
    """Test parameters, one a recording (a row of annotations.csv), all or those of one activity.

    Without ../shared/data the last one is skipped and says what is missing.
    """
    shipped = _rows(SHIPPED)
    further = [row for row in _rows(SHARED) if row["path"] not in {row["path"] for row in shipped}]
    parameters = [
        pytest.param(row, id=row["path"])
        for row in shipped + further
        if activity is None or row["activity"] == activity
    ]
    if not further:
        parameters.append(pytest.param(None, id="further", marks=pytest.mark.skip(reason=_ABSENT)))
    return parameters


def path_of(name: str) -> Path:
    """File of a recording by its path in annotations.csv; skips the test if this machine does not have it."""
    for folder in (SHIPPED, SHARED):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{SHARED / name} is absent")
