"""Reads 3D keypoints of cameras: FreeMoCap, MediaPipe, COCO, HALPE and BODY_25, from which inverse kinematics
makes angles.

A CSV has three columns for each keypoint (`left_knee_x`, `left_knee_y`, `left_knee_z`) and perhaps one of
time. An .npy array (frames, keypoints, 3) names nothing: 33 keypoints are MediaPipe's, 26 HALPE's, 25
BODY_25's and 17 COCO's. Arrays with face and hands begin with the body: 543 and 553 keypoints are MediaPipe's (as
FreeMoCap writes them), 136 HALPE's and 133 COCO's. Pose2Sim writes keypoints as .trc, which `trc`
reads.
"""

import csv
import re

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.recordings.markers import Points, known
from biomechgpt.recordings.readers import cells as numerals
from biomechgpt.recordings.readers import numpy_files
from biomechgpt.recordings.readers.column_names import seconds_of
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.recordings.readers.recording import ReaderSettings, Recording
from biomechgpt.recordings.readers.text import decode

SUFFIXES = (".csv", ".npy")
_NPY = b"\x93NUMPY"
_SAMPLE = 50
"""Rows that tell how numbers are written."""
_AXIS = re.compile(r"^(.*?)[\s_.\-:]?([xyzXYZ])(?:\s*[\[(].*)?$")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ORDERS: dict[int, tuple[str, tuple[str, ...]]] = {
    33: ("MediaPipe", _words(
        "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear "
        "right_ear mouth_left mouth_right left_shoulder right_shoulder left_elbow right_elbow left_wrist "
        "right_wrist left_pinky right_pinky left_index right_index left_thumb right_thumb left_hip right_hip "
        "left_knee right_knee left_ankle right_ankle left_heel right_heel left_foot_index right_foot_index"
    )),
    26: ("HALPE_26", _words(
        "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee RKnee "
        "LAnkle RAnkle Head Neck Hip LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel"
    )),
    25: ("BODY_25", _words(
        "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle LHip LKnee LAnkle "
        "REye LEye REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel"
    )),
    17: ("COCO", _words(
        "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
        "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
    )),
}  # fmt: skip
"""{number of keypoints: (whose they are, their names in order)}."""
_WITH_FACE_AND_HANDS = {543: 33, 553: 33, 136: 26, 133: 17}
"""{number of keypoints of a whole body: how many of them, the first, are of the body}."""


def matches(content: bytes) -> bool:
    """Whether this is an array of keypoints, or a table with three columns for each of a body's keypoints."""
    if content.startswith(_NPY):
        shape = _shape(content)
        return len(shape) == 3 and _body(shape[1]) in ORDERS and shape[2] == 3
    head = decode(content[:65536])
    lines = head.text.splitlines()[:1] if head else []
    return bool(lines) and known(list(_triplets(_cells(lines[0])))) is not None


def _body(count: int) -> int:
    """How many of the first keypoints are of the body."""
    return _WITH_FACE_AND_HANDS.get(count, count)


def read(name: str, content: bytes, settings: ReaderSettings) -> Recording:
    """The recording in `content`. Raises InputError naming file and line."""
    points = _array(name, content, settings) if content.startswith(_NPY) else _table(name, content, settings)
    return recording_of(name, points, settings)


def _shape(content: bytes) -> tuple[int, ...]:
    found = re.search(rb"'shape':\s*\(([\d, ]*)\)", content[:1024])
    return tuple(int(number) for number in found[1].split(b",") if number.strip()) if found else ()


def _array(name: str, content: bytes, settings: ReaderSettings) -> Points:
    values = numpy_files.load_one(name, content)
    if values.ndim != 3 or _body(values.shape[1]) not in ORDERS or values.shape[2] != 3:
        raise InputError(f"{name}: expected an array (frames, keypoints, 3), found shape {values.shape}")
    label, names = ORDERS[_body(values.shape[1])]
    values = values[:, : len(names)]
    time_s, note = _assumed(len(values), settings)
    return Points(f"{label} keypoints", names, values, time_s, notes=(note,))


def _assumed(frames: int, settings: ReaderSettings) -> tuple[np.ndarray, str]:
    """Times of frames whose rate the file does not state, and a note that says so."""
    rate = settings.keypoints_rate_hz
    return np.arange(frames) / rate, f"{rate:g} frames a second assumed (readers.keypoints_rate_hz)"


def _cells(line: str) -> list[str]:
    """The names in a table's first line."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_delimiter(line)), [])]


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _triplets(cells: list[str]) -> dict[str, list[int]]:
    """{keypoint: numbers of its columns of x, y and z}."""
    found: dict[str, dict[str, int]] = {}
    for i, cell in enumerate(cells):
        if match := _AXIS.match(cell):
            found.setdefault(match[1].removeprefix("body_"), {})[match[2].lower()] = i
    return {k: [axes[axis] for axis in "xyz"] for k, axes in found.items() if k and axes.keys() == set("xyz")}


def _table(name: str, content: bytes, settings: ReaderSettings) -> Points:
    decoded = decode(content)
    lines = decoded.text.splitlines() if decoded else [""]
    header, texts = _cells(lines[0]), []
    try:
        for number, cells in enumerate(csv.reader(lines[1:], delimiter=_delimiter(lines[0])), 2):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{name}: line {number}: expected {len(header)} cells, found {len(cells)}: "
                    "the file is cut off or damaged"
                )
            texts.append(cells)
    except csv.Error as error:
        raise InputError(f"{name}: not a table of separated values: {error}") from None
    if not texts:
        raise InputError(f"{name}: expected frames after the line of names, found none")
    decimal = numerals.decimal_mark(cell for cells in texts[:_SAMPLE] for cell in cells)
    rows = [[_number(cell, decimal) for cell in cells] for cells in texts]
    table, columns = np.array(rows), _triplets(header)
    scale = {i: seconds for i, cell in enumerate(header) if (seconds := seconds_of(cell))}
    time_s, notes = _assumed(len(table), settings)
    if scale:
        column = next(iter(scale))
        time_s, notes = (
            scale[column] * (table[:, column] - table[0, column]),
            f"time by column {header[column]!r}",
        )
    positions = np.stack([table[:, numbers] for numbers in columns.values()], axis=1)
    return Points("keypoints in a CSV", tuple(columns), positions, time_s, notes=(notes,))


def _number(cell: str, decimal: numerals.Decimal) -> float:
    """A cell's number; a text, which a note or the name of a tracker may be, is NaN."""
    value = numerals.number(cell, decimal)
    return np.nan if value is None else value
