"""Named sets of markers and keypoints, and where each of them is on the body.

A set maps names to roles (`lateral_knee_r`). A role has a place: a landmark of the skeleton and an offset from it.
Sets: keypoints of cameras (COCO, HALPE, BODY_25 and MediaPipe, which FreeMoCap writes), OpenCap's and Pose2Sim's
anatomical markers ("_study"), Plug-in Gait and CAST names of marker laboratories, OptiTrack's, and the skeleton's
own landmarks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from biomechgpt.core.settings import InputError
from biomechgpt.motion.kinematics import LANDMARKS

ANYWHERE_M = 1.0
"""The `error_m` of a marker whose place a recording has to tell."""
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Place:
    """Where a role is on the right side of a person of 1.70 m.

    landmark: the landmark beside it.
    offset_m: from there: forward, up and to the right, in the frame of the segment that carries it.
    error_m: how far a marker may be off. Skin moves, and people differ.
    carrier: the segment, called by its end; default: the one that carries the landmark. Then the offset is from
        the segment's start.
    """

    landmark: str
    offset_m: Vector = (0.0, 0.0, 0.0)
    error_m: float = 0.01
    carrier: str = ""


# Offsets of anatomical markers and of foot keypoints: OpenCap's marker sets for the Rajagopal 2016 model of
# 1.70 m (opencap-core, RajagopalModified2016_markers_augmenter.xml and _openpose.xml, Apache-2.0), relative
# to the model's joint centres, rounded. Markers of heel and toes are equally high above the sole, as
# laboratories place them: feet are flat where they are 0. The skeleton's heel is on the ground, 24 mm below
# the model's. Those of head, trunk and arm markers that it lacks are estimates from a standing figure.
# Markers of the pelvis get their places from the recording (`scaling`).
SIDED: dict[str, Place] = {
    **{joint: Place(f"{joint}_r") for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")},
    "asis": Place("pelvis"),
    "psis": Place("pelvis"),
    "lateral_knee": Place("knee_r", (0.014, -0.005, 0.055)),
    "medial_knee": Place("knee_r", (0.014, -0.005, -0.055)),
    "lateral_ankle": Place("ankle_r", (-0.01, 0.015, 0.053)),
    "medial_ankle": Place("ankle_r", (0.016, 0.02, -0.038)),
    "heel": Place("heel_r", (0.018, 0.034, -0.02), carrier="ball_r"),
    "calcaneus": Place("heel_r", (-0.032, 0.045, -0.011), carrier="ball_r"),
    "toe": Place("heel_r", (0.187, 0.045, 0.005), carrier="ball_r"),
    "fifth_toe": Place("heel_r", (0.14, 0.034, 0.065), carrier="ball_r"),
    "first_toe": Place("heel_r", (0.18, 0.034, -0.035), carrier="ball_r"),
    "big_toe": Place("heel_r", (0.2276, 0.024, -0.0152), carrier="ball_r"),
    "small_toe": Place("heel_r", (0.2003, 0.024, 0.0405), carrier="ball_r"),
    "foot_tip": Place("heel_r", (0.215, 0.024, 0.0), carrier="ball_r"),
    "acromion": Place("shoulder_r", (0.0, 0.047, -0.028), 0.015),
    "lateral_elbow": Place("elbow_r", (0.0, 0.0, 0.045)),
    "medial_elbow": Place("elbow_r", (0.0, 0.0, -0.045)),
    "lateral_wrist": Place("wrist_r", (0.0, 0.0, 0.03)),
    "medial_wrist": Place("wrist_r", (0.0, 0.0, -0.03)),
    "hand": Place("wrist_r", (0.0, -0.08, 0.0), 0.02, carrier="hand_r"),
    "eye": Place("head", (0.085, 0.0, 0.032), 0.02),
    "ear": Place("head", (0.0, -0.01, 0.075), 0.02),
    "front_head": Place("head", (0.085, 0.05, 0.06), 0.02),
    "back_head": Place("head", (-0.085, 0.05, 0.06), 0.02),
    **{
        part: Place(f"{end}_r", (0, 0.12, 0.06), ANYWHERE_M)
        for part, end in (("thigh", "knee"), ("shank", "ankle"))
    },
}
"""Roles that both sides have. `thigh` and `shank` are markers somewhere on the segment: a recording tells where."""
CENTRAL: dict[str, Place] = {
    "mid_hip": Place("pelvis"),
    "sacrum": Place("pelvis"),
    "neck": Place("neck"),
    "c7": Place("neck", (-0.083, 0.048, 0.0), 0.015),
    "t10": Place("neck", (-0.10, -0.21, 0.0), 0.02),
    "clavicle": Place("neck", (0.06, -0.02, 0.0), 0.015),
    "sternum": Place("neck", (0.10, -0.17, 0.0), 0.02),
    "nose": Place("head", (0.105, -0.03, 0.0), 0.02),
    "head_top": Place("crown", (0.0, 0.0, 0.0), 0.03),
    "head": Place("head", (0.0, 0.0, 0.0), 0.02),
}


def _mirrored(place: Place) -> Place:
    x, y, z = place.offset_m
    left = {"landmark": place.landmark, "carrier": place.carrier}
    left = {key: value[:-2] + "_l" if value.endswith("_r") else value for key, value in left.items()}
    return Place(offset_m=(x, y, -z), error_m=place.error_m, **left)


PLACES: dict[str, Place] = {
    **{f"{role}_r": place for role, place in SIDED.items()},
    **{f"{role}_l": _mirrored(place) for role, place in SIDED.items()},
    **CENTRAL,
    **{f"landmark {landmark}": Place(landmark, error_m=0.005) for landmark in LANDMARKS},
}
"""{role: where it is}."""


@dataclass(frozen=True)
class MarkerSet:
    """A named set.

    label: its name for people.
    roles: {name as `plain` makes it: role}.
    """

    label: str
    roles: Mapping[str, str]


def plain(name: str) -> str:
    """A marker's name without a subject's prefix, capitals and punctuation: `Anna:r.ASIS_study` is `rasisstudy`."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2].lower())


def _sided(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """{plain name: role} from {role: its names on the right side}; the left ones begin with l or left."""
    roles: dict[str, str] = {}
    for role, right in names.items():
        for name in right:
            start = "right" if name.startswith("right") else "r"
            left = {"right": "left", "r": "l"}[start] + name.removeprefix(start)
            roles |= {name: f"{role}_r", left: f"{role}_l"}
    return roles


def _both(**names: str) -> dict[str, tuple[str, ...]]:
    """{role: (name with r, name with right)}."""
    return {role: tuple(f"{side}{word}" for word in words.split() for side in ("r", "right"))
            for role, words in names.items()}  # fmt: skip


KEYPOINTS = MarkerSet(
    "camera keypoints (COCO, HALPE, BODY_25, MediaPipe)",
    _sided(_both(
        hip="hip", knee="knee", ankle="ankle", shoulder="shoulder", elbow="elbow", wrist="wrist", heel="heel",
        big_toe="bigtoe", small_toe="smalltoe", foot_tip="footindex", eye="eye", ear="ear", hand="index",
    ))
    | {"neck": "neck", "nose": "nose", "head": "head_top"}
    | {"hip": "mid_hip", "midhip": "mid_hip", "pelvis": "mid_hip"},
)  # fmt: skip
STUDY = MarkerSet(
    "OpenCap's anatomical markers",
    _sided({
        "hip": ["rhjcstudy"], "asis": ["rasisstudy"], "psis": ["rpsisstudy"], "lateral_knee": ["rkneestudy"],
        "medial_knee": ["rmkneestudy"], "lateral_ankle": ["ranklestudy"], "medial_ankle": ["rmanklestudy"],
        "toe": ["rtoestudy"], "fifth_toe": ["r5metastudy"], "calcaneus": ["rcalcstudy"],
        "acromion": ["rshoulderstudy"], "lateral_elbow": ["rlelbowstudy"], "medial_elbow": ["rmelbowstudy"],
        "lateral_wrist": ["rlwriststudy"], "medial_wrist": ["rmwriststudy"],
    })
    | {"c7study": "c7", "nose": "nose", "head": "head_top"},
)  # fmt: skip
LABORATORY = MarkerSet(
    "Plug-in Gait and CAST markers",
    _sided({
        "asis": ["rasi", "rasis", "rias"], "psis": ["rpsi", "rpsis", "rips"], "thigh": ["rthi"], "shank": ["rtib"],
        "lateral_knee": ["rkne", "rlfe", "rfle", "rknee", "rkneelat", "rlkne"],
        "medial_knee": ["rmkne", "rknm", "rkneem", "rmfe", "rfme", "rkmed", "rkneemed"],
        "lateral_ankle": ["rank", "rlm", "rfal", "rankle", "rlmal", "ranklelat"],
        "medial_ankle": ["rmed", "rmank", "rankm", "rmm", "rtam", "rmmal", "ranklemed"],
        "calcaneus": ["rhee", "rcal", "rfcc", "rheel"], "toe": ["rtoe", "r2mt", "rsmh"],
        "fifth_toe": ["r5mt", "rfm5", "rvmh", "rmt5", "r5meta"], "first_toe": ["r1mt", "rfm1", "rfmh", "rmt1"],
        "acromion": ["rsho", "racr", "rcaj", "rshoulder"], "lateral_elbow": ["relb", "rhle", "rlelb", "relblat"],
        "medial_elbow": ["rmelb", "rhme", "relbm", "relbmed"],
        "lateral_wrist": ["rwra", "rrsp", "rwrist"], "medial_wrist": ["rwrb", "rusp"], "hand": ["rfin", "rhm2"],
        "front_head": ["rfhd"], "back_head": ["rbhd"],
    })
    | {"c7": "c7", "cv7": "c7", "t10": "t10", "tv10": "t10", "clav": "clavicle", "sjn": "clavicle"}
    | {"strn": "sternum", "sxs": "sternum", "sacr": "sacrum", "sacrum": "sacrum"},
)  # fmt: skip
MOTIVE = MarkerSet(
    "OptiTrack's markers (Baseline, Core, Biomech)",
    _sided({
        "thigh": ["rthigh"], "shank": ["rshin"], "lateral_knee": ["rkneeout"], "medial_knee": ["rkneein"],
        "lateral_ankle": ["rankleout"], "medial_ankle": ["ranklein"], "calcaneus": ["rheel", "rheelback"],
        "first_toe": ["rtoein", "rforefootin"], "fifth_toe": ["rtoeout", "rforefootout"],
        "acromion": ["rshouldertop"], "lateral_elbow": ["relbowout"], "medial_elbow": ["relbowin"],
        "lateral_wrist": ["rwristout"], "medial_wrist": ["rwristin"], "hand": ["rhandout"],
    })
    | {"waistrfront": "asis_r", "waistlfront": "asis_l", "waistrback": "psis_r", "waistlback": "psis_l"}
    | {"headtop": "head_top", "backtop": "c7", "spinetop": "c7", "chest": "sternum"},
)  # fmt: skip
OWN = MarkerSet(
    "the skeleton's landmarks",
    {plain(k): f"landmark {k}" for k in LANDMARKS},
)
SETS: tuple[MarkerSet, ...] = (STUDY, LABORATORY, MOTIVE, KEYPOINTS, OWN)
"""Of sets that know equally many of a file's names the first is taken."""

_NEEDED = ("knee", "ankle")
"""Without them there are no legs, and their length tells the unit."""


def known(names: Sequence[str]) -> tuple[MarkerSet, dict[str, int]] | None:
    """The set that knows most of a file's names, and {role: number of the point}; None if it has no legs."""
    best: tuple[MarkerSet, dict[str, int]] = (SETS[0], {})
    for marker_set in SETS:
        found: dict[str, int] = {}
        for i, label in enumerate(names):
            role = marker_set.roles.get(plain(label))
            if role is not None:
                found.setdefault(role, i)
        if len(found) > len(best[1]):
            best = marker_set, found
    return best if all(any(part in role for role in best[1]) for part in _NEEDED) else None


def choose(name: str, names: Sequence[str]) -> tuple[MarkerSet, dict[str, int]]:
    """The set that knows most of a file's names, and {role: number of the point}.

    Raises InputError if no set knows a knee and an ankle among them.
    """
    found = known(names)
    if found is None:
        some = ", ".join(names[:12]) + f" and {len(names) - 12} more" * (len(names) > 12)
        raise InputError(
            f"{name}: expected markers or keypoints of a known set ({'; '.join(s.label for s in SETS)}), "
            f"found no knee or no ankle among {some or 'no points'}"
        )
    return found
