"""Whether files that people have are read or named, and how long it takes.

    python benchmarks/recordings.py --cases FOLDER [--model URI] [--markers FILE --angles FILE]

FOLDER has a table in README.md (columns case, files and right) and a folder of files for each case. Prints how each
file ends, and one line of JSON at the end:

cases_right: share of the cases all of whose files end as the table says.
seconds_20_files: `biomechgpt answer` of 20 files on this machine, with loading; null without --model.
seconds_check_100: `biomechgpt check` of 100 files.
markers: inverse kinematics of markers (--markers, such as .trc) beside the angles that another program made of them
    (--angles, such as .mot): RMSE in degrees of each flexion of the legs, relative errors of cadence and speed, and
    the seconds of one core for each second recorded; null without both files.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from biomechgpt import simulator
from biomechgpt.core.settings import InputError
from biomechgpt.motion import gait
from biomechgpt.motion.skeleton import INDEX, NAMES
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings, opensim

RATE_HZ = 30.0
SHORTEST_S = 4.0
"""Files of the timings last at least this long."""
# The expected end of each file: READ, or a part of the message that refuses it.
READ = "read"
ENDS: dict[str, dict[str, tuple[str, ...]]] = {
    "time_in_ms": {"*": ("millisecond|at least 5 frames",)},
    "no_motion": {"*": ("no joint moves",)},
    "rra_position_errors": {"*": ("(?i)position ?errors|pErr",)},
    "locomujoco_v1_split_points": {"*": ("split_points|gap",)},
    "sports2d_labels_with_spaces": {"*": ("Right ankle.*",)},
    "pose2sim_filtered_without_labels": {"*": ("column names are missing",)},
    "rra_duplicate_last_time": {"*": (READ,)},
    "stale_nrows": {"*": (READ,)},
    "spreadsheet_mot": {"*": (READ,)},
    "opencap_isb_shoulder": {"*": (READ,)},
    "pig_suffix_V": {"*": (READ,)},
    "nexus_csv": {"*": (READ,)},
    "xsens": {"*.csv": (READ,), "*.mvnx": ("(?i)mvnx",)},
    "smpl_amass": {"*.npz": ("SMPL poses: .*no joint moves",), "*.npy": ("HumanML3D",)},
    "csv_shapes": {"*": (READ,)},
    "known_foreign_formats": {
        "*.trc": ("markers .*found no knee or no ankle",),
        "*.bvh": ("BVH file, found no thigh_r",),
        "*.tsv": ("found no knee or no ankle among L_HEEL",),
        "*.b3d": ("AddBiomechanics",),
        "*.mat": ("MATLAB",),
        "*.xlsx": ("Excel",),
        "*.zip": (READ,),
        "*.gz": (READ,),
        "*.sto": ("quaternion",),
        "*.pkl": ("pickle",),
    },
    "pose2sim_neck": {"*": (READ,)},
    "trailing_nul": {"*": (READ,)},
}
SHOULDERS = ("arm_flex_r", "arm_add_r", "arm_rot_r", "arm_flex_l", "arm_add_l", "arm_rot_l")
NEEDED: dict[str, tuple[str, ...]] = {"opencap_isb_shoulder": SHOULDERS, "pose2sim_neck": ("neck_extension",)}
"""Joints that a case's files must have once they are read."""


def cases_of(folder: Path) -> dict[str, list[Path]]:
    """{case: its files} as the table lists them. Raises InputError for a folder without the table."""
    table = folder / "README.md"
    if not table.exists():
        raise InputError(f"{folder}: expected README.md with a table of cases, found none")
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in table.read_text().splitlines()
    ]
    return {
        row[0]: [folder / row[0] / name for name in row[2].split()]
        for row in rows
        if len(row) == 4 and (folder / row[0]).is_dir()
    }


def ending(path: Path) -> tuple[str, frozenset[str]]:
    """`read`, or the format and the message that refuses a file; and the joints that were read."""
    kind = ""
    try:
        recording = readers.parse(path.name, path.read_bytes(), ReaderSettings())
        kind = f"{recording.format}: "
        prepare(path.name, recording, QualitySettings(), RATE_HZ)
    except InputError as error:
        # The file's name proves nothing.
        return kind + str(error).replace(path.name, "the file"), frozenset()
    names = np.array(NAMES)[recording.joint_mask]
    return READ, frozenset(names.tolist())


def is_right(case: str, path: Path) -> bool:
    """Whether a file ends as the table says."""
    found, joints = ending(path)
    patterns = next((v for k, v in ENDS.get(case, {}).items() if path.match(k)), ())
    right = any(
        found == READ if wanted == READ else found != READ and re.search(wanted, found) for wanted in patterns
    )
    right = right and (found != READ or set(NEEDED.get(case, ())) <= joints)
    print(f"{'right' if right else 'WRONG'}  {case}/{path.name}: {found[:200]}")
    return bool(right)


def write_walks(folder: Path, count: int) -> None:
    """`count` simulated recordings as .mot files, each of another person's folder."""
    written = 0
    for person in simulator.participants(simulator.SimulatorSettings(scale=0.2, seed=5)):
        for trial in islice(
            simulator.trials(simulator.SimulatorSettings(scale=0.2, seed=5), person, RATE_HZ), 2
        ):
            time_s = np.arange(len(trial.angles_rad)) / RATE_HZ
            if time_s[-1] < SHORTEST_S:
                continue
            path = folder / person.name / f"trial{written}.mot"
            path.parent.mkdir(exist_ok=True)
            path.write_text(opensim.write(time_s, trial.angles_rad, trial.pelvis))
            written += 1
            if written == count:
                return


def seconds_of(*arguments: str) -> float:
    """How long a command of the product takes, from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from biomechgpt.commands import main; main()", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - start, 1)


def errors_of_markers(markers: str, angles: str) -> dict[str, object]:
    """How far angles of inverse kinematics are from another program's, and how long they take."""
    begin = time.process_time()
    ours = readers.read(markers, ReaderSettings())
    seconds = time.process_time() - begin
    theirs = readers.read(angles, ReaderSettings())
    # Frames in which the person enters or leaves the cameras' view are left out.
    first = int(np.searchsorted(theirs.time_s, ours.time_s[0] - 1e-6))
    rows = slice(first, first + len(ours.time_s))
    error_deg = np.degrees(ours.angles_rad - theirs.angles_rad[rows])
    walks = [
        gait.measure(r.angles_rad[f], r.pelvis[f], r.rate_hz)
        for r, f in ((ours, slice(None)), (theirs, rows))
    ]

    def relative(name: str) -> float | None:
        a, b = (getattr(walk, name) for walk in walks)
        return None if a is None or not b else round(a / b - 1, 4)

    return {
        "rmse_deg": {
            f"{joint}_{side}": round(float(np.sqrt(np.mean(error_deg[:, INDEX[f"{joint}_{side}"]] ** 2))), 2)
            for joint in ("hip_flexion", "knee_angle", "ankle_angle")
            for side in "rl"
        },
        "cadence": relative("cadence_steps_min"),
        "speed": relative("speed_m_s"),
        "seconds_per_second": round(seconds / float(ours.time_s[-1] - ours.time_s[0]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", required=True, type=Path, help="folder with README.md and a folder for each case"
    )
    parser.add_argument("--model", help="URI of a model, to time `biomechgpt answer`")
    parser.add_argument("--markers", help="a recording of markers")
    parser.add_argument("--angles", help="joint angles that another program made of these markers")
    settings = parser.parse_args()
    if bool(settings.markers) != bool(settings.angles):
        parser.error("--markers and --angles: expected both files or none")
    cases = cases_of(settings.cases)
    right = [all([is_right(case, path) for path in files]) for case, files in cases.items()]
    with tempfile.TemporaryDirectory() as made:
        many, few = Path(made, "many"), Path(made, "few")
        for folder, count in ((many, 100), (few, 20)):
            folder.mkdir()
            write_walks(folder, count)
        result = {
            "cases_right": round(sum(right) / len(right), 3) if right else None,
            "seconds_20_files": settings.model
            and seconds_of("answer", str(few), "--model", settings.model, "--output", f"{made}/answers.csv"),
            "seconds_check_100": seconds_of("check", str(many)),
            "markers": errors_of_markers(settings.markers, settings.angles) if settings.markers else None,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
