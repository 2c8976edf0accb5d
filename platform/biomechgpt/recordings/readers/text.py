"""The text in a file's content, in whichever encoding a program or a spreadsheet saved it, and its numbers."""

import codecs
import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from biomechgpt.core.settings import InputError

MAX_CELLS = 50_000_000
"""Most numbers in a text."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks. The mark of UTF-32 begins with that of UTF-16, so it stands before it."""
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1a"))
"""Bytes that no text holds; 0x1A ended text files of DOS."""


def listed(names: Iterable[str], most: int) -> str:
    """The first names, for a message; `, ...` follows if there are more than `most`."""
    names = list(names)
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


@dataclass(frozen=True)
class Text:
    """A file's text.

    text: without byte order mark and without zeros at its end.
    note: what was odd about its encoding; empty if nothing was.
    """

    text: str
    note: str = ""


def decode(content: bytes) -> Text | None:
    """The text of a file, or of its first bytes; None if it is no text."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, errors="replace")
            return Text(text.rstrip("\x00\x1a"), "" if encoding == "utf-8" else f"text in {encoding.upper()}")
    if wide := _wide(content):
        return Text(content.decode(wide, errors="replace").rstrip("\x00\x1a"), f"text in {wide.upper()}")
    padded = len(content)
    content = content.rstrip(b"\x00\x1a")
    if len(content.translate(None, _CONTROLS)) < len(content):
        return None
    note = "zeros after its end" if len(content) < padded else ""
    try:
        return Text(content.decode(), note)
    except UnicodeDecodeError as error:
        if error.start > len(content) - 4:  # the first bytes of a file may end within a character
            return Text(content[: error.start].decode(), note)
    return Text(content.decode("cp1252", errors="replace"), "text in Latin-1")


def _wide(content: bytes) -> str | None:
    """UTF-16 without a byte order mark: every second byte of Latin letters and digits is zero."""
    head = content[:400]
    if len(head) < 8:
        return None
    even, odd = head[::2], head[1::2]
    if odd.count(0) > 0.9 * len(odd) and even.count(0) == 0:
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > 0.9 * len(even) and odd.count(0) == 0 else None


def cells(line: str, delimiter: str) -> list[str]:
    """A line's cells, without spaces around them; none if the line is no row of cells."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def numbers(
    name: str, lines: Sequence[tuple[int, str]], delimiter: str, columns: Sequence[str], least: int
) -> np.ndarray:
    """(T, columns) numbers of a table's lines; NaN for an empty cell. A comma may be the decimal point.

    name: the file, in messages. lines: (number from 1, text) of each. least: cells that each line has.
    Raises InputError naming line and column.
    """
    width = len(columns)
    if len(lines) * width > MAX_CELLS:
        raise InputError(f"{name}: expected at most {MAX_CELLS} numbers, found {len(lines)} rows of {width}")
    result = np.full((len(lines), width), np.nan)
    for i, (number, line) in enumerate(lines):
        row = cells(line, delimiter)
        if len(row) < least:
            raise InputError(
                f"{name}: line {number}: expected {width} cells, found {len(row)}: the file is cut off or damaged"
            )
        for j, cell in enumerate(row[:width]):
            try:
                result[i, j] = float(cell.replace(",", ".") or "nan")
            except ValueError:
                raise InputError(
                    f"{name}: line {number}, column {columns[j]!r}: expected a number, found {cell!r}"
                ) from None
    return result
