"""Lengths of a person's segments, from the medians of a recording, and where the markers are on them.

Joint centres of the leg and arm lie midway between a lateral and a medial marker. Hip centres follow from the
markers of the pelvis: Harrington et al., J Biomech 40 (2007) 595-602. Both sides get the same lengths.
"""

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from biomechgpt.motion.kinematics import LANDMARKS, SEGMENTS, points_m
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.recordings.markers import model
from biomechgpt.recordings.markers.model import Site
from biomechgpt.recordings.markers.sets import PLACES

_CENTRES = {"knee": 0.055, "ankle": 0.048, "elbow": 0.045, "wrist": 0.03}
"""Joints with a lateral and perhaps a medial marker, and how far the lateral one is from the centre in a 1.70
m person."""
_PELVIS_TILT_RAD = np.radians(11.0)
"""Slope of the plane through ASIS and PSIS, front down, where pelvis_tilt is 0. OpenSim's scaling puts the
pelvis of a standing person near 0: in seven walks that it solved the mean tilt is -1.7 to 5.1 degrees, and
-0.2 where the markers slope by 11.2."""
_CHAINS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("hip_r", "hip_l", ("hip_r", "hip_l")),
    ("hip_r", "knee_r", ("knee_r", "knee_l")),
    ("knee_r", "ankle_r", ("ankle_r", "ankle_l")),
    ("pelvis", "neck", ("lumbar", "neck")),
    ("shoulder_r", "shoulder_l", ("shoulder_r", "shoulder_l")),
    ("shoulder_r", "elbow_r", ("elbow_r", "elbow_l")),
    ("elbow_r", "wrist_r", ("wrist_r", "wrist_l")),
)
"""(from, to, segments that are as long as the distance tells)."""
_OWN_CHAINS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("pelvis", "lumbar", ("lumbar",)),
    ("lumbar", "neck", ("neck",)),
    ("ankle_r", "heel_r", ("heel_r", "heel_l")),
    ("heel_r", "ball_r", ("ball_r", "ball_l")),
    ("ball_r", "toe_r", ("toe_r", "toe_l")),
    ("neck", "head", ("head", "crown", "face")),
    ("wrist_r", "hand_r", ("hand_r", "hand_l")),
)
"""Further distances, known where the points are the skeleton's own landmarks."""

Positions = Mapping[str, np.ndarray]
"""{role: (T, 3) in metres}."""


def centres(markers: Positions) -> dict[str, np.ndarray]:
    """{landmark: (T, 3)}: joint centres that the markers tell."""
    found = {role.removeprefix("landmark "): p for role, p in markers.items() if role.startswith("landmark ")}
    found |= {role: p for role, p in markers.items() if role in LANDMARKS}
    for side in "rl":
        for joint, half in _CENTRES.items():
            lateral, medial = (markers.get(f"{place}_{joint}_{side}") for place in ("lateral", "medial"))
            if lateral is not None and medial is not None:
                found[f"{joint}_{side}"] = (lateral + medial) / 2
            elif lateral is not None:
                found[f"{joint}_{side}"] = lateral - half * _outward(markers, side)
        if f"acromion_{side}" in markers:
            _, up, inward = PLACES["acromion_r"].offset_m
            centre = markers[f"acromion_{side}"] - np.array([0.0, up, 0.0]) - inward * _outward(markers, side)
            found[f"shoulder_{side}"] = centre
    if {"asis_r", "asis_l"} <= markers.keys() and (back(markers) is not None):
        found |= hip_centres(markers)
    for middle, ends in (("pelvis", "hip"), ("neck", "shoulder")):
        if {f"{ends}_r", f"{ends}_l"} <= found.keys():
            found.setdefault(middle, (found[f"{ends}_r"] + found[f"{ends}_l"]) / 2)
    return found


def _outward(markers: Positions, side: str) -> np.ndarray:
    """(T, 3) unit vectors from the middle of the body to a side."""
    for role in ("asis", "hip", "acromion", "shoulder"):
        if {f"{role}_r", f"{role}_l"} <= markers.keys():
            across = markers[f"{role}_r"] - markers[f"{role}_l"]
            return np.asarray((1 if side == "r" else -1) * _unit(across))
    return np.zeros(3)


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector, axis=-1, keepdims=True))


def back(markers: Positions) -> np.ndarray | None:
    """(T, 3) the point midway between the PSIS, or the sacrum's marker."""
    if {"psis_r", "psis_l"} <= markers.keys():
        return np.asarray((markers["psis_r"] + markers["psis_l"]) / 2)
    return markers.get("sacrum")


def _pelvis_sizes(markers: Positions) -> tuple[float, float]:
    """Width between the ASIS, and depth from their middle to `back`, in metres."""
    middle = (markers["asis_r"] + markers["asis_l"]) / 2
    behind = back(markers)
    assert behind is not None
    width = np.linalg.norm(markers["asis_r"] - markers["asis_l"], axis=1)
    return float(np.nanmedian(width)), float(np.nanmedian(np.linalg.norm(middle - behind, axis=1)))


def _hip_offset_m(markers: Positions) -> np.ndarray:
    """(3,) right hip centre from midway between the ASIS: forward and up in the markers' plane, and right.

    Harrington's regression, unless the set has hip centres of its own.
    """
    if {"hip_r", "hip_l"} <= markers.keys():
        frame, middle = _pelvis_frame(markers)
        both = [np.einsum("tji,tj->ti", frame, markers[f"hip_{side}"] - middle) for side in "rl"]
        return np.asarray(np.nanmedian((both[0] + both[1] * [1, 1, -1]) / 2, axis=0))
    width, depth = _pelvis_sizes(markers)
    return np.array([-0.24 * depth - 0.0099, -0.30 * width - 0.0109, 0.33 * width + 0.0073])


def hip_centres(markers: Positions) -> dict[str, np.ndarray]:
    """{hip_r, hip_l: (T, 3)} by Harrington's regression."""
    offset, (frame, middle) = _hip_offset_m(markers), _pelvis_frame(markers)
    return {"hip_r": middle + frame @ offset, "hip_l": middle + frame @ (offset * [1, 1, -1])}


def _pelvis_frame(markers: Positions) -> tuple[np.ndarray, np.ndarray]:
    """(T, 3, 3) with the columns forward and up in the plane of the pelvis' markers, and right; (T, 3) mid-ASIS."""
    behind = back(markers)
    assert behind is not None
    middle = (markers["asis_r"] + markers["asis_l"]) / 2
    right = _unit(markers["asis_r"] - markers["asis_l"])
    up = _unit(np.cross(right, middle - behind))
    return np.stack([np.cross(up, right), up, right], axis=2), middle


def neutral() -> dict[str, np.ndarray]:
    """{landmark: (3,)} of the 1.70 m figure while every angle is 0."""
    pelvis = np.array([[0.0, 0, 0, 1, 0, 0, 0]])
    points = points_m(np.zeros((1, N_JOINTS)), pelvis, ground="none")[0]
    return dict(zip(LANDMARKS, points.astype(float), strict=True))


def lengths(found: Positions, markers: Positions) -> dict[str, float]:
    """{end of a segment: its length as a multiple of the 1.70 m figure's}, from joint centres and markers.

    A segment that the recording does not tell is as large as the median of the others.
    """
    figure = neutral()
    result: dict[str, float] = {}
    own = any(role.startswith("landmark ") for role in markers)
    for start, end, segments in _CHAINS + (_OWN_CHAINS if own else ()):
        ratios = [
            np.nanmedian(np.linalg.norm(found[a] - found[b], axis=1)) / np.linalg.norm(figure[a] - figure[b])
            for a, b in {(start, end), (_left(start), _left(end))}
            if a in found and b in found and a != b
        ]
        ratios = [
            ratio for ratio in ratios if ratio > 0
        ]  # of two points that are never seen together it is NaN
        if ratios:
            result |= dict.fromkeys(segments, float(np.mean(ratios)))
    size = float(np.median([result[k] for k in result] or [1.0]))
    feet = _foot(markers)
    for segment in SEGMENTS:
        foot = segment.end[:-2] in ("ball", "toe")
        result.setdefault(segment.end, feet if foot and feet else size)
    return result


def _left(landmark: str) -> str:
    return f"{landmark[:-2]}_l" if landmark.endswith("_r") else landmark


def _foot(markers: Positions) -> float | None:
    """Length of the feet as a multiple of the 1.70 m figure's; None: the markers do not tell."""
    ratios = []
    for back_role in ("calcaneus", "heel"):
        for front in ("toe", "big_toe", "foot_tip", "first_toe", "fifth_toe", "small_toe"):
            for side in "rl":
                a, b = f"{back_role}_{side}", f"{front}_{side}"
                if a in markers and b in markers:
                    figure = np.subtract(PLACES[b].offset_m, PLACES[a].offset_m)
                    distance = np.nanmedian(np.linalg.norm(markers[b] - markers[a], axis=1))
                    ratios.append(float(distance / np.linalg.norm(figure)))
    ratios = [ratio for ratio in ratios if ratio > 0]
    return float(np.mean(ratios)) if ratios else None


def sites(markers: Positions, sizes: Mapping[str, float]) -> tuple[list[Site], np.ndarray]:
    """A site for each role, in order, and (M,) how far each marker may be off, in metres."""
    where = model.places(sizes)
    result: list[Site] = []
    errors: list[float] = []
    size = float(np.median(list(sizes.values())))
    for role in markers:
        place = PLACES[role]
        scale = sizes[place.carrier] if place.carrier else size
        body, position = (place.carrier, np.zeros(3)) if place.carrier else where[place.landmark]
        result.append(Site(body, position + scale * np.array(place.offset_m)))
        errors.append(place.error_m)
    return _with_pelvis(markers, where, result), np.array(errors)


def _with_pelvis(
    markers: Positions, where: Mapping[str, tuple[str, np.ndarray]], found: list[Site]
) -> list[Site]:
    """The sites, those of the pelvis' markers as far apart as recorded and as Harrington's hip centres want it."""
    behind = back(markers)
    if behind is None or not {"asis_r", "asis_l"} <= markers.keys():
        return found
    width, depth = _pelvis_sizes(markers)
    offset = _hip_offset_m(markers) * [1, 1, 0]
    tilt = Rotation.from_rotvec([0, 0, -_PELVIS_TILT_RAD])
    between = (
        np.nanmedian(np.linalg.norm(markers["psis_r"] - markers["psis_l"], axis=1))
        if "psis_r" in markers
        else 0
    )
    local = {"asis": (0.0, width / 2), "psis": (-depth, between / 2), "sacrum": (-depth, 0.0)}
    for i, role in enumerate(markers):
        kind, side = (role[:-2], role[-1]) if role[-2:] in ("_r", "_l") else (role, "")
        if kind in local:
            x, z = local[kind]
            marker = np.array([x, 0.0, -z if side == "l" else z]) - offset
            found[i] = Site("pelvis", where["pelvis"][1] + tilt.apply(marker))
    return found
