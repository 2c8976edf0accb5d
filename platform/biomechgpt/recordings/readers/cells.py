"""Numbers in the cells of a text, as programs and spreadsheets of many countries write them. Knows no columns."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

MISSING = {
    *("", "-", "--", ".", "na", "n/a", "nan", "null", "none", "missing", "#n/a", "#nan"),
    *("#div/0!", "#num!", "#value!", "#ref!", "#null!", "#name?"),
}
"""Cells that mean a missing value, in small letters, with the errors of spreadsheets."""
_GROUPS = re.compile(r"(?<=\d)[ \u00a0\u202f'’](?=\d{3}(\D|$))")
"""A space or an apostrophe between groups of three digits."""
_THOUSANDS = {
    ",": re.compile(r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$"),
    ".": re.compile(r"^[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?$"),
}
"""{mark between groups of three digits: a number with it}."""
_NUMERIC = re.compile(r"^[-+\u2212\d.,'’ \u00a0\u202f]+$")
_FORTRAN = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)$")
_CLOCK = re.compile(r"^(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)$")

Decimal = Literal[".", ","]


def decimal_mark(cells: Iterable[str]) -> Decimal:
    """The decimal mark of a text's numbers. cells: some of them.

    Where a cell has points and commas, the last of them is the decimal mark; the others separate thousands. Where
    no cell has both, commas are decimal marks.
    """
    commas = False
    for cell in cells:
        if "," in cell and _NUMERIC.match(cell):
            if "." in cell:
                return "," if cell.rindex(",") > cell.rindex(".") else "."
            if cell.count(",") > 1:
                return "."
            commas = True
    return "," if commas else "."


def number(cell: str, decimal: Decimal = ".") -> float | None:
    """A cell's number; NaN if it stands for a missing value, None if it holds anything else."""
    if decimal == "." or "." not in cell:
        try:
            return float(cell)
        except ValueError:
            pass
    text = cell.strip().strip('"').strip()
    if text.lower() in MISSING:
        return float("nan")
    text = _GROUPS.sub("", text.replace("\u2212", "-").rstrip("°").strip())
    thousands = "." if decimal == "," else ","
    if thousands in text and _THOUSANDS[thousands].match(text):
        text = text.replace(thousands, "")
    if decimal == ",":
        text = text.replace(",", ".")
    if exponent := _FORTRAN.match(text):
        text = f"{exponent[1]}e{exponent[2]}"
    try:
        return float(text)
    except ValueError:
        return None


def is_number(cell: str) -> bool:
    """Whether a cell holds a number, or stands for a missing one, with either decimal mark."""
    return number(cell) is not None or number(cell, ",") is not None


def clock_s(cell: str) -> float | None:
    """Seconds of a time of the day (`10:04:05.25`, `04:05.25`) or a date with one; None for anything else."""
    text = cell.strip().strip('"')
    if found := _CLOCK.match(text):
        hours, minutes, seconds = found.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    try:
        return datetime.fromisoformat(text).timestamp() if len(text) > 10 else None
    except ValueError:
        return None
