"""Joint curves of the page: the signs of the clinic, the norm, and nothing that was not recorded."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from biomechgpt.motion import norms
from biomechgpt.motion.skeleton import INDEX, N_JOINTS
from serve.recordings import LoadedRecording, joint_curves, strides
from serve.schema import RecordingInfo

RATE = 30.0


def recording(angles_rad, pelvis, missing=()):
    info = RecordingInfo(
        name="a.mot", frames=len(angles_rad), duration_s=len(angles_rad) / RATE, used_s=1.0, frame_rate_hz=RATE,
        knee_flexion="negative", provenance="synthetic", missing_joints=list(missing), repairs=None,
    )  # fmt: skip
    return LoadedRecording(info, angles_rad, pelvis, "0" * 64)


@pytest.fixture
def standing():
    pelvis = np.tile([0, 1, 0, 1.0, 0, 0, 0], (30, 1))
    return np.zeros((30, N_JOINTS)), pelvis


def curve(curves, name):
    return next(curve for curve in curves if curve.name == name)


def test_flexion_dorsiflexion_and_leaning_forward_are_positive(standing):
    angles, pelvis = standing
    angles[:, INDEX["knee_angle_r"]] = np.radians(-60)
    angles[:, INDEX["ankle_angle_l"]] = np.radians(10)
    angles[:, INDEX["lumbar_extension"]] = np.radians(-20)
    curves = joint_curves(recording(angles, pelvis))
    assert set(curve(curves, "knee").right) == {60.0}
    assert set(curve(curves, "knee").left) == {0.0}
    assert set(curve(curves, "ankle").left) == {10.0}
    assert set(curve(curves, "trunk").middle) == {20.0}
    assert curve(curves, "trunk").norm is None


def test_the_pelvis_tilts_forward_and_its_right_side_rises_as_it_was_turned(standing):
    angles, pelvis = standing
    # The skeleton's axes: X forward, Y up, Z right. A turn about -Z tips the front down; about -X lifts the right.
    for axis, name, degrees in (([0, 0, -1], "pelvis_tilt", 12), ([-1, 0, 0], "pelvis_list", 5)):
        turn = Rotation.from_rotvec(np.radians(degrees) * np.array(axis))
        turned = pelvis.copy()
        turned[:, 3:] = turn.as_quat(scalar_first=True)
        curves = joint_curves(recording(angles, turned))
        assert curve(curves, name).middle[0] == pytest.approx(degrees, abs=0.1)
        assert [c.name for c in curves] == ["hip", "knee", "ankle", "pelvis_tilt", "pelvis_list", "trunk"]


def test_what_was_not_recorded_is_not_drawn(standing):
    angles, pelvis = standing
    missing = ["knee_angle_r", "hip_flexion_r", "hip_flexion_l"]
    curves = joint_curves(recording(angles, pelvis, missing))
    assert curve(curves, "knee").right is None
    assert [c.name for c in curves] == ["knee", "ankle", "trunk"]  # no hip, and a pelvis that never tilts


def test_the_norm_of_the_knee_is_positive_in_flexion(standing):
    norm = curve(joint_curves(recording(*standing)), "knee").norm
    mean, sd = norms.gait_band("knee_angle_r")
    assert norm.mean == pytest.approx(-mean[::2], abs=0.051)
    assert norm.sd == pytest.approx(sd[::2], abs=0.051)
    assert max(norm.mean) > 55
    assert "Schwartz" in norm.source


def test_a_person_who_stands_has_no_strides(standing):
    found = strides(recording(*standing))
    assert found.right == found.left == []
