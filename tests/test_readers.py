"""Readers: real files read the way people move, and every way a file can be written or be wrong."""

import csv

import numpy as np
import pytest

from biomechgpt.cohort import readers
from biomechgpt.cohort.readers import ReaderSettings
from biomechgpt.settings import InputError
from biomechgpt.skeleton import INDEX, NAMES, NECK, TRACKED
from conftest import REAL
from opensim_files import HEADER, in_radians, mot, walk

KNEES = [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]
STRICT, NEUTRAL = ReaderSettings(), ReaderSettings(missing_joints="neutral")
TABLE = REAL / "annotations.csv"
REAL_ROWS = list(csv.DictReader(TABLE.open())) if TABLE.exists() else [None]


@pytest.mark.parametrize("row", REAL_ROWS, ids=lambda row: row["path"] if row else "absent")
def test_real_files(row):
    if row is None:
        pytest.skip(f"no real recordings: {TABLE} is absent")
    recording = readers.read(str(REAL / row["path"]), NEUTRAL)
    assert recording.angles_rad.shape == (len(recording.time_s), 34)
    np.testing.assert_allclose(np.linalg.norm(recording.pelvis[:, 3:], axis=1), 1, atol=1e-9)
    knees = np.degrees(recording.angles_rad[:, KNEES])
    assert (knees.max(0) < 20).all()
    if row["activity"] == "overground walking":
        assert (knees.min(0) < -40).all()
        assert (knees.min(0) > -80).all()
    else:
        assert (knees.min(0) < -80).all()  # running, squats, jumps, chairs


def test_real_files_without_arms_name_what_is_missing():
    path = REAL / "opensim" / "opensim-core" / "std_subject01_walk1_ik.mot"
    if not path.exists():
        pytest.skip(f"no real recordings: {path} is absent")
    with pytest.raises(InputError, match=r"missing arm_flex_r, .*elbow_flex_l \(missing_joints: neutral"):
        readers.read(str(path), STRICT)
    mask = readers.read(str(path), NEUTRAL).joint_mask
    assert {NAMES[i] for i in np.flatnonzero(~mask)} == {
        f"{name}_{side}" for name in ("arm_flex", "arm_add", "arm_rot", "elbow_flex") for side in "rl"
    }


def test_real_full_and_reduced_humanoid_are_the_same_walk():
    paths = [REAL / "mujoco" / f"02-constspeed_{kind}_humanoid.npz" for kind in ("full", "reduced")]
    if not paths[0].exists():
        pytest.skip(f"no real recordings: {paths[0]} is absent")
    full, reduced = (readers.read(str(path), STRICT) for path in paths)
    assert (full.knee_flexion, reduced.knee_flexion) == ("positive", "negative")
    legs = [i for i, name in enumerate(NAMES) if name.startswith(("hip", "knee", "ankle"))]
    assert np.abs(full.angles_rad - reduced.angles_rad)[:, legs].max() < np.radians(3)


def expected() -> np.ndarray:
    columns = walk()
    zero = np.zeros(len(columns["time"]))
    return np.radians(np.stack([columns.get(name, zero) for name in NAMES], axis=1))


def shuffled(columns):
    return {name: columns[name] for name in reversed(columns)}


def knees_turned(columns):
    return {name: -v if name.startswith("knee_angle") else v for name, v in columns.items()}


def as_states(columns):
    return {name if name == "time" else f"/jointset/some/{name}/value": v for name, v in columns.items()}


OLD = "first trial\nnRows={rows}\nnColumns={columns}\n\n# SIMM Motion File Header:\nname first\nendheader\n"
VARIANTS = {
    "version 1, degrees": ("a.mot", mot(walk())),
    "radians": ("a.mot", mot(in_radians(walk()), HEADER.replace("=yes", "=no"))),
    "old .mot without units is in degrees": ("a.mot", mot(walk(), OLD)),
    "old .sto without units is in radians": ("a.sto", mot(in_radians(walk()), OLD)),
    "version 2 .mot without units is in radians": (
        "a.mot",
        mot(in_radians(walk()), HEADER.replace("inDegrees=yes\n", "").replace("version=1", "version=2")),
    ),
    "in words": ("a.mot", mot(in_radians(walk()), OLD.replace("endh", "Angles are in radians.\nendh"))),
    "datarows, padded lines": (
        "a.mot",
        mot(walk(), "x\t\t\ndatacolumns {columns}\t\ndatarows {rows}\t\t\nindegrees=YES\t\nendheader\t\t\n"),
    ),
    "spaces, blank line after the header": ("a.mot", mot(walk(), HEADER + "\n", "   ")),
    "windows line ends and a byte order mark": ("a.mot", "\ufeff" + mot(walk()).replace("\n", "\r\n")),
    "columns in any order": ("a.mot", mot(shuffled(walk()))),
    "knee flexion positive": ("a.mot", mot(knees_turned(walk()))),
    "unknown columns": ("a.mot", mot({**walk(), "knee_angle_r_beta": np.full(200, 3.0)})),
    "states": ("a.sto", mot(as_states(in_radians(walk())), HEADER.replace("=yes", "=no"))),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_to_write_the_same_walk(variant, tmp_path):
    name, text = VARIANTS[variant]
    (tmp_path / name).write_text(text, newline="")
    recording = readers.read(str(tmp_path / name), STRICT)
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)
    np.testing.assert_allclose(recording.pelvis[:, 0], 1.2 * recording.time_s, atol=1e-6)
    assert recording.joint_mask.all()
    assert recording.knee_flexion == ("positive" if "positive" in variant else "negative")


def test_missing_untracked_joints_and_neck_are_zero_and_no_error(tmp_path):
    columns = {k: v for k, v in walk().items() if k not in INDEX or TRACKED[INDEX[k]]}
    (tmp_path / "a.mot").write_text(mot(columns))
    recording = readers.read(str(tmp_path / "a.mot"), STRICT)
    for name in (*NECK, "mtp_angle_r", "wrist_dev_l"):
        assert not recording.angles_rad[:, INDEX[name]].any()
    assert recording.joint_mask.all()


def test_the_pelvis_turns_about_z_then_x_then_y(tmp_path):
    columns = walk()
    for name, degrees in (("pelvis_tilt", 90.0), ("pelvis_list", 0.0), ("pelvis_rotation", 90.0)):
        columns[name] = np.full(200, degrees)
    (tmp_path / "a.mot").write_text(mot(columns))
    quaternion = readers.read(str(tmp_path / "a.mot"), STRICT).pelvis[0, 3:]
    # By 90 degrees about Z, then about the turned Y (w, x, y, z): (1, 0, 0, 1)/r2 * (1, 0, 1, 0)/r2.
    np.testing.assert_allclose(quaternion, [0.5, -0.5, 0.5, 0.5], atol=1e-9)


def changed(name, frame, value):
    columns = {k: v.copy() for k, v in walk().items()}
    columns[name][frame] = value
    return mot(columns)


def without(*names):
    return mot({k: v for k, v in walk().items() if k not in names})


BAD = {
    "no time at some line": (changed("time", 40, np.nan), r"a.mot: line 49, column 'time': .*found nan"),
    "time decreases": (changed("time", 40, 0.2), r"line 49, column 'time': .*found 0\.2 after 0\.39"),
    "a gap": (
        mot({k: np.delete(v, slice(50, 100)) for k, v in walk().items()}),
        r"line 59, column 'time': expected gaps of at most 0\.25 s .*found 0\.51 s",
    ),
    "too short": (mot(walk(0.3)), r"expected at least 0\.5 s \(min_duration_s\), found 30 frames"),
    "cut in a line": (mot(walk())[:-200], r"line 208: expected 38 values, found \d+: the file is cut off"),
    "cut between lines": (
        mot(walk()).rsplit("\n", 20)[0] + "\n",
        r"promises 200 rows, found 18\d: .*cut off",
    ),
    "only a header": (HEADER.format(rows=2, columns=2), r"line 7: expected column names after 'endheader'"),
    "no end of the header": (
        mot(walk()).replace("endheader", ""),
        r"expected a header that ends with 'endhe",
    ),
    "no time": (without("time"), r"line 8: expected a column 'time', found pelvis_tilt"),
    "missing joints": (
        without("arm_flex_r", "hip_rotation_l"),
        r"expected every tracked joint, missing hip_rotation_l, arm_flex_r \(missing_joints: neutral",
    ),
    "radians called degrees": (mot(in_radians(walk())), r"expected degrees, found what look like radians"),
    "degrees called radians": (
        mot(walk(), HEADER.replace("=yes", "=no")),
        r"line \d+, column 'hip_flexion_r': .*expected radians, found what look like degrees",
    ),
    "a word": (mot(walk()).replace("0.95000000", "abc", 1), r"line 9, column 'pelvis_ty': .*found 'abc'"),
    "twice": (
        mot(walk()).replace("hip_flexion_l", "hip_flexion_r"),
        r"line 8: column 'hip_flexion_r' appears 2",
    ),
    "units in another word": (
        mot(walk(), HEADER.replace("yes", "maybe")),
        r"line 5: indegrees: expected yes or",
    ),
    "forces": (
        mot({"time": walk()["time"], "ground_force_vx": walk()["time"]}),
        r"expected every tracked joint, missing hip_flexion_r",
    ),
    "another format": (
        "<osim/>\n",
        r"expected a recording \(\.mot, \.sto, \.npz, .*\), found content of no known",
    ),
    "empty": ("", r"found content of no known format"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_file_and_place(case, tmp_path):
    text, message = BAD[case]
    (tmp_path / "a.mot").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        readers.read(str(tmp_path / "a.mot"), STRICT, name="a.mot")
    assert str(error.value).startswith("a.mot: ")


def test_neutral_accepts_missing_joints_but_not_a_file_without_any(tmp_path):
    (tmp_path / "a.mot").write_text(without("arm_flex_r"))
    mask = readers.read(str(tmp_path / "a.mot"), NEUTRAL).joint_mask
    assert [NAMES[i] for i in np.flatnonzero(~mask)] == ["arm_flex_r"]
    (tmp_path / "a.mot").write_text(BAD["forces"][0])
    with pytest.raises(InputError, match="no recording of movement"):
        readers.read(str(tmp_path / "a.mot"), NEUTRAL)


def test_an_absent_file():
    with pytest.raises(InputError, match=r"nowhere\.mot: no such recording"):
        readers.read("nowhere.mot", STRICT)


def arrays(**more):
    return {f"q_{k}": v for k, v in in_radians(walk()).items() if k != "time"} | more


def test_npz_takes_its_rate_from_time_then_frequency_then_settings(tmp_path):
    path = tmp_path / "a.npz"
    for more, step in (({"time": np.arange(200) / 50}, 0.02), ({"frequency": 100}, 0.01), ({}, 0.004)):
        np.savez(path, **arrays(**more))
        recording = readers.read(str(path), ReaderSettings(mujoco_rate_hz=250))
        np.testing.assert_allclose(np.diff(recording.time_s), step)
        np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-9)


def test_npz_with_positive_knees_also_mirrors_the_left_hip(tmp_path):
    full = arrays(frequency=100)
    for name in ("knee_angle_r", "knee_angle_l", "hip_adduction_l", "hip_rotation_l"):
        full[f"q_{name}"] = -full[f"q_{name}"]
    np.savez(tmp_path / "a.npz", **full)
    recording = readers.read(str(tmp_path / "a.npz"), STRICT)
    assert recording.knee_flexion == "positive"
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-9)


def test_bad_npz(tmp_path):
    path = tmp_path / "a.npz"

    def refused(message):
        with pytest.raises(InputError, match=message):
            readers.read(str(path), STRICT)

    np.savez(path, **arrays(q_hip_flexion_r=np.full(200, np.nan), frequency=100))
    refused(r"missing hip_flexion_r")
    np.savez(path, **arrays(q_hip_flexion_r=np.zeros(7)))
    refused(r"array 'q_(pelvis_tilt|hip_flexion_r)': expected shape")
    np.savez(path, something=np.zeros(7))
    refused(r"expected arrays named q_<joint> or qpos, found none")
    np.savez(path, **{k: np.degrees(v) for k, v in arrays().items()}, frequency=100)
    refused(r"expected radians, found what look like degrees")
    np.savez(path, q_hip_flexion_r=np.array([{}], dtype=object))
    refused(r"found a damaged or foreign file")
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(r"found a damaged or foreign file")
    path.write_bytes(whole[:200] + b"\xff" * 40 + whole[240:])
    refused(r"found a damaged or foreign file")
