"""SMPL poses and BVH files: rotations whose meaning is known, in every world, become the angles that they are."""

import io

import ezc3d
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import real_recordings
from biomechgpt.core.settings import InputError
from biomechgpt.motion import gait
from biomechgpt.motion.kinematics import LANDMARKS, SEGMENTS, points_m
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings import quality, readers
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.recordings.rotations import hinge_angles
from biomechgpt.simulator import SimulatorSettings, participants, trials

SETTINGS = ReaderSettings()
AXES = {joint: axis for segment in SEGMENTS for joint, axis in segment.hinges}
# SMPL: X to the left, Y up, Z forward. {number of the joint: (rotation in degrees, {joint angle: degrees})}
MEANINGS = {
    "hips flex": ({1: [-30, 0, 0], 2: [-30, 0, 0]}, {"hip_flexion_r": 30, "hip_flexion_l": 30}),
    "hips abduct": ({1: [0, 0, 15], 2: [0, 0, -15]}, {"hip_adduction_r": -15, "hip_adduction_l": -15}),
    "knees flex": ({4: [60, 0, 0], 5: [60, 0, 0]}, {"knee_angle_r": -60, "knee_angle_l": -60}),
    "right foot up": ({8: [-20, 0, 0]}, {"ankle_angle_r": 20, "ankle_angle_l": 0}),
    "trunk bends forward": ({3: [10, 0, 0], 6: [10, 0, 0], 9: [10, 0, 0]}, {"lumbar_extension": -30}),
    "head turns left": ({12: [0, 20, 0], 15: [0, 15, 0]}, {"neck_rotation": 35}),
    "trunk to the right": ({6: [0, 0, 12]}, {"lumbar_bending": 12}),
}
DOWN = {16: [0, 0, -85], 17: [0, 0, 85]}  # the arms hang, from the T of the rest pose


def smpl(turned, world=None, **more):
    """An AMASS file in which joints go from the rest pose to a posture, arms down, in 60 frames."""
    poses = np.zeros((60, 52, 3))
    for joint, degrees in (DOWN | turned).items():
        poses[:, joint] = np.radians(degrees)
    ramp = np.linspace(0, 1, 60)[:, None]
    for joint in turned:
        poses[:, joint] *= ramp
    if world is not None:
        poses[:, 0] = world.as_rotvec()
    file = io.BytesIO()
    arrays = {"trans": np.zeros((60, 3)), "mocap_framerate": 60.0, "poses": poses.reshape(60, -1)} | more
    np.savez(file, gender="neutral", **{k: v for k, v in arrays.items() if v is not None})
    return file.getvalue()


@pytest.mark.parametrize("meaning", MEANINGS)
def test_smpl_rotations_mean_what_they_say(meaning):
    turned, expected = MEANINGS[meaning]
    recording = readers.parse("a.npz", smpl(turned), SETTINGS)
    moved = np.degrees(recording.angles_rad[-1] - recording.angles_rad[0])
    for joint, degrees in expected.items():
        assert moved[INDEX[joint]] == pytest.approx(degrees, abs=2.5), joint
    others = [
        i for i, name in enumerate(NAMES) if name not in expected and not name.startswith(("subtalar", "arm"))
    ]
    assert np.abs(moved[others]).max() < 6


def test_arms_that_hang_are_at_rest():
    recording = readers.parse("a.npz", smpl({4: [60, 0, 0]}), SETTINGS)
    angles = np.degrees(recording.angles_rad)
    for joint in ("arm_flex_r", "arm_flex_l", "arm_add_r", "arm_add_l", "elbow_flex_r", "elbow_flex_l"):
        assert np.abs(angles[:, INDEX[joint]]).max() < 12, joint


def test_smpl_in_a_z_up_world():
    upright = Rotation.from_euler("x", 90, degrees=True)
    turned = MEANINGS["knees flex"][0]
    flat, turned_up = (readers.parse("a.npz", smpl(turned, w), SETTINGS) for w in (None, upright))
    np.testing.assert_allclose(flat.angles_rad, turned_up.angles_rad, atol=1e-6)
    assert "Z is up" in turned_up.import_notes
    up = Rotation.from_quat(turned_up.pelvis[:, 3:], scalar_first=True).apply([0, 1, 0])
    np.testing.assert_allclose(up[:, 1], 1, atol=1e-6)


def test_other_names_of_the_same_arrays():
    content = smpl(MEANINGS["knees flex"][0])
    poses = np.load(io.BytesIO(content))["poses"]
    apart = smpl(
        {}, poses=None, mocap_framerate=None, root_orient=poses[:, :3], pose_body=poses[:, 3:66], fps=60
    )
    one, other = (readers.parse("a.npz", c, SETTINGS) for c in (content, apart))
    np.testing.assert_allclose(one.angles_rad, other.angles_rad)
    assert readers.recognizes(content[: readers.HEAD_BYTES])
    with pytest.raises(InputError, match="expected a frame rate"):
        readers.parse("a.npz", smpl({}, mocap_framerate=None), SETTINGS)
    with pytest.raises(InputError, match="expected rotation vectors"):
        readers.parse("a.npz", smpl({}, poses=np.zeros((60, 24))), SETTINGS)


@pytest.mark.parametrize(
    "joints",
    [
        ("hip_flexion_r", "hip_adduction_r", "hip_rotation_r"), ("arm_flex_l", "arm_add_l", "arm_rot_l"),
        ("knee_angle_l",), ("ankle_angle_r", "subtalar_angle_r"), ("ankle_angle_l", "subtalar_angle_l"),
        ("elbow_flex_r", "pro_sup_r"), ("elbow_flex_l", "pro_sup_l"), ("wrist_flex_l", "wrist_dev_l"),
    ],
)  # fmt: skip
def test_angles_about_any_hinges(joints):
    rng = np.random.default_rng(0)
    angles = np.radians(rng.uniform(-60, 60, (50, len(joints))))
    turned = Rotation.identity(50)
    for i, joint in enumerate(joints):
        axis = np.array(AXES[joint]) / np.linalg.norm(AXES[joint])
        turned = turned * Rotation.from_rotvec(angles[:, i, None] * axis)
    np.testing.assert_allclose(hinge_angles(turned, [AXES[joint] for joint in joints]), angles, atol=1e-5)


def bvh(frames, *, prefix="", hips="Hips"):
    """A stick figure of 1.7 m in centimetres, in a T pose, with rotations ZXY of right thigh and shank in
    each frame."""
    channels = "CHANNELS 3 Zrotation Xrotation Yrotation"

    def leg(side, x):
        return f"""JOINT {prefix}{side}UpLeg {{
        OFFSET {x} -4 0
        {channels}
        JOINT {prefix}{side}Leg {{
          OFFSET 0 -42 0
          {channels}
          JOINT {prefix}{side}Foot {{
            OFFSET 0 -42 0
            {channels}
            End Site {{
              OFFSET 0 -6 12
            }} }} }} }}""".replace("{", "\n{\n").replace("}", "\n}\n")

    hierarchy = f"HIERARCHY\nROOT {prefix}{hips}\n{{\nOFFSET 0 0 0\nCHANNELS 6 Xposition Yposition Zposition "
    hierarchy += f"Zrotation Xrotation Yrotation\n{leg('Right', -9)}\n{leg('Left', 9)}\n}}\nMOTION\n"
    rows = []
    for thigh, shank in frames:
        rows.append(" ".join(map(str, [0, 95, 0, 0, 0, 0, 0, thigh, 0, 0, shank, 0, *[0] * 12])))
    return f"{hierarchy}Frames: {len(rows)}\nFrame Time: 0.02\n" + "\n".join(rows) + "\n"


FRAMES = [(0, 0), *((-20 - t / 2, 40 + t) for t in range(40))]


@pytest.mark.parametrize("prefix", ["", "mixamorig:"])
def test_bvh(prefix):
    recording = readers.parse("a.bvh", bvh(FRAMES, prefix=prefix).encode(), SETTINGS)
    angles = np.degrees(recording.angles_rad)
    np.testing.assert_allclose(angles[:, INDEX["hip_flexion_r"]], [20 + t / 2 for t in range(40)], atol=1e-6)
    np.testing.assert_allclose(angles[:, INDEX["knee_angle_r"]], [-40 - t for t in range(40)], atol=1e-6)
    assert "first frame, a rest pose, left out" in recording.import_notes
    assert "positions in cm" in recording.import_notes
    assert recording.joint_mask.sum() == 2  # the others never turn
    assert recording.rate_hz == pytest.approx(50)
    assert 0.9 < recording.pelvis[0, 1] < 1.05


def test_bvh_that_is_no_body_or_is_cut_off():
    text = bvh(FRAMES)
    with pytest.raises(InputError, match="no shank_r, shank_l"):
        readers.parse(
            "a.bvh", text.replace("RightLeg", "Bone1").replace("LeftLeg", "Bone2").encode(), SETTINGS
        )
    with pytest.raises(InputError, match="cut off or damaged"):
        readers.parse("a.bvh", text[:-200].encode(), SETTINGS)
    with pytest.raises(InputError, match="line 4: expected a joint"):
        readers.parse("a.bvh", text.replace("OFFSET 0 0 0", "OFFSET 0 x 0", 1).encode(), SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("OFFSET 0 0 0", "OFFSET 0 0", "line 4: expected a joint"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Yrotation", "expected a joint of the hierarchy"),
        ("CHANNELS 3 Zrotation", "CHANNELS 9 Zrotation", "expected a joint of the hierarchy"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Zscale", "expected a joint of the hierarchy"),
        ("Frames: 41", "Frames: " + "9" * 5000, "frames: expected numbers"),
        ("0 95 0", "0 nan 0", "frame 0: expected a number in every channel"),
        ("OFFSET 0 -42 0", "OFFSET 0 0 0", "expected shanks with a length|apart in the rest pose"),
        ("ROOT", "JOINT a {\n" * 600 + "ROOT", "at most 500 joints"),
    ],
)
def test_bvh_that_is_damaged_says_where(old, new, message):
    with pytest.raises(InputError, match=message):
        readers.parse("a.bvh", bvh(FRAMES).replace(old, new).encode(), SETTINGS)


def test_smpl_as_matrices_and_what_are_no_rotation_vectors():
    turned = {1: [-30, 0, 0], 5: [60, 0, 0]}
    vectors = np.load(io.BytesIO(smpl(turned)))["poses"].reshape(60, 52, 3)[:, :24]
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(60, 24, 3, 3)
    angles = [
        readers.parse("a.npz", smpl({}, poses=poses), SETTINGS).angles_rad for poses in (vectors, matrices)
    ]
    np.testing.assert_allclose(*angles, atol=1e-9)
    for shape, message in (
        (
            (60, 144),
            "expected rotation vectors of 22, 24, 52, 55 joints",
        ),  # six numbers for each of 24 joints
        ((60, 24, 6), r"found shape \(60, 24, 6\)"),
        ((60, 24, 3, 3), "expected rotation matrices, found others"),
    ):
        with pytest.raises(InputError, match=message):
            readers.parse("a.npz", smpl({}, poses=np.zeros(shape)), SETTINGS)


def test_joints_that_a_file_of_rotations_lacks():
    recording = readers.parse("a.bvh", bvh(FRAMES).encode(), SETTINGS)
    assert "arm_flex_r" in recording.lacking
    assert "knee_angle_r" not in recording.lacking
    with pytest.raises(InputError, match=r"this file does not tell .*arm_flex_r"):
        readers.parse("a.bvh", bvh(FRAMES).encode(), ReaderSettings(missing_joints="error"))


def test_real_bvh():
    path = real_recordings.path_of("markers/cmu_12_01_walk.bvh")
    recording = readers.read(str(path), SETTINGS)
    quality.accept(path.name, recording, QualitySettings())
    walk = gait.measure(recording.angles_rad, recording.pelvis, recording.rate_hz)
    assert 80 < walk.cadence_steps_min < 125
    assert 0.7 < walk.speed_m_s < 1.6
    ankles = np.degrees(recording.angles_rad[:, [INDEX["ankle_angle_r"], INDEX["ankle_angle_l"]]])
    assert np.abs(np.median(ankles, axis=0)).max() < 20  # this walk is crouched: knees 28, hips 19


# Theia3D

THEIA = {
    "pelvis": "pelvis", "torso": "neck", "head": "head",
    "r_thigh": "knee_r", "r_shank": "ankle_r", "r_foot": "ball_r",
    "l_thigh": "knee_l", "l_shank": "ankle_l", "l_foot": "ball_l",
    "r_uarm": "elbow_r", "r_larm": "wrist_r", "l_uarm": "elbow_l", "l_larm": "wrist_l",
}  # fmt: skip
"""{segment of Theia: the end of ours}."""
TOLD = [i for i, name in enumerate(NAMES) if not name.startswith(("mtp", "pro_sup", "wrist"))]


def orientations(angles, pelvis):
    """{end of a segment: its orientation}, by the skeleton's hinges, in a world with Y up."""
    found = {"pelvis": Rotation.from_quat(pelvis[:, 3:], scalar_first=True)}
    for segment in SEGMENTS:
        turned = found[segment.start]
        for joint, axis in segment.hinges:
            unit = np.array(axis) / np.linalg.norm(axis)
            turned = turned * Rotation.from_rotvec(angles[:, INDEX[joint], None] * unit)
        found[segment.end] = turned
    return found


def theia(folder, angles, pelvis, *, hidden=0, own=None, prefix="", unit="mm"):
    """A C3D file of Theia3D: X to the right, Y forward, Z up, in the laboratory and in each segment.

    hidden: frames at the beginning in which nobody is seen. own: a rotation of every segment's axes.
    """
    lab = Rotation.from_matrix([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # from our world, X forward, Y up, Z right
    own = own or Rotation.identity()
    turned = orientations(angles, pelvis)
    at = dict(zip(LANDMARKS, np.moveaxis(points_m(angles, pelvis, ground="none"), 1, 0), strict=True))
    # A foot's origin is the ankle, though its last hinge is at the heel.
    starts = {segment.end: segment.start for segment in SEGMENTS}
    starts |= {"pelvis": "pelvis", "ball_r": "ankle_r", "ball_l": "ankle_l"}
    matrices = np.zeros((4, 4, len(THEIA), len(angles)))
    for i, (signal, end) in enumerate(THEIA.items()):
        axes = lab * turned[end] * lab.inv() * own
        if signal.endswith("larm"):
            # The elbow turns about the upper arm's X; the forearm turns about its own length besides.
            side = signal[0]
            upper = lab * turned[f"elbow_{side}"] * lab.inv() * own
            flexion = angles[:, INDEX[f"elbow_flex_{side}"]]
            axes = upper * Rotation.from_euler("XZ", np.stack([flexion, np.full(len(angles), 1.3)], axis=1))
        matrices[:3, :3, i] = np.moveaxis(axes.as_matrix(), 0, 2)
        matrices[:3, 3, i] = {"mm": 1000, "m": 1}[unit] * lab.apply(at[starts[end]]).T
    matrices[3, 3] = 1
    matrices[:, :, :, :hidden] = np.nan
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [85.0]
    file["parameters"]["POINT"]["UNITS"]["value"] = [unit]
    file["data"]["points"] = np.zeros((4, 0, len(angles)))
    file["data"]["rotations"] = matrices
    file.add_parameter("ROTATION", "LABELS", [f"{prefix}{signal}_4X4" for signal in THEIA])
    file.add_parameter("ROTATION", "USED", [len(THEIA)])
    file.add_parameter("ROTATION", "RATE", [85.0])
    file.add_parameter("ROTATION", "RATIO", [1])
    file.write(str(folder / "a.c3d"))
    return (folder / "a.c3d").read_bytes()


@pytest.fixture(scope="module")
def walker():
    """Angles (T, 34) and pelvis (T, 7) of a simulated walk in which the feet roll inwards, too."""
    settings = SimulatorSettings(scale=0.2, laboratories={"absent": 0})
    trial = next(iter(trials(settings, participants(settings)[0], 85.0)))
    angles, pelvis = trial.angles_rad[:200].astype(float), trial.pelvis[:200].astype(float)
    for side, phase in (("r", 0.0), ("l", 2.0)):
        angles[:, INDEX[f"subtalar_angle_{side}"]] = 0.1 * np.sin(np.arange(200) / 9 + phase)
    return angles, pelvis


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_rotations_of_theia_are_the_angles_that_they_were_made_of(tmp_path, walker, unit):
    angles, pelvis = walker
    content = theia(tmp_path, angles, pelvis, unit=unit)
    assert readers.recognizes(content[: readers.HEAD_BYTES])
    recording = readers.parse("walk.c3d", content, SETTINGS)
    np.testing.assert_allclose(
        np.degrees(recording.angles_rad[:, TOLD]), np.degrees(angles[:, TOLD]), atol=1e-3
    )
    assert set(np.array(NAMES)[~recording.joint_mask]) >= {"mtp_angle_r", "pro_sup_l", "wrist_flex_r"}
    assert recording.rate_hz == pytest.approx(85)
    assert recording.lacking == ()
    assert "Z is up" in recording.import_notes
    # The laboratory's forward axis need not be ours: height, distance and posture count.
    assert recording.pelvis[:, 1] == pytest.approx(pelvis[:, 1], abs=1e-3)
    went = [np.linalg.norm(place[-1, [0, 2]] - place[0, [0, 2]]) for place in (recording.pelvis, pelvis)]
    assert went[0] == pytest.approx(went[1], abs=1e-3)
    quality.accept("walk.c3d", recording, QualitySettings())


def test_frames_in_which_theia_sees_nobody_are_left_out(tmp_path, walker):
    recording = readers.parse("walk.c3d", theia(tmp_path, *walker, hidden=20), SETTINGS)
    assert len(recording.time_s) == 180
    assert recording.time_s[0] == pytest.approx(20 / 85)
    assert np.isfinite(recording.angles_rad).all()
    assert "read from 0.24 to 2.34 s, where the legs are seen" in recording.import_notes
    with pytest.raises(InputError, match="expected a person with legs in the frames, found 0"):
        readers.parse("walk.c3d", theia(tmp_path, *walker, hidden=200), SETTINGS)


def test_rotations_of_other_programs_are_named(tmp_path, walker):
    with pytest.raises(InputError, match=r"found x_pelvis_4X4, x_torso_4X4, .*Compute Model Based Data"):
        readers.parse("walk.c3d", theia(tmp_path, *walker, prefix="x_"), SETTINGS)
    content = theia(tmp_path, *walker).replace(b"r_larm_4X4", b"r_foot_4X4")
    with pytest.raises(InputError, match="signal 'r_foot_4X4': expected one person, found it twice"):
        readers.parse("walk.c3d", content, SETTINGS)
    for own in (Rotation.from_euler("z", 90, degrees=True), Rotation.from_euler("x", 90, degrees=True)):
        with pytest.raises(InputError, match="expected axes of segments as Theia3D has them"):
            readers.parse("walk.c3d", theia(tmp_path, *walker, own=own), SETTINGS)
