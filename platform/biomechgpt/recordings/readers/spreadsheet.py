"""Reads Excel workbooks (.xlsx): the sheet whose columns hold joint angles, by our names or by a joint map's.

A workbook is a .zip of XML. Its sheets are read row by row, with limits, so that a small file cannot fill the
memory. A sheet that states a frame rate (Xsens: General Information, Frame Rate) gives it to a table without times.
"""

import io
import re
import zipfile
import zlib
from dataclasses import replace
from typing import TypeVar
from xml.etree import ElementTree

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.readers import table
from biomechgpt.recordings.readers.archive import is_workbook
from biomechgpt.recordings.readers.column_names import is_known
from biomechgpt.recordings.readers.foreign import foreign_archive
from biomechgpt.recordings.readers.joint_map import choose
from biomechgpt.recordings.readers.recording import Columns, ReaderSettings, Recording, assemble

SUFFIXES = (".xlsx",)
_RATES = ("frame rate", "framerate", "update rate", "frequency")
"""Labels of the cell before the frame rate."""
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, ElementTree.ParseError, EOFError, KeyError, OSError, RuntimeError, ValueError,
)  # fmt: skip
_MAX_XML = 512 << 20
"""Most bytes that the sheets and texts of a workbook may unpack to, all together."""
_MAX_CELLS = 20_000_000
"""Most cells of a sheet; a row counts as one more."""
_MAX_TEXT = 32767
"""Characters of a cell that are read: Excel holds no more."""


def matches(content: bytes) -> bool:
    """Whether this is a .zip that begins as Office's files do."""
    return is_workbook(content)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file, sheet and column."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if what := foreign_archive(archive.namelist()):
                raise InputError(f"{name}: expected a recording, found {what}")
            return _best(name, _Book(name, archive), settings)
    except _DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{name}: expected an Excel workbook, found a damaged one: {error} "
            "(save the sheet of joint angles as CSV)"
        ) from None


def _best(name: str, book: "_Book", settings: ReaderSettings) -> Recording:
    """The recording on the sheet with the most joints; the first of equals."""
    best: tuple[int, str, Columns] | None = None
    rate_hz: float | None = None
    sheets = book.sheets()
    texts = book.texts()
    for title, path in sheets.items():
        sheet = book.sheet(path, texts)
        rate_hz = sheet.rate_hz or rate_hz
        text = sheet.text().encode()
        if not table.matches(text):
            continue
        columns = table.parse(f"{name}: sheet {title!r}", text)
        chosen = choose(name, settings.joint_map, columns.values)
        joints = len(chosen.present(columns.values)) if chosen else 0
        joints += sum(is_known(column) for column in columns.values)
        if joints and (best is None or joints > best[0]):
            best = joints, title, columns
    if best is None:
        raise InputError(
            f"{name}: expected a sheet with a column for each joint, found an Excel workbook with the sheets "
            f"{', '.join(map(repr, sheets)) or 'none'}, none of whose columns is a known joint: name the columns "
            "as the skeleton does, or write a joint map (joint_map: FILE)"
        )
    _, title, columns = best
    time_s, notes = None, [f"sheet {title!r}"]
    if rate_hz and not any(table.is_time(column) for column in columns.values):
        time_s = np.arange(len(next(iter(columns.values.values())))) / rate_hz
        notes.append(f"{rate_hz:g} Hz by the workbook")
    file = replace(columns, format="Excel workbook", time_s=time_s, notes=(*columns.notes, *notes))
    return assemble(name, table.with_units(file, settings), settings)


class _Book:
    """The parts of a workbook, within limits for all of them together. Raises InputError beyond."""

    def __init__(self, name: str, archive: zipfile.ZipFile) -> None:
        self._name, self._archive, self._left = name, archive, _MAX_XML

    def sheets(self) -> dict[str, str]:
        """{title: path} of the sheets, in the workbook's order."""
        paths = sorted(
            (p for p in self._archive.namelist() if re.fullmatch(r"xl/worksheets/sheet\d{1,5}\.xml", p)),
            key=lambda p: int(re.findall(r"\d+", p)[-1]),
        )
        titles = self._parsed("xl/workbook.xml", _Titles(self._name)).titles
        titles += [path.rpartition("/")[2] for path in paths[len(titles) :]]
        return dict(zip(titles, paths, strict=False))

    def texts(self) -> list[str]:
        """The workbook's texts, which cells refer to by number."""
        if "xl/sharedStrings.xml" not in self._archive.namelist():
            return []
        return self._parsed("xl/sharedStrings.xml", _Texts(self._name)).texts

    def sheet(self, path: str, texts: list[str]) -> "_Sheet":
        return self._parsed(path, _Sheet(self._name, texts))

    def _parsed(self, path: str, target: "_TargetT") -> "_TargetT":
        parser = ElementTree.XMLParser(target=target)  # noqa: S314 see SECURITY.md
        if self._archive.getinfo(path).file_size > self._left:
            raise InputError(f"{self._name}: expected at most {_MAX_XML >> 20} MiB unpacked, found more")
        with self._archive.open(path) as file:
            while piece := file.read(1 << 16):
                self._left -= len(piece)
                if self._left < 0:
                    raise InputError(
                        f"{self._name}: expected at most {_MAX_XML >> 20} MiB unpacked, found more"
                    )
                parser.feed(piece)
        parser.close()
        return target


class _Target:
    """Receives the elements of a part of a workbook. It keeps no tree, which a small file could make huge."""

    def __init__(self, name: str) -> None:
        self.name = name

    def doctype(self, *_: object) -> None:
        raise InputError(f"{self.name}: expected XML without a document type, found one: it is not read")

    def start(self, tag: str, attributes: dict[str, str]) -> None: ...

    def data(self, text: str) -> None: ...

    def end(self, tag: str) -> None: ...

    def close(self) -> None: ...


_TargetT = TypeVar("_TargetT", bound=_Target)


class _Titles(_Target):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.titles: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if _local(tag) == "sheet":
            self.titles.append(attributes.get("name", ""))


class _Texts(_Target):
    """Texts: each is the `t` within an `si`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.texts: list[str] = []
        self._reads = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if _local(tag) == "si":
            self.texts.append("")
        self._reads = _local(tag) == "t" and bool(self.texts)

    def data(self, text: str) -> None:
        if self._reads:
            self.texts[-1] = (self.texts[-1] + text)[:_MAX_TEXT]

    def end(self, tag: str) -> None:
        self._reads = False


class _Sheet(_Target):
    """Rows as lines of text, whose cells are separated by tabs; and the frame rate that one of them states."""

    def __init__(self, name: str, texts: list[str]) -> None:
        super().__init__(name)
        self.rate_hz: float | None = None
        self._texts = texts
        self._lines: list[str] = []
        self._cells, self._characters = 0, 0
        self._row: list[str] = []
        self._kind, self._value, self._reads = "n", "", False

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        match _local(tag):
            case "c":
                place = _column(attributes.get("r", ""), len(self._row))
                self._row.extend([""] * (place - len(self._row)))
                self._kind, self._value = attributes.get("t", "n"), ""
            case "v" | "t":
                self._reads = True

    def data(self, text: str) -> None:
        if self._reads:
            self._value = (self._value + text)[:_MAX_TEXT]

    def end(self, tag: str) -> None:
        match _local(tag):
            case "v" | "t":
                self._reads = False
            case "c":
                self._row.append(self._cell())
            case "row":
                self._end_row()

    def _cell(self) -> str:
        if self._kind == "s":
            number = (
                int(self._value) if self._value.isdecimal() and len(self._value) < 9 else len(self._texts)
            )
            return self._texts[number] if number < len(self._texts) else ""
        return "" if self._kind == "e" else self._value

    def _end_row(self) -> None:
        row, self._row = self._row, []
        if len(row) > 1 and row[0].strip().lower() in _RATES:
            self.rate_hz = _positive(row[1]) or self.rate_hz
        self._cells += len(row) + 1
        self._characters += sum(map(len, row))
        if self._cells > _MAX_CELLS or self._characters > _MAX_XML:
            raise InputError(f"{self.name}: expected at most {_MAX_CELLS} cells, found more")
        self._lines.append("\t".join(" ".join(cell.split()) for cell in row))


def _positive(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _column(reference: str, here: int) -> int:
    """Index of a cell's column: 27 of `AB3`."""
    letters = re.match(r"[A-Z]{1,3}", reference)
    if not letters:
        return here
    index = 0
    for letter in letters.group():
        index = 26 * index + ord(letter) - 64
    return max(index - 1, here)


def _local(tag: str) -> str:
    """An element's name without its namespace."""
    return tag.rpartition("}")[2]
