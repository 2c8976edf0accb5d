"""Files that have the columns of a movement and hold none: refused, with what they look like."""

from pathlib import Path

import numpy as np
import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from opensim_files import mot, walk

CASES = Path(__file__).parents[3] / "shared" / "cases"
RATE = 30.0


def accepted(name, content, **settings):
    """The recording, read and judged as cohorts and the server do."""
    recording = readers.parse(name, content, ReaderSettings(missing_joints="neutral", **settings))
    return prepare(name, recording, QualitySettings(), RATE)


def file_of(columns, title=None):
    text = mot(columns)
    return (text if title is None else f"{title}\n{text.partition(chr(10))[2]}").encode()


def test_a_walk_is_accepted():
    accepted("walk.mot", file_of(walk()))


@pytest.mark.parametrize("scale", [1000.0, 1e6])
def test_time_in_another_unit_is_refused_before_anything_is_made_of_it(scale):
    columns = walk()
    with pytest.raises(InputError, match="expected at least 5 frames a second") as error:
        accepted("walk.mot", file_of(columns | {"time": scale * columns["time"]}))
    assert ("milliseconds" in str(error.value)) == (scale == 1000)


def test_a_few_rows_that_span_days_are_refused():
    """Few rows, so the limit on rows lets them pass; resampled, they would be millions of frames."""
    columns = walk()
    time = columns["time"].copy()
    time[-1] = 956_000
    with pytest.raises(InputError, match=r"at most 3600 s \(max_duration_s\), found 956000"):
        accepted("walk.mot", file_of(columns | {"time": time}))


@pytest.mark.parametrize("pose", [0.0, 12.0])
def test_a_pose_that_never_changes_is_no_movement(pose):
    columns = {name: v if name == "time" else np.full_like(v, pose) for name, v in walk().items()}
    with pytest.raises(InputError, match="no movement: no joint moves"):
        accepted("pose.mot", file_of(columns))


def test_a_person_who_stands_still_moves_a_little_and_is_accepted():
    columns, rng = walk(), np.random.default_rng(0)
    still = {
        name: v if name == "time" else v[0] + np.cumsum(rng.normal(0, 0.05, len(v)))
        for name, v in columns.items()
    }
    still["hip_flexion_r"] = still["hip_flexion_r"] + np.linspace(0, 1, len(columns["time"]))
    still["elbow_flex_r"] = still.get("elbow_flex_r", 0) + 15 + 0 * columns["time"]
    accepted("standing.mot", file_of(still))


@pytest.mark.parametrize(
    "title", ["PositionErrors", "Speeds", "Accelerations", "Model Marker Errors from IK"]
)
def test_a_file_of_another_program_is_refused_by_its_title(title):
    with pytest.raises(InputError, match="no recording of movement"):
        accepted("walk.sto", file_of(walk(), title))


@pytest.mark.parametrize("name", ["subject01_walk1_RRA_pErr.sto", "walk_Kinematics_u.sto"])
def test_a_file_of_another_program_is_refused_by_its_name(name):
    with pytest.raises(InputError, match="no recording of movement"):
        accepted(name, file_of(walk()))


def test_a_motion_with_an_unusual_title_is_read():
    for title in ("Coordinates", "subject01_walk1_ik", "name walk", "resistance force 3 kg"):
        accepted("walk.mot", file_of(walk(), title))


@pytest.mark.parametrize("largest_deg", [0.6, 4.0])
def test_position_errors_are_refused_by_their_size(largest_deg):
    time = walk()["time"]
    errors = {name: largest_deg * np.sin(time * (1 + i / 7) + i) for i, name in enumerate(NAMES)}
    columns = {"time": time, **{name: np.radians(values) for name, values in errors.items()}}
    with pytest.raises(InputError, match="look like position errors"):
        accepted("errors.sto", file_of(columns), units="radians")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("time_in_ms", "milliseconds"),
        ("no_motion", "no movement"),
        ("rra_position_errors", "no recording of movement"),
    ],
)
def test_the_shared_cases_are_refused(case, message):
    files = sorted((CASES / case).glob("*"))
    if not files:
        pytest.skip(f"{CASES / case} is absent")
    for path in files:
        with pytest.raises(InputError, match=message):
            accepted(path.name, path.read_bytes())
