"""Files that people have: read, or named for what they are. Small ones made here, and those of ../shared/cases."""

import gzip
import io
import zipfile
from pathlib import Path

import ezc3d
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import biomechgpt as bg
from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import near_shoulders, prepare
from biomechgpt.recordings.markers import known
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings, archive, isb_shoulder, matlab, spreadsheet
from biomechgpt.recordings.readers import motive as reader_of_motive
from biomechgpt.recordings.readers import qualisys as reader_of_qualisys
from biomechgpt.recordings.readers import trc as reader_of_trc
from opensim_files import HEADER, in_radians, mot, walk

CASES = Path(__file__).parents[3] / "shared" / "cases"
SETTINGS = ReaderSettings()
LEGS = [i for i, name in enumerate(NAMES) if name.startswith(("hip", "knee", "ankle"))]


def expected() -> np.ndarray:
    columns = walk()
    zero = np.zeros(len(columns["time"]))
    return np.radians(np.stack([columns.get(name, zero) for name in NAMES], axis=1))


def read(name, content, joints=slice(None)):
    """A recording with the angles of the walk, in these joints."""
    content = content if isinstance(content, bytes) else content.encode()
    recording = readers.parse(name, content, SETTINGS)
    prepare(name, recording, QualitySettings(), 30.0)
    np.testing.assert_allclose(
        recording.angles_rad[:, joints], expected()[: len(recording.time_s), joints], atol=1e-5
    )
    return recording


def refused(name, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(InputError, match=message) as error:
        prepare(name, readers.parse(name, content, SETTINGS), QualitySettings(), 30.0)
    assert str(error.value).startswith(name)


# The files of ../shared/cases. READ: with a part of the note. REFUSED: with a part of the message.

READ = {
    "csv_shapes/csv_comment_first.csv": "1 line above",
    "csv_shapes/csv_latin1.csv": "Latin-1",
    "csv_shapes/csv_sep_line.csv": "CSV",
    "csv_shapes/csv_units_row.csv": "CSV, degrees",
    "csv_shapes/csv_utf16.csv": "UTF-16",
    "known_foreign_formats/opencap_session.zip": "OpenSim",
    "known_foreign_formats/walk.mot.gz": "OpenSim",
    "nexus_csv/nexus_joints_only.csv": "plug_in_gait",
    "nexus_csv/nexus_model_outputs.csv": "plug_in_gait",
    "opencap_isb_shoulder/opencap_shoulder_model.mot": "shoulders converted",
    "pig_suffix_V/pig_suffix_V.c3d": "plug_in_gait",
    "pose2sim_neck/pose2sim_model.mot": "pose2sim",
    "rra_duplicate_last_time/osim_duplicate_last_time.mot": "1 row with a repeated time dropped",
    "spreadsheet_mot/mot_spreadsheet_commas.mot": "as a spreadsheet saves it",
    "spreadsheet_mot/osim_commas.mot": "as a spreadsheet saves it",
    "stale_nrows/mot_nrows_one_off.mot": "promises 241 rows, it has 240",
    "stale_nrows/osim_trimmed_stale_nrows.mot": "promises 240 rows, it has 200",
    "trailing_nul/osim_cr_only.mot": "OpenSim",
    "trailing_nul/osim_nrows_float.mot": "OpenSim",
    "trailing_nul/osim_trailing_nul.mot": "zeros after its end",
    "trailing_nul/osim_utf16.mot": "UTF-16",
    "xsens/xsens_joint_angles.csv": "xsens.yaml",
}
REFUSED = {
    "time_in_ms/osim_time_ms.mot": "milliseconds",
    "no_motion/osim_all_zero.mot": "no joint moves",
    "no_motion/osim_constant.mot": "no joint moves",
    "rra_position_errors/osim_pErr.sto": "PositionErrors",
    "locomujoco_v1_split_points/locomujoco_v1.npz": "split_points",
    "sports2d_labels_with_spaces/sports2d_person00.mot": "plane of one camera .Right ankle",
    "pose2sim_filtered_without_labels/osim_no_labels.mot": "column names are missing",
    "xsens/xsens.mvnx": r"1 frame in this file \(Xsens MVNX\)",
    "smpl_amass/amass_walk_poses.npz": "no joint moves",
    "smpl_amass/amass_smplx_stageii.npz": "no joint moves",
    "smpl_amass/humanml3d_000021.npy": "HumanML3D",
    "known_foreign_formats/joint_angles.xlsx": "Excel workbook",
    "known_foreign_formats/markers.trc": "markers or keypoints .*found no knee or no ankle among Neck, RHip",
    "known_foreign_formats/mocap.bvh": "BVH.*found no thigh_r",
    "known_foreign_formats/opensense_orientations.sto": "orientations of sensors",
    "known_foreign_formats/qualisys.tsv": "found no knee or no ankle among L_HEEL, R_HEEL, L_ASIS, R_ASIS",
    "known_foreign_formats/stroke_dataset.mat": "MATLAB file, found Sub",
    "known_foreign_formats/subject.b3d": "AddBiomechanics",
    "known_foreign_formats/wham_output.pkl": "pickle",
}


def shared(name):
    if not (CASES / name).exists():
        pytest.skip(f"{CASES / name} is absent")
    return (CASES / name).read_bytes()


@pytest.mark.parametrize("name", READ)
def test_a_shared_case_is_read(name):
    recording = readers.parse(name, shared(name), SETTINGS)
    prepare(name, recording, QualitySettings(), 30.0)
    assert READ[name] in recording.import_notes


@pytest.mark.parametrize("name", REFUSED)
def test_a_shared_case_is_named(name):
    refused(name, shared(name), REFUSED[name])


def test_every_shared_case_is_tested():
    if not CASES.exists():
        pytest.skip(f"{CASES} is absent")
    files = {str(path.relative_to(CASES)) for path in CASES.rglob("*.*") if path.parent != CASES}
    assert files == {*READ, *REFUSED}


# OpenSim


def spreadsheet_saved(text, mark, decimal="."):
    """A .mot that went through a spreadsheet: separators everywhere, also behind the header's lines."""
    head, end, body = text.partition("endheader\n")
    sentence = "Units are S.I. units (second, meters, Newtons, ...)"
    quoted = f'"{sentence}"' if mark == "," else sentence
    lines = [f"{line}{mark * 37}" for line in [*head.splitlines(), quoted, end.strip()]]
    rows = body.replace("\t", mark).replace(".", decimal)
    return "\n".join([*lines, rows])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (spreadsheet_saved(mot(walk()), ","), "separated by commas"),
        (spreadsheet_saved(mot(walk()), ";"), "separated by semicolons"),
        (spreadsheet_saved(mot(walk()), ";", ","), "separated by semicolons"),
        (spreadsheet_saved(mot(walk()), "\t", ","), "decimal commas"),
        (mot(walk()).replace("nRows=200", "nRows=351"), "promises 351 rows, it has 200"),
        (mot(walk()).replace("nRows=200", "nRows=20"), "promises 20 rows, it has 200"),
        (mot(walk()).replace("nRows=200", "nRows=200.0"), ""),
        (mot(walk()).rsplit("\n", 20)[0] + "\n", "all whole"),
        (mot(walk()) + "\0" * 7, "zeros after its end"),
        (mot(walk()).replace("\n", "\r"), ""),
        (mot(walk()).encode("utf-16"), "UTF-16"),
        (mot(walk()).encode("utf-16-be"), "UTF-16"),
        (mot(walk()).replace("Coordinates", "Marche à pied").encode("latin-1"), "Latin-1"),
        (mot(walk()) + mot(walk()).splitlines()[-1] + "\n", "1 row with a repeated time dropped"),
        (gzip.compress(mot(walk()).encode()), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "file",
)  # fmt: skip
def test_a_motion_that_is_slightly_wrong_is_read_with_a_note(text, note):
    recording = read("walk.mot", text)
    assert note in "; ".join(recording.remarks)
    assert bool(recording.remarks) == bool(note)
    assert len(recording.time_s) in (200, 181)


def test_other_capitals_and_comments_between_rows():
    text = mot({name.title(): values for name, values in walk().items()})
    lines = text.splitlines()
    lines.insert(50, "# the camera was moved")
    assert "1 line of comments skipped" in read("a.mot", "\n".join(lines) + "\n").import_notes


def test_a_last_row_that_may_be_cut_in_a_number_is_dropped():
    text = mot(walk()).rsplit("\n", 20)[0][:-3]
    recording = read("walk.mot", text)
    assert "last row dropped" in "; ".join(recording.remarks)
    assert len(recording.time_s) == 180


def test_a_repeated_row_in_the_middle_is_dropped_only_if_it_is_the_same():
    lines = mot(walk()).splitlines()
    read("walk.mot", "\n".join([*lines[:50], lines[49], *lines[50:]]) + "\n")
    other = lines[49].split("\t")
    other[5] = "9"
    refused("walk.mot", "\n".join([*lines[:50], "\t".join(other), *lines[50:]]) + "\n", "time to increase")


def test_a_motion_without_names_or_of_other_things_says_so():
    lines = mot(walk()).splitlines()
    refused("a.mot", "\n".join([*lines[:7], *lines[8:]]), r"line 8: the column names are missing")
    plane = {
        f"{side} {joint}": walk()["hip_flexion_r"] for side in ("Right", "Left") for joint in ("knee", "hip")
    }
    refused(
        "a.mot", mot({"time": walk()["time"], **plane}), r"in the plane of one camera \(Right knee, Right hip"
    )
    rows = "\n".join(f"{i / 60}\t1,0,0,0\t0.5,0.5,0.5,0.5" for i in range(9))
    for header in ("DataType=Quaternion\n", ""):
        text = f"{header}version=3\nnColumns=3\nendheader\ntime\ttorso_imu\tpelvis_imu\n{rows}\n"
        refused("a.sto", text, "orientations of sensors")
    refused("a.mot", mot({"time": walk()["time"], "1_ground_force_vx": walk()["time"]}), "forces or muscles")


# The ISB shoulder


def test_the_isb_shoulder_is_the_same_orientation():
    """Round trip: the model's three angles of a known orientation give that orientation in the skeleton's."""
    rng = np.random.default_rng(0)
    angles = {
        f"{name}_{side}": np.cumsum(rng.normal(0, 0.05, 200)) + start
        for side in "rl"
        for name, start in zip(isb_shoulder.ANGLES, (1.0, 0.6, -0.5), strict=True)
    }
    arms = isb_shoulder.arms(angles)
    for side, mirror in (("r", 1), ("l", -1)):
        plane, elevation, axial = (angles[f"{name}_{side}"] for name in isb_shoulder.ANGLES)
        tilted = np.array([-0.0846, 0.9947, -0.0584]) * mirror
        theirs = (
            Rotation.from_euler("y", mirror * plane[:, None])
            * Rotation.from_euler("x", -mirror * elevation[:, None])
            * Rotation.from_rotvec(axial[:, None] * tilted / np.linalg.norm(tilted))
        )
        flexion, adduction, rotation = (arms[f"{name}_{side}"] for name in isb_shoulder.ARM)
        ours = Rotation.from_euler("ZXY", np.stack([flexion, mirror * adduction, mirror * rotation], axis=1))
        assert (theirs.inv() * ours).magnitude().max() < 1e-6


@pytest.mark.parametrize(
    ("plane", "elevation", "joint", "degrees"),
    [(90, 50, "arm_flex", 50), (0, 40, "arm_add", -40), (-90, 30, "arm_flex", -30)],
)
def test_the_isb_shoulder_turns_both_arms_the_way_it_says(plane, elevation, joint, degrees):
    """Elevation in the sagittal plane is flexion, in the frontal plane abduction, on either side."""
    columns = {k: v for k, v in walk().items() if not k.startswith("arm")}
    for side in "rl":
        for name, value in zip(isb_shoulder.ANGLES, (plane, elevation, -plane), strict=True):
            columns[f"{name}_{side}"] = np.full(200, float(value)) + 0.01 * columns["time"]
    recording = readers.parse("walk.mot", mot(columns).encode(), ReaderSettings(missing_joints="error"))
    angles = np.degrees(near_shoulders(recording.angles_rad, recording.joint_mask, 100.0))
    for side in "rl":
        assert recording.joint_mask[INDEX[f"{joint}_{side}"]]
        # The model's humerus leans by 6 degrees from its long axis.
        assert angles[:, INDEX[f"{joint}_{side}"]] == pytest.approx(degrees, abs=9)


# Tables


def table(columns, mark=",", decimal="."):
    rows = np.stack(list(columns.values()), axis=1)
    lines = [mark.join(f"{v:.6f}".replace(".", decimal) for v in row) for row in rows]
    return "\n".join([mark.join(columns), *lines]) + "\n"


UNITS = ["s", *(["deg"] * 3), *(["m"] * 3), *(["deg"] * 31)]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("sep=;\n" + table(walk(), ";"), "1 line above"),
        ("# exported\n# by hand\n\n" + table(walk()), "3 lines above"),
        ("Patient;P01;;\n\n" + table(walk(), ";", ","), "2 lines above"),
        (table(walk()).replace("\n", "\n" + ",".join(UNITS) + "\n", 1), ""),
        (table(walk(), "\t", ","), ""),
        (table(walk()).replace("\n", ",\n"), ""),
        (table(walk()) + ",,,,\n" * 3, ""),
        (table(walk()).encode("utf-16"), "UTF-16"),
        (table(walk() | {"Größe": np.ones(200)}).encode("latin-1"), "Latin-1"),
        (table({"Time (s)" if k == "time" else k: v for k, v in walk().items()}), "time by column"),
        (table({"time_ms": 1000 * walk()["time"], **{k: v for k, v in walk().items() if k != "time"}}), "time by"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "file",
)  # fmt: skip
def test_tables_as_spreadsheets_save_them(content, note):
    assert note in "; ".join(read("walk.csv", content).remarks)


def test_a_line_of_units_decides():
    """Also where the angles alone would leave the unit open, and for the pelvis in millimetres."""
    small = {k: v if k == "time" or k.startswith("pelvis_t") else 0.1 * v for k, v in walk().items()}
    small |= {k: 1000 * v for k, v in small.items() if k in ("pelvis_tx", "pelvis_ty", "pelvis_tz")}
    units = ",".join("mm" if unit == "m" else unit for unit in UNITS)
    recording = readers.parse("a.csv", table(small).replace("\n", f"\n{units}\n", 1).encode(), SETTINGS)
    assert recording.units == "degrees"
    assert recording.pelvis[:, 1] == pytest.approx(0.95)
    np.testing.assert_allclose(recording.angles_rad, 0.1 * expected(), atol=1e-6)


# Vicon, Xsens, Visual3D


def plug_in_gait(columns):
    """{point.axis: values} as Plug-in Gait writes the walk's legs and arms."""
    joint_map = next(m for m in SETTINGS.joint_map if m.name == "plug_in_gait.yaml")
    return {c.parts[0]: c.sign * columns[joint] for joint, c in joint_map.joints.items()}


def nexus_section(title, points, columns, subject="P01:", mark=","):
    names = mark.join(["", "", *(f"{subject}{point}{mark * 2}" for point in points)])
    axes = mark.join(["Frame", "Sub Frame", *["X", "Y", "Z"] * len(points)])
    units = mark.join(["", "", *["deg"] * 3 * len(points)])
    zero = np.zeros(200)
    values = [columns.get(f"{point}.{axis}", zero) for point in points for axis in "xyz"]
    rows = [mark.join([str(i + 5), "0", *(f"{v[i]:.6f}" for v in values)]) for i in range(200)]
    return "\n".join([title, "100", names, axes, units, *rows, "", ""])


@pytest.mark.parametrize("mark", [",", ";"])
@pytest.mark.parametrize("title", ["Joints", "Model Outputs"])
def test_nexus_sections_in_any_order(title, mark):
    columns = plug_in_gait(walk())
    points = list(dict.fromkeys(k.rpartition(".")[0] for k in reversed(columns)))
    devices = "Devices\n1000\n,,Force,,\nFrame,Sub Frame,Fx,Fy,Fz\n,,N,N,N\n" + "1,0,1,2,3\n" * 9 + "\n"
    angles = nexus_section(title, points, columns, mark=mark)
    for text in (angles, devices + angles, angles + "Trajectories" + devices[7:]):
        recording = read("walk.csv", text, LEGS)
        assert recording.rate_hz == pytest.approx(100)
        assert recording.lacking == ("subtalar_angle_r", "subtalar_angle_l")
    refused("walk.csv", devices, "section 'Model Outputs' or 'Joints' with angles, found 'devices'")


def test_points_with_a_suffix(tmp_path):
    columns = plug_in_gait(walk())
    points = list(dict.fromkeys(k.rpartition(".")[0] for k in columns))
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    file["parameters"]["POINT"]["LABELS"]["value"] = [f"{point}V" for point in points]
    data = np.zeros((4, len(points), 200))
    for i, point in enumerate(points):
        for k, axis in enumerate("xyz"):
            data[k, i] = columns.get(f"{point}.{axis}", 0)
    file["data"]["points"] = data
    file.write(str(tmp_path / "a.c3d"))
    read("walk.c3d", (tmp_path / "a.c3d").read_bytes(), LEGS)


def xsens(columns):
    joint_map = next(m for m in SETTINGS.joint_map if m.name == "xsens.yaml")
    return {
        part: c.sign * columns[joint] / len(c.parts)
        for joint, c in joint_map.joints.items()
        if joint in columns
        for part in c.parts
    }


def test_xsens_table_in_any_order():
    columns = dict(reversed(xsens(walk(rate_hz=60)).items()))
    frames = np.arange(120.0)
    recording = readers.parse("a.csv", table({"Frame": frames, **columns}).encode(), SETTINGS)
    truth = readers.parse("a.mot", mot(walk(rate_hz=60)).encode(), SETTINGS)
    joints = [i for i, name in enumerate(NAMES) if recording.joint_mask[i]]
    assert len(joints) > 20
    np.testing.assert_allclose(recording.angles_rad[:, joints], truth.angles_rad[:, joints], atol=1e-6)
    assert "no column of time, so 60 Hz by xsens.yaml" in recording.import_notes
    timed = readers.parse("a.csv", table({"time": frames / 240, **columns}).encode(), SETTINGS)
    assert timed.rate_hz == pytest.approx(240)


def mvnx(columns, rate_hz=100):
    from biomechgpt.recordings.readers import xsens as reader

    limbs = ("Hip", "Knee", "Ankle", "Shoulder", "Elbow")
    joints = [
        "jL5S1",
        "jL4L3",
        "jL1T12",
        "jT9T8",
        *(f"j{side}{k}" for side in ("Right", "Left") for k in limbs),
    ]
    angles = [columns.get(label, np.zeros(200)) for joint in joints for label in reader._labels(joint)]
    frames = "".join(
        f'<frame time="{10 * i}" type="normal"><orientation>{np.cos(0.1)} 0 0 {np.sin(0.1)}</orientation>'
        f"<position>{0.012 * i} 0.1 0.95</position><jointAngle>{' '.join(f'{v[i]:.6f}' for v in angles)}"
        "</jointAngle></frame>"
        for i in range(200)
    )
    return (
        '<?xml version="1.0"?><mvnx xmlns="http://www.xsens.com/mvn/mvnx" version="4">'
        f'<subject label="S" frameRate="{rate_hz}"><segments><segment label="Pelvis" id="1"/></segments><joints>'
        + "".join(f'<joint label="{joint}"/>' for joint in joints)
        + '</joints><frames><frame type="tpose"><orientation>1 0 0 0</orientation></frame>'
        + f"{frames}</frames></subject></mvnx>"
    )


def test_mvnx():
    recording = read("walk.mvnx", mvnx(xsens(walk())), LEGS)
    assert recording.rate_hz == pytest.approx(100)
    # Xsens: X forward, Y left, Z up. Ours: X forward, Y up, Z right.
    np.testing.assert_allclose(recording.pelvis[10, :3], [0.12, 0.95, -0.1], atol=1e-9)
    turn = Rotation.from_quat(recording.pelvis[10, 3:], scalar_first=True)
    np.testing.assert_allclose(turn.as_rotvec(), [0, 0.2, 0], atol=1e-9)
    refused("a.mvnx", mvnx({}).replace("<mvnx", "<!DOCTYPE x><mvnx"), "without a document type")
    refused("a.mvnx", mvnx({})[:3000], "found a damaged file")


def visual3d(columns, style="{S}_{JOINT}_ANGLE"):
    """What Visual3D exports of the walk's legs; signals are named by a style."""
    cells = [("TIME", "FRAME_NUMBERS", "X", columns["time"])]
    for side, word in (("r", "Right"), ("l", "Left")):
        mirror = 1 if side == "r" else -1
        for joint, parts in (
            ("hip", ("hip_flexion", "hip_adduction", "hip_rotation")),
            ("knee", ("knee_angle",)),
            ("ankle", ("ankle_angle",)),
        ):
            name = style.format(
                Side=word, s=side, S=side.upper(), Joint=joint.capitalize(), joint=joint, JOINT=joint.upper()
            )
            for axis, part in zip("XYZ", parts, strict=False):
                values = columns[f"{part}_{side}"] * (mirror if axis != "X" else 1)
                cells.append((name, "LINK_MODEL_BASED", axis, values))
    head = [
        ["", *["walk.c3d"] * len(cells)],
        ["", *(c[0] for c in cells)],
        ["", *(c[1] for c in cells)],
        ["", *["ORIGINAL"] * len(cells)],
        ["ITEM", *(c[2] for c in cells)],
    ]
    rows = [[str(i + 1), *(f"{c[3][i]:.6f}" for c in cells)] for i in range(len(columns["time"]))]
    return "\n".join("\t".join(line) for line in [*head, *rows]) + "\n"


@pytest.mark.parametrize(
    "style", ["{Side} {Joint} Angles", "{S}_{JOINT}_ANGLE", "{s}_{joint}_angle", "{JOINT}_ANGLE_{S}"]
)
def test_visual3d(style):
    text = visual3d(walk(), style)
    read("walk.txt", text, LEGS)
    assert readers.recognizes(text.encode()[: readers.HEAD_BYTES])
    refused("walk.txt", text.replace("TIME", "FRAMES", 1), "expected a signal TIME")
    refused(
        "walk.txt", text.replace("walk.c3d", "run.c3d", 1), "signals of one trial, found those of 2 files"
    )
    # The other lines of the header may be shorter than the line of components.
    lines = text.splitlines()
    lines[1] = lines[1].rpartition("\t")[0]
    assert "ankle_angle_l" in readers.parse("a", "\n".join(lines).encode(), SETTINGS).lacking
    lines[50] = lines[50].replace(".", "x", 2)
    refused("walk.txt", "\n".join(lines), "line 51, column 'TIME': expected a number, found")


def test_a_table_of_short_rows_does_not_fill_the_memory(monkeypatch):
    """A line of names promises as many cells in each row."""
    wide = nexus_section("Joints", [f"A{i}" for i in range(300)], {}).splitlines()[:5]
    monkeypatch.setattr("biomechgpt.recordings.readers.text.MAX_CELLS", 10**5)
    refused("a.csv", "\n".join([*wide, *["1,0"] * 1000]), "at most 100000 numbers, found 1000 rows of 902")
    refused("a.csv", "\n".join([*wide, "1,0,1"]), "line 6: expected 902 cells, found 3: the file is cut off")


# MATLAB, Excel, archives


def test_matlab(tmp_path):
    columns = walk()
    for compress in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", columns, do_compression=compress)
        read("walk.mat", (tmp_path / "a.mat").read_bytes())
    points: dict[str, np.ndarray] = {}
    for key, values in plug_in_gait(columns).items():
        point, _, axis = key.rpartition(".")
        points.setdefault(point, np.zeros((200, 3)))[:, "xyz".index(axis)] = values
    scipy.io.savemat(tmp_path / "a.mat", {"trial": {"angles": points, "fs": 100.0}, "weight": 70})
    assert "structure trial.angles" in read("walk.mat", (tmp_path / "a.mat").read_bytes(), LEGS).remarks
    scipy.io.savemat(tmp_path / "a.mat", {"one": {"a": points, "fs": 100.0}, "two": {"a": points}})
    refused("walk.mat", (tmp_path / "a.mat").read_bytes(), r"found 2 in this MATLAB file \(one.a, two.a\)")


def test_matlab_without_h5py(monkeypatch):
    monkeypatch.setattr(matlab, "find_spec", lambda name: None)
    content = b"MATLAB 7.3 MAT-file, Platform" + b" " * 600
    refused("walk.mat", content, r"version 7\.3 needs h5py .*Or save it in MATLAB with save\(file, '-v7'")


def test_matlab_7_3(tmp_path):
    """HDF5 after 512 bytes of MATLAB's text; arrays have their axes in the opposite order."""
    h5py = pytest.importorskip("h5py")
    columns = walk()

    def written(fill):
        path = tmp_path / "a.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            fill(file)
        content = path.read_bytes()
        return b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM" + content[128:]

    def vectors(file):
        for name, values in columns.items():
            file[name] = values[None, :]
        file["note"] = np.array([[72, 105]], dtype="uint16")
        file["note"].attrs["MATLAB_class"] = np.bytes_("char")

    read("walk.mat", written(vectors))

    def two_records(file):
        """A structure array: each field is an array of references."""
        trials = file.create_group("trials")
        for i, (name, values) in enumerate(columns.items()):
            places = []
            for k in range(2):
                place = f"#refs#/{i}_{k}"
                file[place] = values[None, :] if k == 0 else np.zeros(2)
                if k == 1:
                    file[place].attrs["MATLAB_empty"] = 1
                places.append(file[place].ref)
            trials.create_dataset(name, data=np.array([places], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)

    assert "structure trials(1)" in read("walk.mat", written(two_records)).remarks
    refused(
        "walk.mat", written(lambda file: file.create_dataset("pictures", data=np.zeros((9, 9)))), "pictures"
    )
    refused("walk.mat", written(vectors)[:3000], "expected a MATLAB file, found a damaged one")


def test_matlab_files_without_a_movement(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"hip_flexion_r": 3.0, "time": 0.0})
    refused("a.mat", (tmp_path / "a.mat").read_bytes(), r"expected a movement, found 1 frame in this file")
    scipy.io.savemat(tmp_path / "a.mat", {"hip_flexion_r": np.zeros((1001, 1002)), "empty": []})
    refused("a.mat", (tmp_path / "a.mat").read_bytes(), r"found hip_flexion_r \(1001, 1002\), empty")
    refused("a.mat", b"MATLAB 5.0 MAT-file" + bytes(200), "expected a MATLAB file, found a damaged one")


def test_a_matlab_file_that_brings_its_parser_down_is_one_bad_file(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", walk())
    monkeypatch.setattr(matlab, "_SCRIPT", "import os; os.abort()")
    refused("a.mat", (tmp_path / "a.mat").read_bytes(), "found a damaged one: its parser ended with -6")


def test_a_matlab_bomb_is_not_unpacked(tmp_path, monkeypatch):

    monkeypatch.setattr(matlab, "_MAX_BYTES", 1 << 16)
    scipy.io.savemat(tmp_path / "a.mat", {"hip_flexion_r": np.zeros(10**5)}, do_compression=True)
    refused("a.mat", (tmp_path / "a.mat").read_bytes(), "expected at most 0 MiB of variables, found more")


def xlsx(sheets):
    """A workbook with these {title: rows}; texts are shared, as Excel writes them."""
    texts: list[str] = []

    def cell(value, place):
        if isinstance(value, str):
            texts.append(value)
            return f'<c r="{place}" t="s"><v>{len(texts) - 1}</v></c>'
        return f'<c r="{place}"><v>{value:.6f}</v></c>'

    def letters(j):
        return (chr(64 + j // 26) if j >= 26 else "") + chr(65 + j % 26)

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        titles = "".join(f'<sheet name="{title}"/>' for title in sheets)
        book.writestr("xl/workbook.xml", f"<workbook><sheets>{titles}</sheets></workbook>")
        for k, rows in enumerate(sheets.values(), start=1):
            lines = (
                "<row>" + "".join(cell(v, f"{letters(j)}{i + 1}") for j, v in enumerate(row)) + "</row>"
                for i, row in enumerate(rows)
            )
            data = f"<worksheet><sheetData>{''.join(lines)}</sheetData></worksheet>"
            book.writestr(f"xl/worksheets/sheet{k}.xml", data)
        shared_texts = "".join(f"<si><t>{text}</t></si>" for text in texts)
        book.writestr("xl/sharedStrings.xml", f"<sst>{shared_texts}</sst>")
    return buffer.getvalue()


def rows_of(columns):
    return [list(columns), *np.stack(list(columns.values()), axis=1).tolist()]


def test_excel():
    assert (
        "sheet 'walk'"
        in read("walk.xlsx", xlsx({"people": [["id", "age"]], "walk": rows_of(walk())})).remarks
    )
    general = [["MVN version", "2023"], ["Frame Rate", 100.0]]
    sheet = rows_of({"Frame": np.arange(200.0), **xsens(walk())})
    recording = read("a.xlsx", xlsx({"General Information": general, "Joint Angles ZXY": sheet}), LEGS)
    assert recording.rate_hz == pytest.approx(100)
    refused("a.xlsx", xlsx({"people": [["id", "age"], ["a", 3.0]]}), "with the sheets 'people'")


def sheet_of(data, texts=""):
    """A workbook with a sheet of this XML."""
    files = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": '<workbook><sheets><sheet name="walk"/></sheets></workbook>',
        "xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{data}</sheetData></worksheet>",
        "xl/sharedStrings.xml": f"<sst>{texts}</sst>",
    }
    return zipped(files)


def test_an_excel_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(spreadsheet, "_MAX_CELLS", 1000)
    refused("a.xlsx", xlsx({"walk": rows_of(walk())}), "expected at most 1000 cells, found more")
    refused("a.xlsx", sheet_of("<row/>" * 1001), "expected at most 1000 cells, found more")
    monkeypatch.setattr(spreadsheet, "_MAX_XML", 1 << 16)
    refused("a.xlsx", sheet_of("<row>" + "<a/>" * 10**5 + "</row>"), "expected at most 0 MiB unpacked")
    # One long text, to which many cells refer.
    cells = '<row><c t="s"><v>0</v></c></row>' * 9
    refused("a.xlsx", sheet_of(cells, f"<si><t>{'x' * 10**4}</t></si>"), "found more")


def test_excel_without_a_tree_of_its_xml():
    refused("a.xlsx", sheet_of("<row>")[:-40], "found a damaged one")
    refused("a.xlsx", sheet_of("<row>"), "found a damaged one: mismatched tag")
    files = {
        "[Content_Types].xml": "<Types/>",
        "xl/workbook.xml": f"<!--{' ' * 5000}--><!DOCTYPE x [<!ENTITY a 'b'>]><workbook/>",
    }
    refused("a.xlsx", zipped(files), "without a document type")
    # Text in several pieces, a formula's text, an error, and the number of a text that is not there.
    cells = (
        '<c t="s"><v>0</v></c><c t="str"><v>b &amp; c</v></c><c t="e"><v>#REF!</v></c><c t="s"><v>9</v></c>'
    )
    rows = sheet_of(f"<row>{cells}</row>", "<si><r><t>hip</t></r><r><t>_flexion_r</t></r></si>")
    refused("a.xlsx", rows, "with the sheets 'walk', none of whose columns")


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def test_a_session_as_opencap_gives_it(tmp_path):
    folder = "OpenCapData_1/OpenSimData/Kinematics"
    files = {
        "OpenCapData_1/sessionMetadata.yaml": "mass_kg: 70\n",
        "OpenCapData_1/MarkerData/walk.trc": "PathFileType\t4\n",
        f"{folder}/walk.mot": mot(walk()),
        "__MACOSX/._walk.mot": "x",
    }
    read("session.zip", zipped(files))
    files[f"{folder}/squats.mot"] = mot(walk(3.0))
    files[f"{folder}/broken.mot"] = mot(walk())[:-400]
    refused("session.zip", zipped(files), r"found 3 in this archive \(session.zip/walk, session.zip/squats")
    (tmp_path / "session.zip").write_bytes(zipped(files))
    found = bg.read_all(str(tmp_path / "session.zip"), name="session.zip", participant="p1")
    assert list(found) == ["session.zip/walk", "session.zip/squats", "session.zip/broken"]
    assert found["session.zip/walk"].name == "session.zip/walk"
    assert found["session.zip/squats"].duration_s == pytest.approx(3, abs=0.1)
    assert "cut off" in str(found["session.zip/broken"])
    del files[f"{folder}/squats.mot"], files[f"{folder}/broken.mot"], files[f"{folder}/walk.mot"]
    del files["OpenCapData_1/MarkerData/walk.trc"]
    refused("session.zip", zipped(files), "expected recordings in this archive .*sessionMetadata.yaml")


def csv(columns):
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(f"{value:.8f}" for value in row) for row in rows)])


def test_tables_and_archives_within_an_archive():
    """A table may hold anything: in an archive it is a recording if it holds joints."""
    forces = "time,Fx,Fy,Fz\n0.0,1,2,3\n0.1,1,2,3\n"
    read(
        "lab.zip", zipped({"P1/\u00e9t\u00e9 1.csv": csv(walk()), "P1/forces.csv": forces, ".DS_Store": "x"})
    )
    read("all.zip", zipped({"inner.zip": zipped({"S1/walk.mot": mot(walk())}), "readme.txt": "hello"}))
    read("walk.mot.gz.gz", gzip.compress(gzip.compress(mot(walk()).encode())))
    refused(
        "lab.zip", zipped({"forces.csv": forces}), r"found forces.csv; lab.zip/forces.csv: .*found forces"
    )
    deep = zipped({"a.zip": zipped({"b.zip": zipped({"walk.mot": mot(walk())})})})
    refused("deep.zip", deep, "expected recordings in this archive .*found a/b.zip")


def test_archives_are_bounded(monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1 << 16)
    refused("a.zip", zipped({"walk.mot": mot(walk())}), "expected at most 0 MiB unpacked, found more")
    with pytest.raises(InputError, match="at most 0 MiB unpacked"):
        archive.gunzip("a.gz", gzip.compress(bytes(10**6)), 1 << 16)
    walks = {f"{i}.mot.gz": gzip.compress(bytes(10**5)) for i in range(9)}
    refused("a.zip", zipped(walks), "expected at most 0 MiB unpacked, found 0 by its last bytes")
    inner = {f"{i}.zip": zipped({"a.mot": bytes(1 << 15)}) for i in range(4)}
    refused("a.zip", zipped(inner), "expected at most 0 MiB unpacked, found more")


def test_markers_of_a_session_are_the_same_trials(tmp_path):
    """A session has each trial twice: as markers, and as the joint angles that were made of them."""
    trc = "PathFileType\t4\t(X/Y/Z)\n"
    files = {
        "S1/MarkerData/PostAugmentation/walk.trc": trc,
        "S1/OpenSimData/Kinematics/walk.mot": mot(walk()),
        "S2/pose-3d/run.trc": trc,
        "S2/kinematics/run_filtered.mot": mot(walk()),
        "S3/walk.trc": trc,
        "S3/walk.sto": mot(walk()),
        "S4/MarkerData/walk.trc": trc,
    }
    kept = readers.without_markers_of_trials(files)
    assert set(files) - set(kept) == {*list(files)[:6:2]}
    found = readers.parse_each("all.zip", zipped(files), SETTINGS)
    assert list(found)[:3] == [
        "all.zip/S1/OpenSimData/Kinematics/walk.mot",
        "all.zip/run_filtered",
        "all.zip/S3/walk.sto",
    ]
    assert "expected five lines of a header" in str(found["all.zip/S4/MarkerData/walk.trc"])


def test_damaged_archives():
    refused("a.mot.gz", gzip.compress(mot(walk()).encode())[:-500], "found a damaged one")
    refused("a.zip", zipped({"walk.mot": "x"})[:-30], "found a damaged one")
    locked = bytearray(zipped({"walk.mot": mot(walk())}))
    for start in (6, locked.rindex(b"PK\x01\x02") + 8):  # the flag of a password
        locked[start] |= 1
    refused("a.zip", bytes(locked), "expected a .zip without a password, found an encrypted one")


def test_trajectories_that_follow_one_another_are_several_recordings(tmp_path):
    two = {f"q_{k}": np.tile(v, 2) for k, v in in_radians(walk()).items() if k != "time"}
    np.savez(tmp_path / "a.npz", **two, frequency=100, split_points=np.array([0, 200, 400]))
    refused(str(tmp_path / "a.npz"), (tmp_path / "a.npz").read_bytes(), "found 2 that follow one another")
    found = bg.read_all(str(tmp_path / "a.npz"), name="a.npz")
    assert [(name, round(r.duration_s, 1)) for name, r in found.items()] == [
        ("a.npz#1", 2.0),
        ("a.npz#2", 2.0),
    ]
    np.savez(tmp_path / "a.npz", **two, frequency=100, split_points=np.array([0, 400]))
    assert len(readers.parse("a.npz", (tmp_path / "a.npz").read_bytes(), SETTINGS).time_s) == 400


def proto(*fields):
    """A Protocol Buffers message of (number, value): numbers, doubles or bytes."""

    def varint(number):
        head = b""
        while number > 127:
            head, number = head + bytes([number & 127 | 128]), number >> 7
        return head + bytes([number])

    packed = b""
    for number, value in fields:
        if isinstance(value, int):
            packed += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            packed += varint(number << 3 | 1) + np.float64(value).tobytes()
        else:
            packed += varint(number << 3 | 2) + varint(len(value)) + value
    return packed


def b3d_subject(trials, observed=b""):
    """A subject of AddBiomechanics with these {name: columns}; the kneecaps' coordinates are no
    degrees of freedom."""
    names = [k for k in next(iter(trials.values())) if k != "time"]
    coordinates = "".join(f'<Coordinate name="{k}"/>' for k in ["knee_angle_r_beta", *names])
    model = f"<?xml version='1.0'?><OpenSimDocument>{coordinates}</OpenSimDocument>".encode()
    sensors, frames, headers = proto((2, b"\0" * 24)), b"", []
    for name, columns in trials.items():
        table = np.stack([columns[k] for k in names], axis=1)
        rows = [proto((1, row.tobytes()), (2, row.tobytes())) for row in table]
        frames += b"".join(sensors + row + row for row in rows)
        one_pass = proto((1, 0), (2, observed)) if observed else proto((1, 0))
        headers.append(
            (9, proto((1, name.encode()), (3, len(rows)), (4, 0.01), (5, one_pass), (5, proto((1, 1)))))
        )
    sizes = [(1, len(names)), (3, len(sensors)), (4, len(rows[0]))]
    header = proto(*sizes, (5, proto((2, model))), *headers)
    return len(header).to_bytes(8, "little") + header + frames


def test_a_subject_of_addbiomechanics(tmp_path):
    columns = in_radians(walk())
    whole = b3d_subject({"walk": columns})
    assert readers.recognizes(whole[: readers.HEAD_BYTES])
    assert read("subject.b3d", whole).rate_hz == pytest.approx(100)
    two = b3d_subject({"walk": columns, "run": columns})
    refused("subject.b3d", two, r"found 2 trials of a subject of AddBiomechanics \(walk, run\)")
    (tmp_path / "s.b3d").write_bytes(two)
    assert list(bg.read_all(str(tmp_path / "s.b3d"), name="s.b3d")) == ["s.b3d#walk", "s.b3d#run"]
    names = [k for k in columns if k != "time"]
    arms = b3d_subject({"walk": columns}, bytes(not k.startswith("arm") for k in names))
    assert "arm_flex_r" in readers.parse("subject.b3d", arms, SETTINGS).lacking
    refused("subject.b3d", whole[:-100], "it ends within 200 frames of a trial")
    # Sizes of 0 would promise any number of frames, and numbers may stand where bytes should.
    header = proto(
        (1, 1), (3, 0), (4, 0), (5, proto((2, b"<OpenSimDocument><Coordinate name='a'/></OpenSimDocument>")))
    )
    endless = header + proto((9, proto((1, b"walk"), (3, 10**15), (4, 0.01), (5, proto((1, 0))))))
    refused("a.b3d", len(endless).to_bytes(8, "little") + endless, "it ends within 1000000000000000 frames")
    numbered = header + proto((9, 10**12))
    refused("a.b3d", len(numbered).to_bytes(8, "little") + numbered, "a number stands where bytes should")
    for end in (9, 60, 300, len(whole) // 2):
        with pytest.raises(InputError):
            readers.parse("subject.b3d", whole[:end], SETTINGS)


# What is not read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.html", b"<!DOCTYPE html><html><body>Log in</body></html>", "a login page"),
        ("a.mot", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "git lfs pull"),
        ("a.osim", b'<?xml version="1.0"?>\n<OpenSimDocument Version="40000">', "an OpenSim model"),
        ("a.fbx", b"Kaydara FBX Binary  \x00", "FBX"),
        ("a.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        ("a.pdf", b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        ("a.json", b'{"version":1.3,"people":[{"pose_keypoints_2d":[1,2,3]}]}', "OpenPose"),
        ("a.h5", b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
        ("x.b3d", bytes(range(256)), "AddBiomechanics"),
        ("a.tsv", b"NO_OF_FRAMES\t9\nNO_OF_BODIES\t1\nBODY_NAMES\tA\n1\t2\t3\n", "bodies of Qualisys"),
        ("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'shape': (90, 24, 3), }", "24 points without names"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_the_next_step(name, content, message):
    refused(name, content, message)


def test_a_pickle_is_never_opened():
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    import pickle

    refused("a.pkl", pickle.dumps(Trap()), "never opened")
    buffer = io.BytesIO()
    np.savez(buffer, poses=np.array([Trap()], dtype=object), trans=np.zeros(3))
    refused("a.npz", buffer.getvalue(), "a pickle among them: .* never opened")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'shape': (90, 17, 3), (",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (90, 17, 3)}",
    ],
)
def test_a_damaged_npy(header):
    content = b"\x93NUMPY\x01\0" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"
    refused("a.npy", content, "expected an .npy of numbers, found a damaged one")


def test_joints_that_a_file_lacks_are_named_and_masked():
    legs = {k: v for k, v in walk().items() if not k.startswith(("arm", "elbow", "lumbar"))}
    recording = readers.parse("legs.mot", mot(legs, HEADER).encode(), SETTINGS)
    assert {"arm_flex_r", "elbow_flex_l", "lumbar_bending"} < set(recording.lacking)
    assert not recording.joint_mask[INDEX["arm_flex_r"]]
    assert "without lumbar_extension" in recording.import_notes


# Qualisys


def qualisys(markers, positions, *, columns=True, timed=True, missing="", end="", rate="100"):
    """What QTM exports of positions (T, M, 3) in metres."""
    keys = {
        "NO_OF_FRAMES": len(positions),
        "NO_OF_CAMERAS": 8,
        "NO_OF_MARKERS": len(markers),
        "FREQUENCY": rate,
        "NO_OF_ANALOG": 0,
        "ANALOG_FREQUENCY": 0,
        "DESCRIPTION": "--",
        "TIME_STAMP": "2026-01-01, 10:00:00.000\t94247.45402301",
        "DATA_INCLUDED": "3D",
        "EVENT": "Start\t1\t0.0",
        "MARKER_NAMES": "\t".join(markers) + end,
        "TRAJECTORY_TYPES": "\t".join(["Measured"] * len(markers)) + end,
    }
    lines = [f"{key}\t{value}" for key, value in keys.items()]
    if columns:
        names = [f"{marker} {axis}" for marker in markers for axis in "XYZ"]
        lines.append("\t".join([*(["Frame", "Time"] if timed else []), *names]))
    for i, frame in enumerate(positions):
        cells = [f"{1000 * x:.3f}" if np.isfinite(x) else missing for x in frame.ravel()]
        lines.append("\t".join([*([str(i + 1), f"{i / 100:.5f}"] if timed else []), *cells]) + end)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("missing", "end"), [("", ""), ("", "\t"), ("NULL", "\t")])
def test_trajectories_of_qualisys(timed, columns, missing, end):
    positions = np.random.default_rng(0).normal(size=(30, 4, 3))
    positions[:5, [0, 3]] = np.nan
    text = qualisys(
        ["R_FLE", "L_FLE", "R_FAL", "L_FAL"],
        positions,
        timed=timed,
        columns=columns,
        missing=missing,
        end=end,
    )
    assert reader_of_qualisys.matches(text.encode())
    points = reader_of_qualisys.parse("a.tsv", text.encode())
    assert points.names == ("R_FLE", "L_FLE", "R_FAL", "L_FAL")
    np.testing.assert_allclose(points.positions, 1000 * positions, atol=1e-3)
    np.testing.assert_allclose(points.time_s, np.arange(30) / 100, atol=1e-5)
    assert points.declared_rate_hz == 100


def test_trajectories_of_qualisys_that_are_damaged_say_where():
    names, positions = ["R_FLE", "R_FAL"], np.ones((9, 2, 3))
    text = qualisys(names, positions)
    refused("a.tsv", text[:-20], "line 22: expected 8 cells, found 6: the file is cut off")
    refused("a.tsv", text.replace("1000.000", "1000.0.0", 1), "line 14: expected a number, found '1000.0.0'")
    refused("a.tsv", text.replace("\t3D", "\t2D"), "expected 3D, found 2D")
    refused("a.tsv", text.replace("FREQUENCY\t100", "FREQUENCY\tfast", 1), "expected a number, found 'fast'")
    refused(
        "a.tsv", text.replace("R_FLE\tR_FAL\n", "R_FLE\n", 1), "expected three cells for each of 1 markers"
    )
    untimed = qualisys(names, positions, timed=False, rate="EXT")
    refused("a.tsv", untimed, "FREQUENCY: expected a number, or a column of time")
    # An external clock: the times count.
    assert (
        reader_of_qualisys.parse("a.tsv", qualisys(names, positions, rate="EXT").encode()).time_s[2] == 0.02
    )


def trc(mark="\t", decimal="."):
    names, positions = ["RKnee", "RAnkle"], np.random.default_rng(0).normal(size=(30, 2, 3)) + 1
    rows = [
        [str(i + 1), f"{i / 60:.5f}", *(f"{x:.6f}" for x in frame.ravel())]
        for i, frame in enumerate(positions)
    ]
    lines = [
        ["PathFileType", "4", "(X/Y/Z)", "a.trc"],
        ["DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"],
        ["60.0", "60.0", "30", "2", "m"],
        ["Frame#", "Time", names[0], "", "", names[1]],
        ["", "", "X1", "Y1", "Z1", "X2", "Y2", "Z2"],
        *([cell.replace(".", decimal) for cell in row] for row in rows),
    ]
    return "\n".join(map(mark.join, lines)) + "\n", positions


@pytest.mark.parametrize(
    ("mark", "decimal", "note"),
    [
        ("\t", ".", ""),
        ("\t", ",", "decimal commas"),
        (",", ".", "separated by commas"),
        (";", ",", "semicolons"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marker_files_as_spreadsheets_save_them(mark, decimal, note, encoding):
    text, positions = trc(mark, decimal)
    content = text.encode(encoding)
    assert reader_of_trc.matches(content)
    points = reader_of_trc.parse("a.trc", content)
    assert points.names == ("RKnee", "RAnkle")
    np.testing.assert_allclose(points.positions, positions, atol=1e-6)
    assert points.declared_rate_hz == 60
    assert note in "; ".join(points.notes)


# Damage


def keypoints_csv():
    """Hips, knees, ankles and shoulders of a person who sinks by a millimetre a frame."""
    heights = {"hip": 0.95, "knee": 0.5, "ankle": 0.08, "shoulder": 1.4}
    names = [f"{side}_{joint}" for joint in heights for side in ("left", "right")]
    lines = [",".join(["time", *(f"{name}_{axis}" for name in names for axis in "xyz")])]
    for i in range(20):
        places = [
            f"0.1,{height - 0.001 * i:.4f},{0.1 * side:.4f}"
            for height in heights.values()
            for side in (-1, 1)
        ]
        lines.append(",".join([f"{i / 30:.4f}", *places]))
    return "\n".join(lines)


def whole_files():
    points = list(dict.fromkeys(k.rpartition(".")[0] for k in plug_in_gait(walk())))
    return {
        "Nexus": nexus_section("Joints", points, plug_in_gait(walk())).encode(),
        "mvnx": mvnx(xsens(walk())).encode(),
        "Visual3D": visual3d(walk()).encode(),
        "xlsx": xlsx({"walk": rows_of(walk())}),
        "b3d": b3d_subject({"walk": in_radians(walk())}),
        "zip": zipped({"walk.mot": mot(walk())}),
        "keypoints": keypoints_csv().encode(),
        "Qualisys": qualisys(["R_FLE", "L_FLE", "R_FAL", "L_FAL"], np.ones((30, 4, 3))).encode(),
    }


@pytest.mark.parametrize("kind", whole_files())
@hypothesis_settings(deadline=None, max_examples=40)
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=20),
    near_start=st.booleans(),
    end=st.integers(1, 10**6),
)
def test_damage_is_refused_or_read_and_never_more(kind, changes, near_start, end):
    """Nothing that a disk or a network does to a file ends in another error than InputError."""
    whole = whole_files()[kind]
    content = bytearray(whole)
    for place, byte in changes:
        content[place % (min(len(content), 3000) if near_start else len(content))] = byte
    for part in (bytes(content), bytes(content[: end % len(content)])):
        for recording in readers.parse_each("a", part, SETTINGS).values():
            if not isinstance(recording, InputError):
                assert recording.angles_rad.shape == (len(recording.time_s), 34)


# OptiTrack Motive


def motive(markers, positions, *, units="Meters", kinds=None, labelled=True):
    """What Motive exports of positions (T, M, 3); each marker has a column of its quality too."""
    kinds = kinds or ["Marker"] * len(markers)
    named = [("Type", kinds), ("Name", [f"Ana:{m}" for m in markers]), ("ID", range(len(markers)))]
    rows = [
        ["", label if labelled else "", *(str(v) for v in values for _ in range(4))]
        for label, values in named
    ]
    rows.append(["", "", *(["Position"] * 3 + ["Marker Quality"]) * len(markers)])
    rows.append(["Frame", "Time (Seconds)", *["X", "Y", "Z", ""] * len(markers)])
    for i, frame in enumerate(positions):
        values = [[*(f"{x:.6f}" if np.isfinite(x) else "" for x in place), "1.0"] for place in frame]
        rows.append([str(i), f"{i / 120:.6f}", *(v for place in values for v in place)])
    about = f"Format Version,1.23,Take Name,Walk 1,Export Frame Rate,120.000000,Length Units,{units}"
    return "\n".join([about, "", *(",".join(row) for row in rows)]) + "\n"


@pytest.mark.parametrize("labelled", [True, False])
def test_markers_of_motive(labelled):
    positions = np.random.default_rng(0).normal(size=(40, 4, 3)).round(6)
    positions[:5, 2] = np.nan
    names = ["LKneeOut", "RKneeOut", "LAnkleOut", "RAnkleOut"]
    text = motive(names, positions, units="Millimeters", labelled=labelled).encode()
    points = reader_of_motive.parse("a.csv", text)
    np.testing.assert_allclose(points.positions, positions)
    assert points.names == tuple(f"Ana:{name}" for name in names)
    assert (points.units, points.declared_rate_hz) == ("mm", 120.0)
    np.testing.assert_allclose(points.time_s, np.arange(40) / 120, atol=1e-6)
    assert readers.recognizes(text)
    label, roles = known(points.names)
    assert "OptiTrack" in label.label
    assert set(roles) == {"lateral_knee_l", "lateral_knee_r", "lateral_ankle_l", "lateral_ankle_r"}


def test_a_labelled_marker_of_motive_comes_before_where_it_is_expected():
    positions = np.stack([np.zeros((30, 3)), np.ones((30, 3))], axis=1)
    text = motive(["LHeel", "LHeel"], positions, kinds=["Bone Marker", "Marker"])
    np.testing.assert_array_equal(reader_of_motive.parse("a.csv", text.encode()).positions[:, 0], 1.0)


def test_a_cut_off_file_of_motive():
    text = motive(["LHeel"], np.zeros((30, 1, 3)))
    refused("a.csv", text[:200], "expected a line that begins with Frame, found none")
    with pytest.raises(InputError):
        readers.parse("a.csv", text[:-20].rpartition(",")[0].encode(), SETTINGS)
