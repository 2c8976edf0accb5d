"""The stick figure: every angle moves it as its sign says, mirrors agree, real people walk on the ground."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import real_recordings
from biomechgpt.motion.kinematics import BONES, HEIGHT_M, LANDMARKS, SEGMENTS, points_m
from biomechgpt.motion.resampling import resample
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, mirror
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.simulator import SimulatorSettings, participants, trials

AT = {name: i for i, name in enumerate(LANDMARKS)}
X, Y, Z = range(3)
FEET = [AT[f"{name}_{side}"] for name in ("heel", "ball", "toe") for side in "rl"]
BALLS = [AT["ball_r"], AT["ball_l"]]
RATE = 30.0


def rest(frames: int = 1) -> np.ndarray:
    return np.tile([0.0, 0, 0, 1, 0, 0, 0], (frames, 1))


def posed(**degrees: float) -> dict[str, np.ndarray]:
    """Each point's place (3,) with these angles and all others 0, the pelvis held still."""
    angles = np.zeros((1, 34))
    for name, value in degrees.items():
        angles[0, INDEX[name]] = np.radians(value)
    return dict(zip(LANDMARKS, points_m(angles, rest(), ground="none")[0], strict=True))


STAND = posed()


def moved(point: str, **degrees: float) -> np.ndarray:
    return posed(**degrees)[point] - STAND[point]


def other_side(points: np.ndarray) -> np.ndarray:
    """The figure (T, P, 3) in a mirror."""
    swap = {"_r": "_l", "_l": "_r"}
    order = [AT.get(name[:-2] + swap.get(name[-2:], name[-2:]), 0) for name in LANDMARKS]
    return points[:, order] * [1, 1, -1]


def test_standing_is_upright_symmetric_and_of_the_given_height():
    points = points_m(np.zeros((1, 34)), rest(), height_m=1.80)
    np.testing.assert_allclose(points, other_side(points), atol=1e-7)
    at = dict(zip(LANDMARKS, points[0], strict=True))
    order = ["crown", "head", "neck", "lumbar", "pelvis", "knee_r", "ankle_r", "heel_r"]
    heights = [at[name][Y] for name in order]
    assert heights == sorted(heights, reverse=True)
    np.testing.assert_allclose((at["crown"][Y], at["heel_r"][Y], at["toe_l"][Y]), (1.80, 0, 0), atol=1e-6)
    np.testing.assert_allclose(at["knee_r"][Y], 0.285 * 1.80, atol=1e-6)  # Winter 2009, figure 4.1
    assert all((at[name][Z] > 0.05) == name.endswith("_r") for name in LANDMARKS if name[-2:] in ("_r", "_l"))
    assert at["face"][X] > at["head"][X]
    assert at["toe_r"][X] > at["ankle_r"][X] > at["heel_r"][X]


# joint, degrees, the point that tells, the axis along which it goes, and which way (right and left).
WAYS = {
    "hip flexion brings the foot forward": ("hip_flexion", 30, "ankle", X, (1, 1)),
    "hip adduction brings the foot to the midline": ("hip_adduction", 20, "ankle", Z, (-1, 1)),
    "hip rotation turns the toes inward": ("hip_rotation", 20, "toe", Z, (-1, 1)),
    "knee flexion brings the foot back": ("knee_angle", -60, "ankle", X, (-1, -1)),
    "knee flexion lifts the foot": ("knee_angle", -60, "ankle", Y, (1, 1)),
    "dorsiflexion lifts the toes": ("ankle_angle", 20, "toe", Y, (1, 1)),
    "inversion turns the toes inward": ("subtalar_angle", 20, "toe", Z, (-1, 1)),
    "the toes extend up": ("mtp_angle", 30, "toe", Y, (1, 1)),
    "arm flexion brings the hand forward": ("arm_flex", 45, "hand", X, (1, 1)),
    "arm abduction brings the hand outward": ("arm_add", -60, "hand", Z, (1, -1)),
    "arm abduction lifts the hand": ("arm_add", -60, "hand", Y, (1, 1)),
    "elbow flexion brings the hand forward": ("elbow_flex", 60, "hand", X, (1, 1)),
    "elbow flexion lifts the hand": ("elbow_flex", 60, "hand", Y, (1, 1)),
    "wrist flexion": ("wrist_flex", 45, "hand", X, (1, 1)),
    "wrist deviation": ("wrist_dev", 30, "hand", Z, (-1, 1)),
    "trunk flexion bows": ("lumbar_extension", -30, "head", X, (1,)),
    "trunk bending to the right": ("lumbar_bending", 20, "head", Z, (1,)),
    "trunk rotation to the left brings the right shoulder forward": (
        "lumbar_rotation", 30, "shoulder_r", X, (1,),
    ),
    "neck extension looks up": ("neck_extension", 30, "face", Y, (1,)),
    "neck bending to the right": ("neck_bending", 30, "crown", Z, (1,)),
    "neck rotation looks to the left": ("neck_rotation", 30, "face", Z, (-1,)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_each_sign_moves_the_landmarks_as_the_skeleton_says(way):
    joint, degrees, point, axis, signs = WAYS[way]
    for side, sign in zip("rl", signs, strict=False):
        names = (joint, point) if joint in INDEX else (f"{joint}_{side}", f"{point}_{side}")
        assert sign * moved(names[1], **{names[0]: degrees})[axis] > 0.02
        assert -sign * moved(names[1], **{names[0]: -degrees})[axis] > 0.02 or axis == Y


def test_inward_rotations_move_a_bent_limb_inward():
    for side, sign in (("r", 1), ("l", -1)):
        bent = {f"hip_flexion_{side}": 90.0, f"knee_angle_{side}": -90.0}
        turned = posed(**bent, **{f"hip_rotation_{side}": 20.0})[f"ankle_{side}"]
        assert sign * (turned - posed(**bent)[f"ankle_{side}"])[Z] > 0.05  # thigh inward, shank outward
        bent = {f"elbow_flex_{side}": 90.0}
        turned = posed(**bent, **{f"arm_rot_{side}": 30.0})[f"wrist_{side}"]
        assert -sign * (turned - posed(**bent)[f"wrist_{side}"])[Z] > 0.05


def test_hip_turns_about_z_then_x_then_y():
    angles = {"hip_flexion_r": 50.0, "hip_adduction_r": -20.0, "hip_rotation_r": 35.0, "knee_angle_r": -70.0}
    pose = posed(**angles)
    hip = Rotation.from_euler("ZXY", [50, -20, 35], degrees=True)
    knee = hip * Rotation.from_euler("Z", -70, degrees=True)
    shank = pose["ankle_r"] - pose["knee_r"]
    np.testing.assert_allclose(shank, knee.apply([0, -0.246 * HEIGHT_M, 0]), atol=1e-6)


def test_axes_and_their_order_are_those_of_the_model():
    model = ElementTree.parse(real_recordings.DATA / "mujoco" / "humanoid_torque.xml")
    bodies = [[joint.attrib for joint in body.findall("joint")] for body in model.iter("body")]
    theirs = {hinge["name"]: np.fromstring(hinge["axis"], sep=" ") for hinges in bodies for hinge in hinges}
    ours = {joint: axis for segment in SEGMENTS for joint, axis in segment.hinges}
    assert set(ours) == set(INDEX)
    for joint, axis in ours.items():
        if not joint.startswith("neck"):
            np.testing.assert_allclose(axis, theirs[joint], atol=1e-9, err_msg=joint)
    orders = {tuple(hinge["name"] for hinge in hinges) for hinges in bodies}
    for segment in SEGMENTS:
        names = tuple(joint for joint, _ in segment.hinges)
        if len(names) == 3 and names[0] != "neck_extension":
            assert names in orders


def random_poses(seed: int, frames: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    angles = rng.uniform(LOW_RAD, HIGH_RAD, (frames, 34))
    turns = Rotation.random(frames, rng=rng).as_quat(scalar_first=True)
    return angles, np.concatenate([rng.normal(size=(frames, 3)), turns], axis=1)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_bones_keep_their_lengths_and_nothing_is_below_ground(seed):
    angles, pelvis = random_poses(seed)
    standing = points_m(np.zeros((1, 34)), rest())[0]
    start, end = np.array(BONES).T
    for ground in ("recording", "frame", "none"):
        points = points_m(angles, pelvis, ground=ground)
        assert points.shape == (6, len(LANDMARKS), 3)
        assert points.dtype == np.float32
        lengths = np.linalg.norm(points[:, end] - points[:, start], axis=2)
        expected = np.linalg.norm(standing[end] - standing[start], axis=1)
        np.testing.assert_allclose(lengths, np.tile(expected, (6, 1)), atol=2e-6)
        lowest = points[:, :, Y].min(axis=1)
        if ground == "recording":
            assert lowest.min() == pytest.approx(0, abs=1e-6)
        elif ground == "frame":
            np.testing.assert_allclose(lowest, 0, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_mirrored_movement_has_mirrored_landmarks(seed):
    angles, pelvis = random_poses(seed)
    seen = pelvis * [1, 1, -1, 1, -1, -1, 1]  # a turn about an axis in the mirror's plane is reversed
    np.testing.assert_allclose(
        points_m(mirror(angles), seen), other_side(points_m(angles, pelvis)), atol=1e-6
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_all_landmarks_follow_the_pelvis(seed):
    angles, pelvis = random_poses(seed)
    still = points_m(angles, rest(6), ground="none").astype(float)
    turn = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).as_matrix()
    expected = np.einsum("tij,tpj->tpi", turn, still) + pelvis[:, None, :3]
    np.testing.assert_allclose(points_m(angles, pelvis, ground="none"), expected, atol=2e-6)
    shorter = pelvis * [1, 1, 1, 0.5, 0.5, 0.5, 0.5]  # an orientation is one whatever its length
    np.testing.assert_allclose(points_m(angles, shorter), points_m(angles, pelvis), atol=2e-6)


def test_an_unusable_pelvis_stands_upright_on_the_ground():
    angles = np.zeros((4, 34))
    standing = points_m(angles, rest(4))
    assert standing[:, FEET, Y].max() == pytest.approx(0, abs=1e-6)
    for damage in (0.0, np.nan, np.inf):
        pelvis = np.full((4, 7), damage)
        np.testing.assert_array_equal(points_m(angles, pelvis), standing)
    part = rest(4)
    part[2, 1] = np.nan
    np.testing.assert_array_equal(points_m(angles, part), standing)


def test_wrong_shapes_and_angles_are_refused():
    with pytest.raises(ValueError, match=r"found \(5, 34\) and \(4, 7\)"):
        points_m(np.zeros((5, 34)), rest(4))
    with pytest.raises(ValueError, match=r"found \(5, 26\)"):
        points_m(np.zeros((5, 26)), rest(5))
    with pytest.raises(ValueError, match="finite"):
        points_m(np.full((5, 34), np.nan), rest(5))
    assert points_m(np.zeros((0, 34)), np.zeros((0, 7))).shape == (0, len(LANDMARKS), 3)


def about_line(heights: np.ndarray) -> np.ndarray:
    frames = np.arange(len(heights))
    return heights - np.polyval(np.polyfit(frames, heights, 1), frames)


def walks_on_the_ground(points: np.ndarray) -> None:
    """Some foot is near the ground in every frame, and the head is above the pelvis."""
    lowest = points[:, FEET, Y].min(axis=1)
    assert lowest.min() == pytest.approx(0, abs=1e-6)
    # Of a line, since a camera's idea of level may slope: one real walk of 5 m comes down by 12 cm.
    assert np.abs(about_line(lowest)).max() < 0.08
    assert lowest.max() < 0.16
    assert np.percentile(lowest, 75) < 0.12
    assert (points[:, AT["head"], Y] - points[:, AT["pelvis"], Y] > 0.5).all()


def slip(points: np.ndarray) -> float:
    """Median speed over the ground, in metres a frame, of the lower foot's ball."""
    speed = np.linalg.norm(np.diff(points[:, BALLS][:, :, [X, Z]], axis=0), axis=2)
    lower = points[:-1, BALLS, Y].argmin(axis=1)
    return float(np.median(speed[np.arange(len(speed)), lower]))


@pytest.mark.parametrize("row", real_recordings.rows("overground walking"))
def test_real_people_walk_on_the_ground(row):
    path = real_recordings.path_of(row["path"])
    recording = readers.read(str(path), ReaderSettings(missing_joints="neutral"))
    angles, pelvis = resample(recording.time_s, recording.angles_rad, recording.pelvis, RATE)
    points = points_m(angles, pelvis)
    walks_on_the_ground(points)
    # Feet are apart on their own sides, whichever way the walk goes.
    apart = points[:, AT["ankle_r"]] - points[:, AT["ankle_l"]]
    right = Rotation.from_quat(pelvis[:, 3:], scalar_first=True).apply([0, 0, 1])
    assert 0.03 < np.median((apart * right).sum(axis=1)) < 0.25
    way = np.linalg.norm(points[-1, 0, [X, Z]] - points[0, 0, [X, Z]])
    if way < 0.5:
        return  # on a treadmill the foot goes with the belt
    # A foot that stands stays: only with axes, signs and order right do angles and pelvis agree on where.
    pace = way / (len(points) - 1)
    assert slip(points) < 0.35 * pace
    for joint in ("hip_flexion", "knee_angle"):
        wrong = angles.copy()
        wrong[:, [INDEX[f"{joint}_r"], INDEX[f"{joint}_l"]]] *= -1
        assert slip(points_m(wrong, pelvis)) > 0.5 * pace


def test_simulated_people_walk_on_the_ground():
    cohort = SimulatorSettings(scale=0.05)
    walk = next(
        trial
        for person in participants(cohort)
        for trial in trials(cohort, person, RATE)
        if trial.annotations["activity"] == "overground walking" and person.condition == "none"
    )
    walks_on_the_ground(points_m(walk.angles_rad, walk.pelvis))
    by_frame = points_m(walk.angles_rad, walk.pelvis, ground="frame")
    assert np.ptp(by_frame[:, AT["pelvis"], Y]) < 0.15
