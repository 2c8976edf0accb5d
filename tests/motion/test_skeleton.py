"""The skeleton and how a trial is stored."""

import numpy as np

from biomechgpt.motion import skeleton
from biomechgpt.motion.trial import Trial, from_row, table


def test_skeleton_has_26_tracked_of_34_and_mirroring_twice_changes_nothing():
    assert (skeleton.N_JOINTS, int(skeleton.TRACKED.sum())) == (34, 26)
    assert skeleton.NAMES[3] == "knee_angle_r"
    assert skeleton.NAMES[20] == "arm_flex_r"
    assert skeleton.NAMES[27] == "arm_flex_l"
    angles = np.random.default_rng(0).normal(size=(5, 34))
    once = skeleton.mirror(angles)
    assert not np.allclose(once, angles)
    np.testing.assert_array_equal(skeleton.mirror(once), angles)


def test_trial_survives_parquet_types():
    rng = np.random.default_rng(1)
    trial = Trial("t", "p", rng.normal(size=(6, 34)).astype("f4"), rng.normal(size=(6, 7)).astype("f4"), 30.0,
                  annotations={"activity": "FSST", "fsst_time": 9.5})  # fmt: skip
    rows = table([trial], {"activity": "text", "fsst_time": "number", "diagnosis": "text"}).to_pylist()
    back = from_row(rows[0])
    np.testing.assert_array_equal(back.angles_rad, trial.angles_rad)
    assert back.annotations == {"activity": "FSST", "fsst_time": 9.5, "diagnosis": None}
