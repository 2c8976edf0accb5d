"""Tables that a spreadsheet or a program of another country saved, or that are slightly wrong, are read."""

import numpy as np
import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings, cells
from opensim_files import mot, walk

WALK = walk()
NAMES = list(WALK)
TABLE = np.column_stack(list(WALK.values()))
READ = readers.parse("walk.mot", mot(WALK).encode(), ReaderSettings())
EXACT = 2e-5
"""Radians: the texts have six decimals of a degree, or of a metre."""


def text(
    *,
    names=NAMES,
    table=TABLE,
    mark=",",
    decimal=".",
    number="%.6f",
    quoted=False,
    above="",
    units=(),
    blank=0,
    end="\n",
    below="",
):
    """A table as text. mark: between cells. blank: empty columns at the end. units: a line below the names."""

    def cell(value):
        written = (number % value).replace(".", decimal)
        return f'"{written}"' if quoted else written

    rows = [names, *([units] if units else []), *([cell(value) for value in row] for row in table)]
    lines = [mark.join(row) + mark * blank for row in rows]
    return end.join([*above.splitlines(), *lines]) + end + below


def with_unit(name):
    return "s" if name == "time" else "m" if name.startswith("pelvis_t") and name != "pelvis_tilt" else "deg"


def clock(seconds):
    return f"10:04:{5 + seconds:09.6f}"


def each_row(change, **more):
    """The table with the first cell of each row changed."""
    lines = text(**more).splitlines()
    rows = [line.split(",", 1) for line in lines[1:]]
    return "\n".join([lines[0], *(f"{change(float(first))},{rest}" for first, rest in rows)]) + "\n"


def lab_name(name, form):
    """A column's name as laboratories write it: the side first, in words or letters."""
    side = {"_r": "right", "_l": "left"}.get(name[-2:])
    if side is None:
        return name
    joint = name[:-2].replace("knee_angle", "knee_flexion").replace("elbow_flex", "elbow_flexion")
    return form.format(side=side, s=side[0].upper(), joint=joint, Joint=joint.title().replace("_", ""))


def european(value):
    return f"{value:,.6f}".translate(str.maketrans(",.", ".,"))


TEXTS = {
    "semicolons and decimal commas": (text(mark=";", decimal=","), "decimal commas"),
    "tabs and decimal commas": (text(mark="\t", decimal=","), "decimal commas"),
    "quoted decimal commas": (text(decimal=",", quoted=True), "decimal commas"),
    "quoted numbers": (text(quoted=True), ""),
    "byte order mark": ("\ufeff" + text(), ""),
    "empty rows at the end": (text(below=",,,,\n,,\n\n"), ""),
    "empty rows with semicolons": (text(mark=";", decimal=",", below=";;;;\n;;\n"), ""),
    "empty columns at the end": (text(blank=3), ""),
    "empty lines between": (text(end="\n\n"), ""),
    "empty lines of carriage returns": (text(end="\r\n"), ""),
    "a line of units": (text(units=[with_unit(name) for name in NAMES]), ""),
    "units in brackets": (text(names=[f"{name} ({with_unit(name)})" for name in NAMES]), "time by column"),
    "units in square brackets": (text(names=[f"{name} [{with_unit(name)}]" for name in NAMES]), ""),
    "units after underscores": (text(names=[NAMES[0], *(f"{name}_{with_unit(name)}" for name in NAMES[1:])]), ""),
    "capitals": (text(names=[name.upper() for name in NAMES]), ""),
    "the side first": (text(names=[lab_name(name, "{side} {joint}") for name in NAMES]), ""),
    "the side's letter first": (text(names=[lab_name(name, "{s}_{joint}") for name in NAMES]), ""),
    "camel case": (text(names=[lab_name(name, "{Joint}{s}") for name in NAMES]), ""),
    "time in German": (text(names=["Zeit [s]", *NAMES[1:]], mark=";", decimal=","), "time by column 'Zeit [s]'"),
    "time in French": (text(names=["temps", *NAMES[1:]], mark=";", decimal=","), "time by column 'temps'"),
    "spaces in names": (text(names=[name.replace("_", " ").title() for name in NAMES]), ""),
    "a comment before the names": (text(names=["# time", *NAMES[1:]]), ""),
    "spaces": (text(mark=" "), ""),
    "columns of spaces": (text(mark="   ", number="%12.6f"), ""),
    "bars": (text(mark="|"), ""),
    "a space after each comma": (text(mark=", "), ""),
    "exponents": (text(number="%.9e"), ""),
    "exponents of Fortran": (text(number="%.9e").replace("e+", "D+").replace("e-", "D-"), ""),
    "a true minus sign": (text().replace("-", "\u2212"), ""),
    "degree signs": (text(number="%.6f°"), ""),
    "statistics below": (text(below="mean," + ",".join("1" for _ in NAMES[1:]) + "\n"), "1 line below the table"),
    "a sentence below": (text(below="Exported by the laboratory\n\n"), "1 line below the table skipped"),
    "time of the day": (each_row(clock), ""),
    "date and time": (each_row(lambda s: f"2026-05-01 {clock(s)}"), ""),
    "microseconds": (
        text(names=["time_us", *NAMES[1:]], table=TABLE * [1e6, *[1] * (len(NAMES) - 1)]),
        "time by column 'time_us'",
    ),
    "thousands": (each_row(lambda s: f'"{1000 + s:,.6f}"'), ""),
    "thousands of Europe": (
        "\n".join(
            line if i == 0 else ";".join([european(1000 + TABLE[i - 1, 0]), *line.split(";")[1:]])
            for i, line in enumerate(text(mark=";", decimal=",").splitlines())
        ),
        "decimal commas",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_tables_that_people_have(case):
    content, note = TEXTS[case]
    recording = readers.parse("a.csv", content.encode(), ReaderSettings())
    np.testing.assert_allclose(recording.angles_rad, READ.angles_rad, atol=EXACT)
    np.testing.assert_allclose(recording.pelvis, READ.pelvis, atol=EXACT)
    np.testing.assert_allclose(np.diff(recording.time_s), np.diff(READ.time_s), atol=1e-5)
    assert note in recording.import_notes


@pytest.mark.parametrize("missing", ["NA", "#N/A", "n/a", "null", "-", "#DIV/0!", ""])
def test_missing_values_stay_missing(missing):
    lines = text().splitlines()
    row = lines[50].split(",")
    row[NAMES.index("hip_flexion_r")] = missing
    lines[50] = ",".join(row)
    recording = readers.parse("a.csv", "\n".join(lines).encode(), ReaderSettings())
    assert np.argwhere(np.isnan(recording.angles_rad)).tolist() == [
        [49, list(readers.recording.NAMES).index("hip_flexion_r")]
    ]


def test_what_is_wrong_with_a_row_is_still_named():
    whole = text()
    for content, message in (
        (whole[: len(whole) // 2].rpartition(",")[0], "cut off or damaged"),
        (whole.replace("\n0.500000,", "\n0.500000,x,", 1), "line 52: expected 38 cells, found 39"),
        (whole.replace("\n0.500000,", "\nhalf a second,", 1), "line 52, column 'time': expected a number"),
        (whole + whole, "the names stand there again, so that several trials"),
    ):
        with pytest.raises(InputError, match=message):
            readers.parse("a.csv", content.encode(), ReaderSettings())


def test_a_table_without_times_needs_a_rate():
    content = text(names=NAMES[1:], table=TABLE[:, 1:])
    with pytest.raises(InputError, match=r"expected a column 'time'.*give the rate_hz"):
        readers.parse("a.csv", content.encode(), ReaderSettings())


@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [
        ("1,5", ",", 1.5),
        ("1.234,5", ",", 1234.5),
        ("1,234.5", ".", 1234.5),
        ("1 234,5", ",", 1234.5),
        ("1'234.5", ".", 1234.5),
        ("-1.5D+02", ".", -150.0),
        ("\u22123", ".", -3.0),
        ("12°", ".", 12.0),
        ("five", ".", None),
        ("1,5", ".", None),
        ("1,234", ".", 1234.0),
        ("1.234", ",", 1234.0),
        ("0.234", ",", 0.234),
        ("1.5", ",", 1.5),
    ],
)
def test_numbers(cell, decimal, value):
    assert cells.number(cell, decimal) == value


@pytest.mark.parametrize(
    ("sample", "decimal"),
    [
        (["1.5", "2"], "."),
        (["1,5", "2"], ","),
        (["1,234.5"], "."),
        (["1.234,5"], ","),
        (["1,234,567"], "."),
        (["fast, in shoes", "1.5"], "."),
        ([], "."),
    ],
)
def test_the_decimal_mark_of_a_text(sample, decimal):
    assert cells.decimal_mark(sample) == decimal
