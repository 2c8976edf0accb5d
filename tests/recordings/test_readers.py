"""Readers: real files read the way people move, and every way a file can be written or be wrong."""

import io
from contextlib import suppress

import ezc3d
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import real_recordings
from biomechgpt.cohort import Cohort, CohortSettings, build, make_cohort
from biomechgpt.core.settings import InputError, load
from biomechgpt.motion.skeleton import INDEX, NAMES, NECK, TRACKED
from biomechgpt.motion.trial import from_row
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings, c3d
from biomechgpt.recordings.readers.joint_map import PELVIS_TRANSLATIONS, load_maps
from conftest import ROOT
from opensim_files import HEADER, PELVIS, in_radians, mot, walk

KNEES = [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]
STRICT, NEUTRAL = ReaderSettings(missing_joints="error"), ReaderSettings()


@pytest.mark.parametrize("row", real_recordings.rows())
def test_real_files(row):
    recording = readers.read(str(real_recordings.path_of(row["path"])), NEUTRAL)
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
    path = real_recordings.path_of("opensim/opensim-core/std_subject01_walk1_ik.mot")
    with pytest.raises(InputError, match=r"missing arm_flex_r, .*elbow_flex_l \(missing_joints: neutral"):
        readers.read(str(path), STRICT)
    arms = {f"{name}_{side}" for name in ("arm_flex", "arm_add", "arm_rot", "elbow_flex") for side in "rl"}
    assert {*arms, *NECK} < absent(readers.read(str(path), NEUTRAL))


def test_real_full_and_reduced_humanoid_are_the_same_walk():
    paths = [
        real_recordings.path_of(f"mujoco/02-constspeed_{kind}_humanoid.npz") for kind in ("full", "reduced")
    ]
    full, reduced = (readers.read(str(path), STRICT) for path in paths)
    assert (full.knee_flexion, reduced.knee_flexion) == ("positive", "negative")
    legs = [i for i, name in enumerate(NAMES) if name.startswith(("hip", "knee", "ankle"))]
    assert np.abs(full.angles_rad - reduced.angles_rad)[:, legs].max() < np.radians(3)


def absent(recording):
    """Names of the joints that were not recorded."""
    return {NAMES[i] for i in np.flatnonzero(~recording.joint_mask)}


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
RADIANS = {
    "radians",
    "old .sto without units is in radians",
    "version 2 .mot without units is in radians",
    "in words",
    "states",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_to_write_the_same_walk(variant, tmp_path):
    name, text = VARIANTS[variant]
    (tmp_path / name).write_text(text, newline="")
    recording = readers.read(str(tmp_path / name), STRICT)
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)
    np.testing.assert_allclose(recording.pelvis[:, 0], 1.2 * recording.time_s, atol=1e-6)
    assert absent(recording) == set(NECK)
    assert recording.knee_flexion == ("positive" if "positive" in variant else "negative")
    assert recording.import_notes == (
        f"OpenSim .{name[-3:]}, {'radians' if variant in RADIANS else 'degrees'}, "
        f"knee flexion {recording.knee_flexion}, 100 Hz"
    )


def test_missing_untracked_joints_and_neck_are_zero_and_no_error(tmp_path):
    columns = {k: v for k, v in walk().items() if k not in INDEX or TRACKED[INDEX[k]]}
    (tmp_path / "a.mot").write_text(mot(columns))
    recording = readers.read(str(tmp_path / "a.mot"), STRICT)
    for name in (*NECK, "mtp_angle_r", "wrist_dev_l"):
        assert not recording.angles_rad[:, INDEX[name]].any()
    assert absent(recording) == {*NECK, *(name for name in NAMES if not TRACKED[INDEX[name]])}


def test_a_joint_that_never_moves_was_not_recorded(tmp_path):
    """OpenSim's models lock joints that they do not have, and write their one value into every row."""
    columns = walk()
    columns["subtalar_angle_r"] = np.zeros_like(columns["time"])
    columns["mtp_angle_l"] = np.full_like(columns["time"], -7.0)
    (tmp_path / "a.mot").write_text(mot(columns))
    recording = readers.read(str(tmp_path / "a.mot"), STRICT)
    assert absent(recording) == {*NECK, "subtalar_angle_r", "mtp_angle_l"}


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
    "one frame": (mot(walk(0.01)), r"a.mot: expected a movement, found 1 frame in this file"),
    "cut in a line": (mot(walk())[:-200], r"line 208: expected 38 values, found \d+: the file is cut off"),
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
        r"expected joint angles, found forces or muscles \(ground_force_vx\): use the file of joint",
    ),
    "another format": (
        "<osim/>\n",
        r"expected a recording \(\.mot, \.sto, .*\.npz, .*\), found text of no known format",
    ),
    "empty": ("", r"found an empty file"),
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
    assert {NAMES[i] for i in np.flatnonzero(~mask)} == {*NECK, "arm_flex_r"}
    (tmp_path / "a.mot").write_text(BAD["forces"][0])
    with pytest.raises(InputError, match="found forces"):
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
    refused(r"expected arrays named q_<joint> or qpos, or poses of SMPL, found something")
    np.savez(path, **{k: np.degrees(v) for k, v in arrays().items()}, frequency=100)
    refused(r"expected radians, found what look like degrees")
    np.savez(path, q_hip_flexion_r=np.array([{}], dtype=object))
    refused(r"found a pickle among them")
    np.savez(path, **arrays(frequency=0))
    refused(r"expected a frame rate above 0, found 0")
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(r"found a damaged or foreign file")
    path.write_bytes(whole[:200] + b"\xff" * 40 + whole[240:])
    refused(r"found a damaged or foreign file")


def test_what_the_header_says_of_the_rate_and_the_knee(tmp_path):
    path = tmp_path / "a.mot"
    path.write_text(mot(walk(), OLD.replace("endh", "range 0 1.99\nendh")))
    assert readers.read(str(path), STRICT).declared_rate_hz == pytest.approx(100)
    path.write_text(mot(walk(), OLD.replace("endh", "range 0\nendh")))
    with pytest.raises(InputError, match=r"a.mot: line 7: range: expected two numbers, found '0'"):
        readers.read(str(path), STRICT)
    standing = {k: 5 + 0 * v if k.startswith("knee") else v for k, v in walk().items()}
    path.write_text(mot(standing, HEADER.replace("\nendh", "\nKnee flexion is negative.\nendh")))
    assert readers.read(str(path), STRICT).knee_flexion == "negative"
    path.write_text(mot(standing))
    assert readers.read(str(path), STRICT).knee_flexion == "positive"


def test_a_rate_from_rounded_times(tmp_path):
    (tmp_path / "a.mot").write_text(mot({**walk(rate_hz=60), "time": np.round(np.arange(120) / 60, 3)}))
    assert readers.read(str(tmp_path / "a.mot"), STRICT).rate_hz == pytest.approx(60, abs=0.05)


@hypothesis_settings(deadline=None)
@given(st.sets(st.integers(0, 199), max_size=150))
def test_missing_values_stay_missing_and_move_nothing_else(gone):
    columns = {k: v.copy() for k, v in walk().items()}
    turning = np.linspace(-170, 500, 200)
    columns["arm_flex_r"] = (turning + 180) % 360 - 180  # by whole turns, as a solver may leave it
    columns["arm_flex_r"][list(gone)] = columns["pelvis_ty"][list(gone)] = np.nan
    recording = readers.parse("a.mot", mot(columns).encode(), STRICT)
    missing = np.isin(np.arange(200), list(gone))
    arm = INDEX["arm_flex_r"]
    assert (np.isnan(recording.angles_rad[:, arm]) == missing).all()
    assert (np.isnan(recording.pelvis[:, 1]) == missing).all()
    others = np.delete(np.arange(34), arm)
    np.testing.assert_allclose(recording.angles_rad[:, others], expected()[:, others], atol=1e-6)
    there = np.flatnonzero(~missing)
    near = np.diff(turning[there]) < 180
    steps = np.diff(np.degrees(recording.angles_rad[there, arm]))
    np.testing.assert_allclose(steps[near], np.diff(turning[there])[near], atol=1e-5)


def csv_text(columns, delimiter=",", decimal="."):
    rows = zip(*columns.values(), strict=True)
    cells = [["" if np.isnan(v) else f"{v:.8f}".replace(".", decimal) for v in row] for row in rows]
    lines = [delimiter.join(columns), *(delimiter.join(row) for row in cells)]
    return "\n".join(lines) + "\n"


def parquet_bytes(columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"note": ["walk"] * len(columns["time"]), **columns}), buffer)
    return buffer.getvalue()


TABLES = {
    "commas": (csv_text(walk()).encode(), "CSV, degrees"),
    "semicolons and decimal commas": (csv_text(walk(), ";", ",").encode(), "CSV, degrees"),
    "tabs, windows": (("\ufeff" + csv_text(walk(), "\t").replace("\n", "\r\n")).encode(), "CSV, degrees"),
    "radians": (csv_text(in_radians(walk())).encode(), "CSV, radians"),
    "Parquet": (parquet_bytes(walk()), "Parquet, degrees"),
}


@pytest.mark.parametrize("table", TABLES)
def test_plain_tables(table):
    content, reading = TABLES[table]
    recording = readers.parse("a", content, STRICT)
    odd = "; decimal commas" if "decimal" in table else ""
    assert recording.import_notes == f"{reading}, knee flexion negative, 100 Hz{odd}"
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)
    np.testing.assert_allclose(recording.pelvis[:, 0], 1.2 * recording.time_s, atol=1e-6)


def test_an_empty_cell_is_a_missing_value():
    columns = walk()
    columns["hip_flexion_r"][40] = np.nan
    recording = readers.parse("a.csv", csv_text(columns).encode(), STRICT)
    assert np.argwhere(np.isnan(recording.angles_rad)).tolist() == [[40, 0]]


HALF = {k: v if k in ("time", *PELVIS_TRANSLATIONS) else 0.05 * v for k, v in walk().items()}
BAD_TABLES = {
    "a short line": (
        csv_text(walk()).rsplit(",", 3)[0],
        r"a: line 201: expected 38 cells, found 35: .*cut off",
    ),
    "a word": (csv_text(walk()).replace("0.95000000", "abc", 1), r"a: line 2, column 'pelvis_ty': .*'abc'"),
    "twice": (
        csv_text(walk()).replace("hip_flexion_l", "hip_flexion_r"),
        r"line 1: column 'hip_flexion_r' app",
    ),
    "no time": (
        csv_text({k: v for k, v in walk().items() if k != "time"}),
        r"a: expected a column 'time', found pelvis_tilt, .* and 25 more \(a joint map may",
    ),
    "neither degrees nor radians for sure": (
        csv_text(
            {k: 1.2 * v if k.startswith("arm") else v for k, v in HALF.items()}
            | {"arm_add_r": HALF["time"] * 4}
        ),
        r"a: expected units of angles, found none, and the largest angle, 7.96",
    ),
    "degrees called radians": (
        csv_text(walk()),
        r"line \d+, column 'hip_flexion_r': .*what look like degrees",
    ),
    "other names": (
        csv_text({f"joint {k}": v for k, v in walk().items()} | {"time": walk()["time"]}),
        r"a: none of the skeleton's joints is among its columns \(joint time, joint pelvis_tilt.*joint map has to",
    ),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_by_place(case):
    text, message = BAD_TABLES[case]
    units = "radians" if "called" in case else "header"
    with pytest.raises(InputError, match=message):
        readers.parse("a", text.encode(), ReaderSettings(units=units, missing_joints="error"))


def test_a_damaged_parquet_file():
    with pytest.raises(InputError, match=r"a: expected Parquet, found a damaged file"):
        readers.parse("a", TABLES["Parquet"][0][:-50], STRICT)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"id,sex,height\nP01,f,1.7\n", "text of no known format, which begins 'id,sex,height'"),
        (b"PK\x03\x04" + b"\0" * 22 + b"\x13\0\0\0[Content_Types].xml", "expected an Excel workbook"),
        (b"# Data\n\nIts headers lack inDegrees=yes and endheader.\n", "text of no known format"),
        (b"", "an empty file"),
    ],
    ids=["a table of people", "a spreadsheet", "a text about recordings", "empty"],
)
def test_what_is_no_recording(content, what):
    assert not readers.recognizes(content)
    with pytest.raises(InputError, match=rf"a: .*{what}"):
        readers.parse("a", content, STRICT)


MAPS = ROOT / "configs" / "joint_maps"
SHIPPED = {path.name: load_maps(str(path))[0] for path in sorted(MAPS.glob("*.yaml"))}


def as_lab(joint_map, columns):
    """The same movement as a lab of this map writes it: its names, signs, offsets and units."""
    lab = {k: v for k, v in columns.items() if k not in joint_map.joints and k != "time"}
    scale = {"radians": np.pi / 180, "mm": 1000.0}
    for joint, column in joint_map.joints.items():
        if joint not in columns:
            continue
        theirs = (1 if column.sign == "auto" else column.sign) * (
            scale.get(column.units, 1.0) * columns[joint] - column.offset
        )
        for part in column.parts:
            lab[part] = theirs / len(column.parts)
    return {joint_map.time: columns["time"] * (1000 if joint_map.time_units == "ms" else 1)} | lab


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_joint_maps(name):
    """Chosen among all of them by the columns, each gives the walk that was written by it."""
    columns = as_lab(SHIPPED[name], walk())
    recording = readers.parse("a.csv", csv_text(columns).encode(), ReaderSettings(missing_joints="error"))
    assert recording.joint_map == name
    assert recording.import_notes.endswith(f"100 Hz, columns by {name}")
    turned = SHIPPED[name].joints.get("knee_angle_r")
    assert recording.knee_flexion == ("positive" if turned and turned.sign == -1 else "negative")
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)
    truth = readers.parse("a.mot", mot(walk()).encode(), STRICT)
    np.testing.assert_allclose(recording.pelvis, truth.pelvis, atol=1e-6)


def test_a_joint_map_maps_any_format(tmp_path):
    lab = as_lab(SHIPPED["pose2sim.yaml"], walk())
    recording = readers.parse("a.mot", mot(lab).encode(), ReaderSettings(joint_map=str(MAPS)))
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)


def one_map(tmp_path, text, name="lab.yaml"):
    (tmp_path / name).write_text(text)
    return ReaderSettings(missing_joints="neutral", joint_map=str(tmp_path / name))


def test_offsets_units_and_rates_of_a_joint_map(tmp_path):
    how = one_map(
        tmp_path,
        "units: degrees\nrate_hz: 50\njoints:\n  hip_flexion_r: {column: A, sign: -1, offset: 90}\n"
        "  arm_flex_r: {column: B, units: radians}\n  pelvis_ty: {column: C, units: mm}\n",
    )
    table = csv_text({"A": np.full(100, 60.0), "B": np.full(100, 0.5), "C": np.full(100, 900.0)})
    recording = readers.parse("a.csv", table.encode(), how)
    np.testing.assert_allclose(recording.angles_rad[:, INDEX["hip_flexion_r"]], np.radians(30))
    np.testing.assert_allclose(recording.angles_rad[:, INDEX["arm_flex_r"]], 0.5)
    np.testing.assert_allclose(recording.pelvis[:, 1], 0.9)
    assert recording.rate_hz == pytest.approx(50)
    assert recording.declared_rate_hz == 50


BAD_MAPS = {
    "joints: {knee_r: K}": r"lab.yaml: wrong settings\n  joints: .*'knee_r' is no joint of the skeleton \(hip_flex",
    "joints: {knee_angle_r: {column: K, sgin: -1}}": r"lab.yaml: .*\n  joints.knee_angle_r.sgin: unknown key",
    "joints: {knee_angle_r: {column: K, units: mm}}": r"knee_angle_r: mm is no unit of it",
    "joints: {knee_angle_r: {column: K, sign: 2}}": r"lab.yaml: .*\n  joints.knee_angle_r.sign",
    "joint: {knee_angle_r: K}": r"lab.yaml: .*\n  joints: Field required",
    "joints: [": r"lab.yaml: not valid YAML",
}


@pytest.mark.parametrize("text", BAD_MAPS)
def test_a_bad_joint_map_is_refused_by_key(text, tmp_path):
    with pytest.raises(InputError, match="(?s)" + BAD_MAPS[text]):
        one_map(tmp_path, text)


def test_joint_maps_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.yaml: no such settings file"):
        ReaderSettings(joint_map=str(tmp_path / "nowhere.yaml"))
    with pytest.raises(InputError, match=r"expected .yaml files that map joints, found none"):
        ReaderSettings(joint_map=str(tmp_path))
    clinical = as_lab(SHIPPED["clinical_csv.yaml"], walk())
    del clinical["right_elbow_flexion"]
    with pytest.raises(InputError, match=r"a: .*missing elbow_flex_r \(column 'right_elbow_flexion'\)"):
        readers.parse("a", csv_text(clinical).encode(), STRICT)
    for name in ("one.yaml", "two.yaml"):
        one_map(tmp_path, "joints: {knee_angle_r: K, knee_angle_l: L}", name)
    table = csv_text(
        {"time": np.arange(99) / 100, "K": np.linspace(-60, 0, 99), "L": np.linspace(-60, 0, 99)}
    )
    with pytest.raises(InputError, match=r"a: expected one joint map that fits .*one.yaml and two.yaml"):
        readers.parse("a", table.encode(), ReaderSettings(missing_joints="neutral", joint_map=str(tmp_path)))
    how = one_map(tmp_path, "joints: {knee_angle_r: {column: K, sign: -1}}")
    with pytest.raises(
        InputError, match=r"a: column 'K': .*bends to negative angles by the sign in lab.yaml, found 59"
    ):
        readers.parse("a", table.encode(), how)


def test_a_joint_map_travels_in_the_settings():
    """From the command line, and by content: neither a worker nor a fingerprint needs the file's place."""
    arguments = ["--readers.joint_map", str(MAPS / "plug_in_gait.yaml")]
    how = load(CohortSettings, None, arguments)
    assert [m.name for m in how.readers.joint_map] == ["plug_in_gait.yaml"]
    assert CohortSettings.model_validate(how.model_dump(mode="json")) == how


ROOTS = ("sliding", "free, Y up", "free, Z up", "free, Z up, pelvis like the world")


def qpos(root, hinges):
    """A walk's qpos with this root, as MuJoCo has it."""
    columns = in_radians(walk())
    tilt, lean, turn, tx, ty, tz = (columns[k] for k in PELVIS)
    angles = np.stack([columns.get(k, 0 * tx) for k in hinges], axis=1)
    if root == "sliding":
        return np.column_stack([tx, tz, ty, tilt, lean, turn, angles])
    place, rotation = (
        np.column_stack([tx, ty, tz]),
        Rotation.from_euler("ZXY", np.stack([tilt, lean, turn], 1)),
    )
    if "Z up" in root:
        to_z_up = Rotation.from_matrix([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # (x, y, z) -> (x, -z, y)
        place, rotation = to_z_up.apply(place), to_z_up * rotation
        if "like the world" in root:
            rotation = rotation * to_z_up.inv()
    return np.column_stack([place, rotation.as_quat(scalar_first=True), angles])


@pytest.mark.parametrize("names", ["none", "hinges", "all"])
@pytest.mark.parametrize("root", ROOTS)
def test_qpos(root, names, tmp_path):
    hinges = [k for k in NAMES if k not in NECK]
    arrays = {"qpos": qpos(root, hinges), "frequency": 100.0}
    if names != "none":
        head = [] if names == "hinges" else [*"abcdef"] if root == "sliding" else ["root"]
        shuffled = list(reversed(hinges))
        arrays |= {"qpos": qpos(root, shuffled), "joint_names": np.array([*head, *shuffled])}
    np.savez(tmp_path / "a.npz", **arrays)
    recording = readers.read(str(tmp_path / "a.npz"), STRICT)
    truth = readers.parse("a.mot", mot(walk()).encode(), STRICT)
    np.testing.assert_allclose(recording.angles_rad, expected(), atol=1e-6)
    np.testing.assert_allclose(recording.pelvis[:, :3], truth.pelvis[:, :3], atol=1e-6)
    dots = np.abs(np.sum(recording.pelvis[:, 3:] * truth.pelvis[:, 3:], axis=1))
    np.testing.assert_allclose(dots, 1, atol=1e-6)
    said = {"sliding": "sliding root", "free, Y up": "free joint, Y up"}.get(root, "free joint, Z up")
    assert recording.import_notes == f"MuJoCo .npz, qpos with {said}, radians, knee flexion negative, 100 Hz"
    assert recording.declared_rate_hz == 100


def test_a_frame_of_qpos_without_values_is_missing(tmp_path):
    whole = qpos("free, Z up", NAMES)
    whole[40] = np.nan
    np.savez(tmp_path / "a.npz", qpos=whole, frequency=100)
    recording = readers.read(str(tmp_path / "a.npz"), STRICT)
    for values in (recording.angles_rad, recording.pelvis):
        assert np.isnan(values[40]).all()
        assert np.isfinite(np.delete(values, 40, axis=0)).all()


def test_bad_qpos(tmp_path):
    path = tmp_path / "a.npz"

    def refused(message, **arrays):
        np.savez(path, frequency=100, **arrays)
        with pytest.raises(InputError, match=message):
            readers.read(str(path), STRICT)

    whole = qpos("free, Z up", NAMES)
    refused(r"array 'qpos': expected 31 or 34 hinges after a root of 7 columns, found 33", qpos=whole[:, :-1])
    refused(
        r"expected a root of 7 columns and 3 named joints.*found 41", qpos=whole, jnt_names=np.array([*"abc"])
    )
    refused(r"expected frames of a root and hinges, found shape \(4,\)", qpos=np.zeros(4))
    lying = whole + np.eye(1, 41, 2) * -0.9
    refused(r"expected the pelvis 0.2 to 1.5 m high .* \(mujoco_up: y or z says it\)", qpos=lying)
    assert readers.read(str(path), ReaderSettings(mujoco_up="z")).pelvis[:, 1] == pytest.approx(0.05)


PIG = ReaderSettings(missing_joints="neutral", joint_map=str(MAPS / "plug_in_gait.yaml"))


def c3d_bytes(tmp_path, *, angles=True, unit="deg", subjects=("P01:",), hidden=(), marker="LASI"):
    """A C3D as Plug-in Gait leaves it: a marker, and points that are angles."""
    lab = as_lab(SHIPPED["plug_in_gait.yaml"], walk())
    points = sorted({k.rpartition(".")[0] for k in lab if k.endswith((".x", ".y", ".z"))})
    labels = [marker, *(subject + point for subject in subjects for point in points)]
    data = np.zeros((4, len(labels), 200))
    residuals = np.zeros((1, len(labels), 200))
    for i, label in enumerate(labels[1:], start=1):
        for k, axis in enumerate("xyz"):
            column = lab.get(f"{label.rpartition(':')[2]}.{axis}", np.zeros(200))
            data[k, i] = np.radians(column) if unit == "rad" else column
        residuals[0, i, list(hidden)] = -1
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    file["parameters"]["POINT"]["LABELS"]["value"] = labels
    if angles:
        file.add_parameter("POINT", "ANGLES", labels[1:])
        file.add_parameter("POINT", "ANGLE_UNITS", [unit])
    file["data"]["points"], file["data"]["meta_points"]["residuals"] = data, residuals
    file.write(str(tmp_path / "a.c3d"))
    return (tmp_path / "a.c3d").read_bytes()


@pytest.mark.parametrize("how", [{}, {"unit": "rad"}, {"angles": False}, {"subjects": ("",)}], ids=str)
def test_plug_in_gait_in_a_c3d(how, tmp_path):
    recording = readers.parse("a.c3d", c3d_bytes(tmp_path, **how), PIG)
    units = "radians" if "unit" in how else "degrees"
    assert recording.import_notes == (
        f"C3D, {units}, knee flexion positive, 100 Hz, columns by plug_in_gait.yaml; "
        "without subtalar_angle_r, subtalar_angle_l"
    )
    assert recording.declared_rate_hz == 100
    there = [i for i, k in enumerate(NAMES) if k in SHIPPED["plug_in_gait.yaml"].joints]
    np.testing.assert_allclose(recording.angles_rad[:, there], expected()[:, there], atol=1e-5)
    assert absent(recording) == {name for name in NAMES if name not in SHIPPED["plug_in_gait.yaml"].joints}


def test_an_occluded_point_is_missing(tmp_path):
    recording = readers.parse("a.c3d", c3d_bytes(tmp_path, hidden=[0, 7]), PIG)
    assert np.flatnonzero(np.isnan(recording.angles_rad[:, INDEX["knee_angle_l"]])).tolist() == [0, 7]


def test_bad_c3d(tmp_path):
    whole = c3d_bytes(tmp_path)
    for content, how, message in (
        (whole[:9000], PIG, r"a: the header promises 200 frames, found \d+: the file is cut off"),
        (whole[:600], PIG, r"a: expected a C3D file, found a damaged one"),
        (
            c3d_bytes(tmp_path, subjects=("A:", "B:")),
            PIG,
            r"a: point 'LAnkleAngles': expected one subject, found 2",
        ),
    ):
        with pytest.raises(InputError, match=message):
            readers.parse("a", content, how)


def test_a_c3d_that_brings_its_parser_down_is_one_bad_file(tmp_path, monkeypatch):
    for crash, message in (
        ("import os; os.kill(os.getpid(), 11)", r"a: expected a C3D file, .*its parser ended with -11"),
        ("while True: pass", r"a: expected a C3D file, found one that takes 1 s to read"),
    ):
        monkeypatch.setattr(c3d, "_SCRIPT", crash)
        monkeypatch.setattr(c3d, "_SECONDS", 1)
        with pytest.raises(InputError, match=message):
            readers.parse("a", c3d_bytes(tmp_path), PIG)


def damaged(content, changes):
    content = bytearray(content)
    for place, byte in changes:
        content[place % len(content)] = byte
    return bytes(content)


NPZ = io.BytesIO()
np.savez(NPZ, qpos=np.tile(np.eye(1, 41, 3), (9, 1)), frequency=100.0)
WHOLE = {"mot": mot(walk(0.1)).encode(), "csv": csv_text(walk(0.1)).encode(), "npz": NPZ.getvalue()}
WHOLE["parquet"] = parquet_bytes(walk(0.1))
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20)


@pytest.mark.parametrize("kind", WHOLE)
@hypothesis_settings(deadline=None)
@given(changes=CHANGES, end=st.integers(1, 10**6))
def test_damage_is_refused_or_read_and_never_more(kind, changes, end):
    """Nothing that a disk or a network does to a file ends in another error than InputError."""
    content = damaged(WHOLE[kind], changes)
    for part in (content, content[: end % len(content)]):
        with suppress(InputError):
            recording = readers.parse("a", part, NEUTRAL)
            assert recording.angles_rad.shape == (len(recording.time_s), 34)


@pytest.mark.cluster
def test_every_format_in_one_cohort(ray_cluster, tmp_path, monkeypatch):
    """The same walk in each format, by each lab's names: one table, one set of maps, the same angles.

    So much the same that they are duplicates, whatever their format, unless nobody looks.
    """
    folder = tmp_path / "in"
    folder.mkdir()
    np.savez(folder / "q.npz", **arrays(frequency=100))
    np.savez(folder / "qpos.npz", qpos=qpos("free, Z up", NAMES), frequency=100)
    written = {
        "a.mot": mot(walk()).encode(),
        "a.parquet": parquet_bytes(walk()),
        "lab.csv": csv_text(as_lab(SHIPPED["clinical_csv.yaml"], walk())).encode(),
        "vicon.c3d": c3d_bytes(tmp_path),
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    names = sorted([*written, "q.npz", "qpos.npz"])
    (folder / "annotations.csv").write_text(
        "\n".join(["path,participant", *(f"{k},{k}" for k in names)]) + "\n"
    )
    how = {"missing_joints": "neutral", "joint_map": str(MAPS)}
    asked = CohortSettings(recordings=str(folder), readers=how)
    with pytest.raises(
        InputError, match=r"a\.mot: duplicate: the same content as a\.parquet, lab\.csv, q\.npz"
    ):
        make_cohort(asked, str(tmp_path / "out"))
    monkeypatch.setattr(build, "find_duplicates", lambda contents: {})
    cohort = make_cohort(asked, str(tmp_path / "out"))
    assert Cohort(cohort).info.quarantined == []
    trials = {row["trial"]: from_row(row) for row in Cohort(cohort).table().to_pylist()}
    assert sorted(trials) == names
    for trial in trials.values():
        np.testing.assert_allclose(
            trial.angles_rad[:, trial.joint_mask & TRACKED],
            trials["a.mot"].angles_rad[:, trial.joint_mask & TRACKED],
            atol=1e-4,
        )
