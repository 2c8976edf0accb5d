"""Reads the names of columns and files: joints, times, units, and the kind of a table without joint angles.

Knows nothing about values.
"""

import re
from collections.abc import Collection, Iterable

from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings.readers import isb_shoulder
from biomechgpt.recordings.readers.joint_map import PELVIS_ROTATIONS, PELVIS_TRANSLATIONS

NO_MOTION = re.compile(
    r"position\s?errors?|marker\s?errors|^speeds|^accelerations|generalized forces"
    r"|_perr$|_kinematics_u$|_kinematics_dudt$",
    re.IGNORECASE,
)
"""Titles and file names of files that have a motion's columns and hold something else: errors, speeds or
accelerations, as OpenSim's RRA, IK and Analyze tools write them."""
_PLANE_ANGLE = re.compile(r"(right|left) (ankle|knee|hip|shoulder|elbow|wrist)$", re.IGNORECASE)
"""Columns of Sports2D: angles as one camera sees them."""
_OTHER_TABLES = tuple(
    (re.compile(pattern, re.IGNORECASE), what, step)
    for pattern, what, step in (
        (
            r"force|torque|moment|activation|excitation|fiber|_v[xyz]$|\bcop\b|^cop|^f[xyz]\d?\b|^m[xyz]\d?\b|^f\d?[xyz]$",
            "forces or muscles",
            "use the file of joint angles that inverse kinematics wrote",
        ),
        (
            r"\bemg\b|^emg|electromyo",
            "electromyography",
            "use the recording of joint angles of the same trial",
        ),
        (
            r"^(acc|gyr|gyro|mag|accel)[a-z]*[ _.]?[xyz]\b|^(acc|gyr|mag)_[xyz]$|free ?acc|quat|angular ?vel",
            "signals of inertial sensors",
            "compute joint angles first, with the maker's software or OpenSim's OpenSense",
        ),
        (
            r"likelihood|confidence",
            "keypoints in the plane of one camera",
            "run Pose2Sim or OpenCap on two cameras or more: keypoints in three dimensions are read as .trc or CSV",
        ),
        (
            r"cadence|velocity$|(step|stride)[ _]?(length|time|width)|stance|swing[ _]?time",
            "gait parameters, not a movement",
            "use the recording that they were computed of",
        ),
    )
)
"""Columns of tables that hold no joint angles, what they hold, and the next step."""
_TIME_WORDS = (
    "time", "times", "t", "timestamp", "zeit", "temps", "tiempo", "tempo", "tijd", "tid", "czas", "čas", "aika",
)  # fmt: skip
"""Time in several languages."""
_TIME_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "seconds", "sekunden", "secondes", "segundos", "secondi"), 1.0),
    **dict.fromkeys(("ms", "msec", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs"), 1e-6),
    "ns": 1e-9,
}
_TIMES = {
    **dict.fromkeys((*_TIME_WORDS, "seconds"), 1.0),
    **{
        f"{word} {form.format(unit)}": scale
        for word in _TIME_WORDS
        for unit, scale in _TIME_UNITS.items()
        for form in ("{}", "({})", "[{}]")
    },
}
"""Usual names of a column of time, in small letters, and what makes seconds of it."""
_OUR_NAMES = {*NAMES, *PELVIS_ROTATIONS, *PELVIS_TRANSLATIONS, *isb_shoulder.COLUMNS}
_WITH_UNIT = re.compile(
    r"(.+?)(?:[\s_]+|\s*[\(\[]\s*)(deg|degs|degrees?|°|rad|rads|radians?|mm|cm|m)\s*[\)\]]?$", re.IGNORECASE
)
"""A name and its unit, in brackets or not."""


def seconds_of(column: str) -> float | None:
    """The factor that turns a column of times into seconds; None for a column with no usual name of times."""
    return _TIMES.get(" ".join(re.sub(r"(?=[(\[])", " ", column.lower().replace("_", " ")).split()))


def is_known(column: str) -> bool:
    """Whether a column has the name of a joint of the skeleton, or of one that is converted to it."""
    name, _ = our_name(column)
    return name in INDEX or name in isb_shoulder.COLUMNS


def our_name(column: str) -> tuple[str, str]:
    """The skeleton's name in a column's name, and the unit that follows it: `Hip flexion r (deg)`.

    A name that is not the skeleton's comes back as it is.
    """
    text, unit = column.strip(), ""
    if found := _WITH_UNIT.match(text):
        text, unit = found[1], found[2].lower()
    name = re.sub(r"[\s\-.]+", "_", text.strip()).lower()
    if name in _OUR_NAMES:
        return name, unit
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", text)]
    name = _with_side(words)
    return (name, unit) if name in _OUR_NAMES else (column, "")


_SIDES = {"r": "r", "right": "r", "l": "l", "left": "l"}
_ANGLES = {
    "knee_flexion": "knee_angle", "knee_flexion_extension": "knee_angle",
    "ankle_dorsiflexion": "ankle_angle", "elbow_flexion": "elbow_flex",
}  # fmt: skip
"""Other words for an angle of the skeleton that can mean no other. A knee's sign is detected."""


def _with_side(words: list[str]) -> str:
    """The skeleton's name of words, the side first or last: `left knee flexion`, `HipFlexionR`."""
    sides = [word for word in (words[0], words[-1]) if word in _SIDES] if words else []
    if len(sides) != 1:
        return "_".join(words)
    name = "_".join(words[1:] if words[0] in _SIDES else words[:-1])
    return f"{_ANGLES.get(name, name)}_{_SIDES[sides[0]]}"


def no_joints(name: str, columns: Collection[str]) -> str:
    """Why a file with these columns, none of them a joint of the skeleton, is no recording. name: the file."""
    if sum(bool(_PLANE_ANGLE.match(column)) for column in columns) >= 3:
        return (
            f"{name}: expected joint angles in three dimensions, found angles in the plane of one camera "
            f"({listed_columns(columns)}): they are no recording (Pose2Sim with two cameras or more gives one)"
        )
    for pattern, what, step in _OTHER_TABLES:
        if any(pattern.search(column) for column in columns):
            return f"{name}: expected joint angles, found {what} ({listed_columns(columns)}): {step}"
    return (
        f"{name}: none of the skeleton's joints is among its columns ({listed_columns(columns)}): "
        "no recording of movement, or one whose columns a joint map has to name (joint_map: FILE)"
    )


def listed_columns(columns: Iterable[str], most: int = 12) -> str:
    """The first columns, for a message."""
    names = list(columns)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "no columns") + more
