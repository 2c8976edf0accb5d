"""Public collections: every settings file is valid and on the page, and reads a made-up file with its columns."""

import re

import ezc3d
import numpy as np
import pytest

from biomechgpt.cohort import CohortSettings
from biomechgpt.cohort.annotations import AnnotationTable
from biomechgpt.core.settings import InputError, load
from biomechgpt.experiment.settings import PipelineSettings, StageSettings
from biomechgpt.motion.skeleton import INDEX, NAMES, NECK, TRACKED
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers.joint_map import load_maps
from conftest import ROOT
from opensim_files import in_radians, mot, walk

CONFIGS = ROOT / "configs"
COHORTS = {path.stem: path for path in sorted((CONFIGS / "cohort/collections").glob("*.yaml"))}
EXPERIMENTS = {path.stem: path for path in sorted((CONFIGS / "experiments/collections").glob("*.yaml"))}
PAGE = (ROOT / "docs/guide/collections.md").read_text()
DEMO = load(PipelineSettings, CONFIGS / "experiments/demo.yaml")

ARMS = tuple(k for k in NAMES if k.startswith(("arm_", "elbow_")))
SHOULDERS = tuple(k for k in NAMES if k.startswith("arm_"))
SPINE = tuple(k for k in NAMES if k.startswith("lumbar_"))
SUBTALAR = ("subtalar_angle_r", "subtalar_angle_l")


def test_each_collection_has_both_files():
    assert COHORTS
    assert COHORTS.keys() == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", COHORTS)
def test_settings_are_valid(name):
    cohort = load(CohortSettings, COHORTS[name])
    assert cohort.recordings == f"collections/{name}"
    experiment = load(PipelineSettings, EXPERIMENTS[name])
    assert experiment.cohort == cohort
    for part in ("tokenizer", "tokens", "questions", "language", "answers", "evaluation"):
        assert getattr(experiment, part) == getattr(DEMO, part), part
    mine = load(StageSettings, EXPERIMENTS[name], ["--cohort.recordings", "mine"])
    assert mine.cohort.recordings == "mine"
    assert mine.cohort.readers == cohort.readers


@pytest.mark.parametrize("name", COHORTS)
def test_the_page_names_the_settings(name):
    assert f"configs/cohort/collections/{name}.yaml" in PAGE


def test_the_page_names_only_files_that_exist():
    named = set(re.findall(r"\b(?:configs|docs|jobs|tests)/[\w./-]*\w", PAGE))
    assert len(named) > len(COHORTS)
    for path in named - {f"configs/{kind}/collections/NAME.yaml" for kind in ("cohort", "experiments")}:
        assert (ROOT / path).exists(), path


def test_the_page_states_a_licence_of_every_collection():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if "|" in line]
    (table,) = (rows[i + 2 :] for i, row in enumerate(rows) if row[0] == "collection" and "licence" in row)
    listed = [row for row in table if len(row) == 5]
    assert len(listed) == len(COHORTS) + 1  # Bandai-Namco has no settings
    assert all(cell.strip("¹² ") for row in listed for cell in row)
    assert "downloads nothing by itself" in PAGE


def test_the_table_on_the_page_is_a_table_of_annotations():
    text = re.search(r"```text\n(path,.*?)```", PAGE, re.DOTALL)[1]
    table = AnnotationTable.parse("annotations.csv", text.encode())
    assert [row.annotations["diagnosis"] for row in table.rows] == [None, "stroke"]


def without(*joints: str) -> dict[str, np.ndarray]:
    return {k: v for k, v in walk().items() if k not in joints}


def read(name: str, file: str, content: str | bytes) -> readers.Recording:
    content = content.encode() if isinstance(content, str) else content
    return readers.parse(file, content, load(CohortSettings, COHORTS[name]).readers)


def check(recording: readers.Recording, absent: tuple[str, ...], truth=None) -> None:
    """The tracked joints of `truth` (default: the walk), without the absent ones, which are masked."""
    missing = {NAMES[i] for i in np.flatnonzero(~recording.joint_mask & TRACKED)}
    assert missing - set(NECK) == set(absent)
    for joint, values in (truth or walk()).items():
        if joint in INDEX and TRACKED[INDEX[joint]] and joint not in absent:
            found = np.degrees(recording.angles_rad[:, INDEX[joint]])
            np.testing.assert_allclose(found, values, atol=1e-4, err_msg=joint)


def test_opencap_lab():
    columns = walk() | {
        "knee_angle_r_beta": walk()["knee_angle_r"],
        "knee_angle_l_beta": walk()["knee_angle_l"],
    }
    check(read("opencap_lab", "walking1.mot", mot(columns)), ())
    with pytest.raises(InputError, match="missing arm_flex_r"):
        read("opencap_lab", "walking1.mot", mot(without(*ARMS)))


def test_addbiomechanics():
    header = "Coordinates\nversion=1\nnRows={rows}\nnColumns={columns}\ninDegrees=no\n\nendheader\n"
    for absent in ((), ARMS, ARMS + SPINE):
        text = mot(in_radians(without(*absent)), header)
        check(read("addbiomechanics", "trial_0.mot", text), absent)


def test_van_criekinge2023(tmp_path):
    """Markers, angles of which some are mapped, and forces, without POINT:ANGLES."""
    settings = load(CohortSettings, COHORTS["van_criekinge2023"]).readers
    (joint_map,) = settings.joint_map
    angles = [
        "Hip",
        "Knee",
        "Ankle",
        "Pelvis",
        "FootProgress",
        "Shoulder",
        "Elbow",
        "Wrist",
        "Spine",
        "Thorax",
    ]
    labels = [
        "LFHD",
        "C7",
        "SACR",
        *(f"{side}{joint}Angles" for joint in angles for side in "LR"),
        "LKneeForce",
    ]
    data = np.zeros((4, len(labels), 200))
    for joint, column in joint_map.joints.items():
        point, axis = column.column.split(".")
        data["xyz".index(axis), labels.index(point)] = column.sign * walk()[joint]
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [100]
    file["parameters"]["POINT"]["LABELS"]["value"] = labels
    file["data"]["points"] = data
    file["data"]["meta_points"]["residuals"] = np.zeros((1, len(labels), 200))
    file.write(str(tmp_path / "a.c3d"))
    recording = read("van_criekinge2023", "SUBJ1 (0).c3d", (tmp_path / "a.c3d").read_bytes())
    check(recording, SUBTALAR)
    assert recording.joint_map == "plug_in_gait.yaml"
    assert not recording.pelvis[:, :3].any()


@pytest.mark.parametrize("absent", [ARMS, ARMS + SUBTALAR])
def test_camargo2021(absent):
    columns = without(*absent)
    columns = {"Header": columns.pop("time") + 12.5, **columns}
    table = np.stack(list(columns.values()), axis=1)
    lines = [",".join(columns), *(",".join(f"{v:.8f}" for v in row) for row in table)]
    recording = read("camargo2021", "walk.csv", "\n".join(lines) + "\n")
    check(recording, absent)
    assert (recording.units, recording.joint_map) == ("degrees", "camargo2021.yaml")
    assert recording.time_s[0] == pytest.approx(12.5)


def test_gaitex():
    """Neck and arms have columns; arms without a sensor do not move."""
    extra = [
        f"{k}_{s}" for k in ("knee_add", "knee_rot", "elbow_add", "elbow_rot", "wrist_rot") for s in "rl"
    ]
    neck = {k: 3 * np.sin(walk()["time"]) for k in NECK}
    truth = walk() | neck | {k: np.zeros(200) for k in ARMS}
    recording = read("gaitex", "ik_a.mot", mot(truth | {k: np.zeros(200) for k in extra}))
    check(recording, ARMS, truth)


@pytest.mark.parametrize("name", ["fukuchi2018", "schreiber2019", "cmu"])
def test_inverse_kinematics(name):
    absent = ARMS + SPINE if name == "fukuchi2018" else ()
    check(read(name, "walk.mot", mot(without(*absent))), absent)


@pytest.mark.parametrize("name", ["care_pd", "amass"])
def test_smpl_movements_in_the_model_bsm(name):
    """The spine's two joints add up, knees flex to positive angles, and shoulders have names of their own."""
    columns = without(*ARMS, *SPINE)
    for k in ("knee_angle_r", "knee_angle_l"):
        columns[k] = -columns[k]
    for ours, theirs in {"extension": "extension", "bending": "bending", "rotation": "twist"}.items():
        columns[f"lumbar_{theirs}"] = 0.6 * walk()[f"lumbar_{ours}"]
        columns[f"thorax_{theirs}"] = 0.4 * walk()[f"lumbar_{ours}"]
        columns[f"head_{theirs}"] = 4 * np.sin(walk()["time"])
    for side in "rl":
        columns[f"elbow_flexion_{side}"] = walk()[f"elbow_flex_{side}"]
        for k in ("scapula_abduction", "scapula_elevation", "scapula_upward_rot", "wrist_flexion"):
            columns[f"{k}_{side}"] = np.zeros(200)
        columns |= {f"shoulder_{side}_{axis}": np.full(200, 7.0) for axis in "xyz"}
    header = "Coordinates\nversion=1\nnRows={rows}\nnColumns={columns}\ninDegrees=no\n\nendheader\n"
    recording = read(name, "01_01_poses_ik.mot", mot(in_radians(columns), header))
    check(recording, SHOULDERS, walk() | dict.fromkeys(NECK, 4 * np.sin(walk()["time"])))
    assert (recording.knee_flexion, recording.joint_map) == ("positive", "bsm.yaml")


def test_maps_of_collections_are_used_by_some_settings():
    """And only by them: the folder of maps for everyone does not contain them."""
    used = {m.name for path in COHORTS.values() for m in load(CohortSettings, path).readers.joint_map}
    own = {path.name for path in (CONFIGS / "joint_maps/collections").glob("*.yaml")}
    assert own <= used
    assert own.isdisjoint(m.name for m in load_maps("configs/joint_maps"))
