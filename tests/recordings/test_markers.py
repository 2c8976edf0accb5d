"""Joint angles from markers and keypoints: simulated movements and back, and a real recording beside
OpenSim's angles."""

import io
import subprocess
import sys
import time
from itertools import islice

import ezc3d
import numpy as np
import pytest

import real_recordings
from biomechgpt.cohort import CohortSettings
from biomechgpt.core.settings import InputError, load
from biomechgpt.motion import gait
from biomechgpt.motion.kinematics import HEIGHT_M, LANDMARKS, SEGMENTS, points_m
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings import quality, readers
from biomechgpt.recordings.markers import Points, model
from biomechgpt.recordings.markers.sets import ANYWHERE_M, KEYPOINTS, MOTIVE, PLACES, plain
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings, keypoints
from biomechgpt.recordings.readers.from_points import recording_of
from biomechgpt.simulator import participants, trials
from conftest import ROOT

pytest.importorskip("mujoco", reason="needs pip install '.[markers]'")
pytest.importorskip("mink", reason="needs pip install '.[markers]'")

RATE_HZ = 60.0
NEUTRAL = ReaderSettings(missing_joints="neutral")
LEGS = [i for i, name in enumerate(NAMES[:14]) if not name.startswith("mtp")]
FLEXION = [INDEX[f"{name}_{side}"] for name in ("hip_flexion", "knee_angle", "ankle_angle") for side in "rl"]


@pytest.fixture(scope="module")
def movements():
    """Six simulated trials of different people: walking, impaired, squat, balance.

    All are of one laboratory whose zero angles are the skeleton's: points in space do not tell another zero.
    """
    laboratory = ["--simulator.laboratories.variety", "0"]
    settings = load(CohortSettings, ROOT / "configs/cohort/demo.yaml", laboratory).simulator
    people = participants(settings)[::6][:6]
    return [next(islice(trials(settings, person, RATE_HZ), 1)) for person in people]


def seen(trial, *, noise_m=0.0, height_m=HEIGHT_M, frames=480):
    """The skeleton's landmarks of a trial as a tracker of keypoints sees them, and the angles behind them."""
    angles = trial.angles_rad[:frames]
    positions = points_m(angles, trial.pelvis[:frames], height_m=height_m, ground="none").astype(float)
    positions += noise_m * np.random.default_rng(0).standard_normal(positions.shape)
    return Points("simulated", LANDMARKS, positions, np.arange(len(angles)) / RATE_HZ), angles


def rmse_deg(recording, angles):
    error = np.degrees(recording.angles_rad - angles)
    return np.where(recording.joint_mask, np.sqrt(np.mean(error**2, axis=0)), 0.0)


@pytest.mark.parametrize(("noise_m", "mean_deg", "most_deg"), [(0.0, 1.5, 3.0), (0.01, 3.0, 6.0)])
def test_simulated_movements_and_back(movements, noise_m, mean_deg, most_deg):
    errors, spent, lasts = [], 0.0, 0.0
    for trial, height_m in zip(movements, (1.5, 1.6, 1.7, 1.8, 1.9, 1.7), strict=True):
        points, angles = seen(trial, noise_m=noise_m, height_m=height_m)
        begin = time.process_time()
        recording = recording_of("walk", points, NEUTRAL)
        spent, lasts = spent + time.process_time() - begin, lasts + len(angles) / RATE_HZ
        assert recording.joint_mask[FLEXION].all()
        assert len(recording.time_s) == len(angles)
        errors.append(rmse_deg(recording, angles)[LEGS])
    assert np.mean(errors) < mean_deg
    assert np.sqrt(np.mean(np.square(errors), axis=0)).max() < most_deg
    assert spent < lasts  # at least real time


def camera(points):
    """What cameras see of a movement: HALPE's names, without pelvis and spine. The feet have one point more."""
    halpe = {
        "hip": "Hip",
        "knee": "Knee",
        "ankle": "Ankle",
        "shoulder": "Shoulder",
        "elbow": "Elbow",
        "wrist": "Wrist",
    }
    at = dict(zip(points.names, np.moveaxis(points.positions, 1, 0), strict=True))
    named = {f"{side}{word}": at[f"{part}_{side.lower()}"] for part, word in halpe.items() for side in "RL"}
    return Points("camera", tuple(named), np.stack(list(named.values()), axis=1), points.time_s)


def test_what_keypoints_do_not_tell_is_absent(movements):
    points, angles = seen(movements[0])
    recording = recording_of("walk", camera(points), NEUTRAL)
    absent = {name for name, there in zip(NAMES, recording.joint_mask, strict=True) if not there}
    assert {"ankle_angle_r", "subtalar_angle_l", "mtp_angle_r", "lumbar_extension", "neck_rotation"} <= absent
    assert not {"knee_angle_r", "hip_flexion_l", "hip_adduction_r", "arm_flex_l", "elbow_flex_r"} & absent
    assert (recording.angles_rad[:, ~recording.joint_mask] == 0).all()
    assert "half of the trunk's lean is assumed" in recording.import_notes
    assert rmse_deg(recording, angles)[INDEX["knee_angle_r"]] < 3
    assert "ankle_angle_r" in recording.lacking
    with pytest.raises(InputError, match=r"this file does not tell .*ankle_angle_r"):
        recording_of("walk", camera(points), ReaderSettings(missing_joints="error"))


@pytest.mark.parametrize(
    ("units", "matrix", "note"),
    [
        ("mm", np.eye(3), "positions in mm; Y is up"),
        ("m", [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "positions in m; Z is up"),
        ("cm", [[0, 0, 1], [0, -1, 0], [1, 0, 0]], "positions in cm; -Y is up"),
    ],
)
def test_axes_and_units_are_recognized(movements, units, matrix, note):
    points, angles = seen(movements[1], frames=120)
    scale = {"m": 1, "cm": 100, "mm": 1000}[units]
    turned = Points("any", points.names, scale * points.positions @ np.transpose(matrix), points.time_s)
    recording = recording_of("walk", turned, NEUTRAL)
    assert note in recording.import_notes
    assert rmse_deg(recording, angles)[FLEXION].max() < 3


def test_missing_markers_leave_a_gap_where_they_matter(movements):
    points, _ = seen(movements[1], frames=120)
    positions = points.positions.copy()
    for name in ("ankle_r", "heel_r", "ball_r", "toe_r"):
        positions[50:60, points.names.index(name)] = np.nan
    recording = recording_of("walk", Points("any", points.names, positions, points.time_s), NEUTRAL)
    assert np.isnan(recording.angles_rad[50:60, INDEX["ankle_angle_r"]]).all()
    assert np.isfinite(recording.angles_rad[:, INDEX["hip_flexion_l"]]).all()
    with pytest.raises(InputError, match=r"gap: .*_r has no values from 0\.8"):
        quality.accept("walk", recording, QualitySettings())


def test_swapped_markers_are_refused_with_numbers(movements):
    points, _ = seen(movements[0], frames=120)
    names = list(points.names)
    right, left = names.index("knee_r"), names.index("wrist_l")
    names[right], names[left] = names[left], names[right]
    recording = recording_of("walk", Points("any", tuple(names), points.positions, points.time_s), NEUTRAL)
    with pytest.raises(InputError, match=r"residual: .* mm .*max_marker_residual_mm"):
        quality.accept("walk", recording, QualitySettings())


def test_image_coordinates_and_unknown_markers_say_what_was_expected(movements):
    points, _ = seen(movements[0], frames=60)
    with pytest.raises(
        InputError, match=r"expected positions in metres, .* found 0\.0\d+ from knee to ankle"
    ):
        recording_of("walk", Points("any", points.names, points.positions / 20, points.time_s), NEUTRAL)
    names = tuple(f"M{i}" for i in range(len(points.names)))
    with pytest.raises(InputError, match=r"known set .* found no knee or no ankle among M0, M1"):
        recording_of("walk", Points("any", names, points.positions, points.time_s), NEUTRAL)


def test_recordings_that_would_take_minutes_are_refused(movements, monkeypatch):
    monkeypatch.setattr(sys.modules["biomechgpt.recordings.markers.fit"], "_MOST_FRAMES", 100)
    points, _ = seen(movements[0], frames=101)
    with pytest.raises(InputError, match="expected at most 100 frames of markers, found 101"):
        recording_of("walk", points, NEUTRAL)


def shank_and_foot_deg(recording, side):
    """(T,) angle of foot and shank in degrees: dorsiflexion, whatever a model's oblique axes are."""
    points = points_m(recording.angles_rad, recording.pelvis, ground="none")
    ankle, knee, heel, ball = (
        points[:, LANDMARKS.index(f"{part}_{side}")] for part in ("ankle", "knee", "heel", "ball")
    )
    foot, shank = ball - heel, knee - ankle
    product = (foot * shank).sum(1) / np.linalg.norm(foot, axis=1) / np.linalg.norm(shank, axis=1)
    return np.degrees(np.arcsin(product))


def test_real_markers_beside_opensims_angles():
    path = real_recordings.path_of("markers/opencap_walk.trc")
    reference = readers.read(
        str(real_recordings.path_of("opensim/opencap-processing/walk_activityAnalyses.mot")), NEUTRAL
    )
    begin = time.process_time()
    recording = readers.read(str(path), NEUTRAL)
    assert time.process_time() - begin < recording.time_s[-1] - recording.time_s[0]
    assert "positions in m; Y is up" in recording.import_notes
    # The person enters the cameras' view in the first half second; these frames are left out.
    first = int(np.searchsorted(reference.time_s, recording.time_s[0] - 1e-6))
    assert first < 20
    rows = slice(first, first + len(recording.time_s))
    error = np.degrees(recording.angles_rad - reference.angles_rad[rows])
    for side in "rl":
        for joint in ("hip_flexion", "knee_angle"):
            assert np.sqrt(np.mean(error[:, INDEX[f"{joint}_{side}"]] ** 2)) < 6
        # OpenSim's subtalar joint is 20 degrees off zero here, and its axis is oblique: compare foot and shank.
        ankle = shank_and_foot_deg(recording, side) - shank_and_foot_deg(reference, side)[rows]
        assert np.sqrt(np.mean(ankle**2)) < 6
    # The left ankle alone is 6.8 degrees off, for that reason.
    assert np.sqrt(np.mean(error[:, [INDEX["ankle_angle_r"], INDEX["ankle_angle_l"]]] ** 2)) < 6
    ours = gait.measure(recording.angles_rad, recording.pelvis, RATE_HZ)
    theirs = gait.measure(reference.angles_rad[rows], reference.pelvis[rows], RATE_HZ)
    assert ours.cadence_steps_min == pytest.approx(theirs.cadence_steps_min, rel=0.03)
    assert ours.speed_m_s == pytest.approx(theirs.speed_m_s, rel=0.03)
    quality.accept(path.name, recording, QualitySettings())


@pytest.mark.parametrize("name", ["keypoints", "LSTM"])
def test_real_keypoints_and_markers_of_one_movement(name):
    path = real_recordings.path_of(f"markers/pose2sim_balancing_{name}.trc")
    recording = readers.read(str(path), NEUTRAL)
    quality.accept(path.name, recording, QualitySettings())
    knees = np.degrees(recording.angles_rad[:, [INDEX["knee_angle_r"], INDEX["knee_angle_l"]]])
    assert knees.max() < 20
    assert recording.marker_residuals_m.keys() >= {"Nose"}


def test_without_the_engine_the_extra_is_named(tmp_path):
    script = """
import sys
sys.modules["mujoco"] = None
import numpy as np
from biomechgpt.recordings.markers import model
model.engine("walk.trc")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "pip install 'biomechgpt[markers]'" in done.stderr
    assert "walk.trc" in done.stderr


# Plug-in Gait's markers: {name on the right side: role in the set}.
PLUG_IN_GAIT = {
    "ASI": "asis", "PSI": "psis", "THI": "thigh", "KNE": "lateral_knee", "TIB": "shank", "ANK": "lateral_ankle",
    "HEE": "calcaneus", "TOE": "toe", "SHO": "acromion", "ELB": "lateral_elbow", "WRA": "lateral_wrist",
    "WRB": "medial_wrist", "FIN": "hand", "FHD": "front_head", "BHD": "back_head",
}  # fmt: skip
TRUNK = {"C7": "c7", "T10": "t10", "CLAV": "clavicle", "STRN": "sternum"}


def markers_of(trial, roles, frames):
    """Positions (T, M, 3) of markers in these roles on a simulated person of 1.70 m, in metres and Y-up."""
    lengths = dict.fromkeys((segment.end for segment in SEGMENTS), 1.0)
    # On a pelvis that slopes by 11 degrees.
    pelvis = {"asis": (0.0, 0.0, 0.12), "psis": (-0.16, 0.031, 0.045)}
    where = model.places(lengths)
    sites = []
    for role in roles:
        place = PLACES[role]
        offset = np.array(pelvis.get(role[:-2], place.offset_m)) * (
            [1, 1, -1] if role[:-2] in pelvis and role[-1] == "l" else 1
        )
        body, start = (place.carrier, np.zeros(3)) if place.carrier else where[place.landmark]
        sites.append(model.Site(body, offset if role[:-2] in pelvis else start + offset))
    return forward(lengths, sites, trial.angles_rad[:frames], trial.pelvis[:frames])


def marker_c3d(trial, folder, *, frames=300):
    """A C3D with Plug-in Gait's markers on a simulated person of 1.70 m, Z-up in millimetres, and its angles."""
    roles = {
        f"{side}{name}": f"{role}_{side.lower()}" for name, role in PLUG_IN_GAIT.items() for side in "RL"
    } | TRUNK
    positions = markers_of(trial, roles.values(), frames)
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [RATE_HZ]
    file["parameters"]["POINT"]["LABELS"]["value"] = [f"Anna:{name}" for name in roles]
    data = np.ones((4, len(roles), len(positions)))
    data[:3] = 1000 * (positions @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T).transpose(2, 1, 0)
    file["data"]["points"] = data
    file.write(str(folder / "a.c3d"))
    return (folder / "a.c3d").read_bytes(), trial.angles_rad[:frames]


def forward(lengths, sites, angles, pelvis):
    """Positions (T, M, 3) of sites on the model's body."""
    import mujoco

    body = mujoco.MjModel.from_xml_string(model.xml(lengths, sites))
    data, result = mujoco.MjData(body), []
    for pose, place in zip(angles, pelvis, strict=True):
        data.qpos[:7] = place
        for j in range(1, body.njnt):
            data.qpos[6 + j] = pose[INDEX[body.joint(j).name]]
        mujoco.mj_kinematics(body, data)
        result.append([data.site(str(i)).xpos.copy() for i in range(len(sites))])
    return np.array(result)


def test_the_model_is_the_skeleton(movements):
    """Landmarks of the MuJoCo model are those of `motion.kinematics`: same hinges, axes and order."""
    trial = movements[0]
    lengths = dict.fromkeys((segment.end for segment in SEGMENTS), 1.0)
    sites = [model.Site(*place) for place in model.places(lengths).values()]
    ours = points_m(trial.angles_rad[:20], trial.pelvis[:20], ground="none")
    np.testing.assert_allclose(
        forward(lengths, sites, trial.angles_rad[:20], trial.pelvis[:20]), ours, atol=1e-5
    )


def test_plug_in_gait_markers_in_a_c3d(movements, tmp_path):
    content, angles = marker_c3d(movements[1], tmp_path)
    recording = readers.parse("a.c3d", content, NEUTRAL)
    assert "Plug-in Gait and CAST markers; positions in mm; Z is up" in recording.import_notes
    quality.accept("a.c3d", recording, QualitySettings())
    errors = rmse_deg(recording, angles)
    assert recording.joint_mask[FLEXION].all()
    assert errors[FLEXION].max() < 5
    assert "RKNE" in recording.marker_residuals_m


def test_the_same_markers_as_qualisys_writes_them(movements, tmp_path):
    content, angles = marker_c3d(movements[1], tmp_path)
    positions = ezc3d.c3d(str(tmp_path / "a.c3d"))["data"]["points"][:3].transpose(2, 1, 0)
    names = [f"{side}{name}" for name in PLUG_IN_GAIT for side in "RL"] + list(TRUNK)
    lines = [f"NO_OF_FRAMES\t{len(positions)}", f"FREQUENCY\t{RATE_HZ:g}", "DATA_INCLUDED\t3D"]
    lines += ["\t".join(["MARKER_NAMES", *names])]
    lines += ["\t".join(f"{x:.3f}" for x in frame.ravel()) for frame in positions]
    recording = readers.parse("a.tsv", "\n".join(lines).encode(), NEUTRAL)
    of_c3d = readers.parse("a.c3d", content, NEUTRAL)
    assert "Qualisys TSV" in recording.import_notes
    np.testing.assert_allclose(
        np.degrees(recording.angles_rad), np.degrees(of_c3d.angles_rad), atol=0.2, equal_nan=True
    )
    assert rmse_deg(recording, angles)[FLEXION].max() < 5


def test_the_same_movement_as_motive_writes_it(movements):
    """OptiTrack's own marker set, in metres and Y-up, as Motive exports it."""
    roles = {name: role for name, role in MOTIVE.roles.items() if PLACES[role].error_m < ANYWHERE_M}
    positions = markers_of(movements[1], roles.values(), 300)
    row = [[*(f"{x:.6f}" for x in place), "1.0"] for place in positions.reshape(-1, 3)]
    rows = np.array(row).reshape(len(positions), -1)
    lines = [
        "Format Version,1.23,Take Name,Walk 1,Export Frame Rate,60.000000,Length Units,Meters",
        "",
        ",".join(["", "Type", *["Marker"] * 4 * len(roles)]),
        ",".join(["", "Name", *(f"Ana:{name}" for name in roles for _ in range(4))]),
        ",".join(["", "", *(["Position"] * 3 + ["Marker Quality"]) * len(roles)]),
        ",".join(["Frame", "Time (Seconds)", *["X", "Y", "Z", ""] * len(roles)]),
        *(",".join([str(i), f"{i / RATE_HZ:.6f}", *cells]) for i, cells in enumerate(rows)),
    ]
    recording = readers.parse("a.csv", "\n".join(lines).encode(), NEUTRAL)
    assert "OptiTrack Motive CSV" in recording.import_notes
    assert "OptiTrack's markers" in recording.import_notes
    quality.accept("a.csv", recording, QualitySettings())
    assert recording.joint_mask[FLEXION].all()
    assert rmse_deg(recording, movements[1].angles_rad[:300])[FLEXION].max() < 5


def as_csv(points, *, timed=True):
    """FreeMoCap's and MediaPipe's names in a CSV, in millimetres, Z-up."""
    words = [f"{'right' if name[0] == 'R' else 'left'}_{name[1:].lower()}" for name in points.names]
    header = [f"{word}_{axis}" for word in words for axis in "xyz"]
    z_up = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    values = 1000 * (points.positions @ z_up.T).reshape(len(points.time_s), -1)
    if timed:
        header, values = ["timestamp", *header], np.column_stack([points.time_s, values])
    return "\n".join([",".join(header), *(",".join(f"{v:.3f}" for v in row) for row in values)]).encode()


@pytest.mark.parametrize("timed", [True, False])
def test_keypoints_in_a_csv(movements, timed):
    points, angles = seen(movements[0], frames=150)
    content = as_csv(camera(points), timed=timed)
    assert readers.recognizes(content[:20000])
    recording = readers.parse("a.csv", content, NEUTRAL)
    assert recording.rate_hz == pytest.approx(60 if timed else 30, rel=0.01)
    assert ("assumed" in recording.import_notes.split("half of")[0]) != timed
    assert rmse_deg(recording, angles)[INDEX["knee_angle_l"]] < 4


@pytest.mark.parametrize("decimal", [",", "."])
def test_keypoints_in_a_csv_of_a_spreadsheet(movements, decimal):
    points, angles = seen(movements[0], frames=150)
    text = as_csv(camera(points)).decode().replace(",", ";").replace(".", decimal)
    recording = readers.parse("a.csv", text.encode("utf-16"), NEUTRAL)
    assert rmse_deg(recording, angles)[INDEX["knee_angle_l"]] < 4


@pytest.mark.parametrize("count", [*keypoints.ORDERS, 133, 136, 553])
def test_keypoints_in_an_array(movements, count):
    """Arrays of a whole body, with face and hands, begin with the body's keypoints."""
    points, angles = seen(movements[0], frames=150)
    at = dict(zip(points.names, np.moveaxis(points.positions, 1, 0), strict=True))
    label, names = keypoints.ORDERS[{133: 17, 136: 26, 553: 33}.get(count, count)]
    roles = KEYPOINTS.roles
    array = np.full((len(angles), count, 3), np.nan)
    for i, name in enumerate(names):
        role = roles.get(plain(name), "")
        if role in at:
            array[:, i] = at[role]
    file = io.BytesIO()
    np.save(file, array)
    recording = readers.parse("a.npy", file.getvalue(), ReaderSettings(keypoints_rate_hz=60))
    assert label in recording.import_notes
    assert rmse_deg(recording, angles)[INDEX["knee_angle_l"]] < 4
    assert not keypoints.matches(file.getvalue().replace(str(count).encode() + b", 3)", b"99, 3)"))
