"""Reads Excel workbooks (.xlsx): the sheet whose columns hold joint angles, by our names or by a joint map's.

A workbook is a .zip of XML. Its sheets are read row by row, with limits, so that a small file cannot fill the
memory. A sheet that states a frame rate (Xsens: General Information, Frame Rate) gives it to a table without times.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import IO
from xml.etree import ElementTree

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import table
from biomechgpt.recordings.readers.joint_map import choose
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble, is_known

SUFFIXES = (".xlsx",)
_MAX_XML = 1 << 30
"""Most bytes that a sheet may unpack to."""
_MAX_CELLS = 20_000_000
"""Most cells of a sheet that are read."""
_MAX_TEXTS = 200_000
"""Most different texts of a workbook."""


def matches(content: bytes) -> bool:
    """Whether this is a .zip that begins as Office's files do."""
    name = content[30 : 30 + int.from_bytes(content[26:28], "little")]
    return content[:4] == b"PK\x03\x04" and (
        name == b"[Content_Types].xml" or name.startswith((b"xl/", b"_rels/", b"docProps/"))
    )


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, sheet and column."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as book:
            sheets = _sheets(name, book)
            texts = _texts(name, book)
            return _best(
                name, {title: _rows(name, book, path, texts) for title, path in sheets.items()}, settings
            )
    except (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, KeyError, OSError) as error:
        raise InputError(
            f"{name}: expected an Excel workbook, found a damaged one: {error} (save the sheet of "
            "joint angles as CSV)"
        ) from None


def _best(name: str, sheets: dict[str, Iterator[list[str]]], settings: ReaderSettings) -> Recording:
    """The recording on the sheet with the most joints; the first of equals."""
    best: tuple[int, str, Columns] | None = None
    rate_hz: float | None = None
    seen: list[str] = []
    for title, rows in sheets.items():
        text, rate_hz = _sheet(name, rows, rate_hz)
        seen.append(title)
        if not table.matches(text.encode()):
            continue
        columns = table.parse(f"{name}: sheet {title!r}", text.encode())
        chosen = choose(name, settings.joint_map, columns.values)
        joints = len(chosen.present(columns.values)) if chosen else 0
        joints += sum(is_known(column) for column in columns.values)
        if joints and (best is None or joints > best[0]):
            best = joints, title, columns
    if best is None:
        raise InputError(
            f"{name}: expected a sheet with a column for each joint, found an Excel workbook with the sheets "
            f"{', '.join(map(repr, seen)) or 'none'}, none of whose columns is a known joint: name "
            "the columns as the "
            "skeleton does, or write a joint map (joint_map: FILE)"
        )
    _, title, columns = best
    time_s, notes = None, [f"sheet {title!r}"]
    if rate_hz and not any(table.is_time(column) for column in columns.values):
        time_s = np.arange(len(next(iter(columns.values.values())))) / rate_hz
        notes.append(f"{rate_hz:g} Hz by the workbook")
    file = replace(columns, format="Excel workbook", time_s=time_s, notes=(*columns.notes, *notes))
    return assemble(name, table.with_units(file, settings), settings)


def _sheet(name: str, rows: Iterator[list[str]], rate_hz: float | None) -> tuple[str, float | None]:
    """A sheet as text separated by tabs, and the frame rate that one of its rows states."""
    lines, cells = [], 0
    for row in rows:
        cells += len(row)
        if cells > _MAX_CELLS:
            raise InputError(f"{name}: expected at most {_MAX_CELLS} cells, found more")
        if len(row) > 1 and row[0].strip().lower() in ("frame rate", "framerate", "update rate", "frequency"):
            rate_hz = _positive(row[1]) or rate_hz
        lines.append("\t".join(" ".join(cell.split()) for cell in row))
    return "\n".join(lines) + "\n", rate_hz


def _positive(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _sheets(name: str, book: zipfile.ZipFile) -> dict[str, str]:
    """{title: path} of the sheets, in the workbook's order."""
    paths = sorted(
        (p for p in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", p)),
        key=lambda p: int(re.findall(r"\d+", p)[-1]),
    )
    with _member(name, book, "xl/workbook.xml") as file:
        titles = [e.get("name", "") for _, e in ElementTree.iterparse(file) if _tag(e) == "sheet"]
    titles += [path.rpartition("/")[2] for path in paths[len(titles) :]]
    return dict(zip(titles, paths, strict=False))


def _texts(name: str, book: zipfile.ZipFile) -> list[str]:
    """The workbook's texts, which cells refer to by number."""
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    texts: list[str] = []
    with _member(name, book, "xl/sharedStrings.xml") as file:
        for _, element in ElementTree.iterparse(file):
            if _tag(element) == "si":
                texts.append("".join(e.text or "" for e in element.iter() if _tag(e) == "t"))
                element.clear()
                if len(texts) > _MAX_TEXTS:
                    raise InputError(f"{name}: expected at most {_MAX_TEXTS} different texts, found more")
    return texts


def _rows(name: str, book: zipfile.ZipFile, path: str, texts: list[str]) -> Iterator[list[str]]:
    """The cells of each row, as text."""
    with _member(name, book, path) as file:
        row: list[str] = []
        for _, element in ElementTree.iterparse(file):
            tag = _tag(element)
            if tag == "c":
                place = _column(element.get("r", ""), len(row))
                row.extend([""] * (place - len(row)))
                row.append(_value(element, texts))
            elif tag == "row":
                yield row
                row = []
                element.clear()


def _value(cell: ElementTree.Element, texts: list[str]) -> str:
    kind = cell.get("t", "n")
    value = "".join(e.text or "" for e in cell.iter() if _tag(e) in ("v", "t"))
    if kind == "s":
        return texts[int(value)] if value.isdigit() and int(value) < len(texts) else ""
    return "" if kind == "e" else value


def _column(reference: str, here: int) -> int:
    """Index of a cell's column: 27 of `AB3`."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if not letters:
        return here
    index = 0
    for letter in letters.group():
        index = 26 * index + ord(letter) - 64
    return max(index - 1, here)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _member(name: str, book: zipfile.ZipFile, path: str) -> IO[bytes]:
    info = book.getinfo(path)
    if info.file_size > _MAX_XML:
        raise InputError(
            f"{name}: {path}: expected at most {_MAX_XML >> 20} MiB, found {info.file_size >> 20}"
        )
    with book.open(info) as file:
        if b"<!DOCTYPE" in file.read(2048):
            raise InputError(f"{name}: {path}: expected XML without a document type, found one")
    return book.open(info)
