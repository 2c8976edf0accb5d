"""How far a model of simulated people carries over to real recordings.

    python benchmarks/real.py --recordings FOLDER [--model URI] [--tokenizer URI] [--hold-out]

FOLDER has annotations.csv with the columns path, participant, activity and source. Its people are taken to be
healthy. Prints a line for each recording, and one line of JSON at the end, with counts, since recordings are few:

tokenizer: {walks, others}: recordings, mean RMSE in degrees over the recorded and tracked joints, and the share
    within 5 degrees (walks) or 9 (others).
activity: shares of walks named walking, of other movements called walking, and of runs, squats, jumps and sit to
    stands named right. The most probable label counts, also where the recording is out of distribution.
numbers: shares of walks whose cadence is within 6 % and whose speed is within 12 % of the measured value.
called_impaired: share of people who are called impaired in most of their recordings; `told`: in most of those that
    are not refused as out of distribution, of the people who have any.
refused: share of recordings that are out of distribution.
held_out: with --hold-out, errors of tokenizers on sources that they were not trained on: by source, over all, and
    `without` real training data. For each source a tokenizer is trained, on fewer simulated people than the demo's
    and on the recordings of all other sources. This takes minutes each.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.library import find_model, read
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError, load
from biomechgpt.motion import gait
from biomechgpt.motion.skeleton import TRACKED
from biomechgpt.prompts.encoding import Query
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.reconstruction import squared_errors
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.train import make_tokenizer

WITHIN_DEG = {True: 5.0, False: 9.0}
"""Error that the tokenizer should not exceed, in walks and in other movements."""
NAMED = ("running", "squat", "jump", "sit to stand")


@dataclass
class Recorded:
    """One recording.

    row: its row of annotations.csv.
    angles_rad: (T, 34) at the tokenizer's rate.
    pelvis: (T, 7).
    joints: (34,) bool, those that were recorded.
    """

    row: dict[str, str]
    angles_rad: np.ndarray
    pelvis: np.ndarray
    joints: np.ndarray

    @property
    def is_walk(self) -> bool:
        return "walk" in self.row["activity"]


def read_folder(folder: Path, rate_hz: float) -> list[Recorded]:
    """The recordings of annotations.csv that the readers take, at this frame rate."""
    found = []
    for row in pd.read_csv(folder / "annotations.csv").to_dict("records"):
        try:
            recording = read(str(folder / row["path"]), name=row["path"], rate_hz=rate_hz)
        except InputError as error:
            print(f"left out: {error}")
            continue
        found.append(Recorded(row, recording.angles_rad, recording.pelvis, recording.joint_mask))
    if not found:
        raise InputError(f"{folder}: expected recordings, found none that can be read")
    return found


def rmse_deg(tokenizer: MotionTokenizer, recordings: Sequence[Recorded]) -> np.ndarray:
    """(N,) error of each recording over its recorded and tracked joints."""
    movements = [r.angles_rad for r in recordings]
    tokens = tokenizer.encode(movements, [r.joints for r in recordings])
    errors = squared_errors(tokenizer, movements, tokens)
    return np.array(
        [
            np.degrees(np.sqrt(total[r.joints & TRACKED].mean() / len(r.angles_rad)))
            for total, r in zip(errors, recordings, strict=True)
        ]
    )


def share(values: Sequence[bool]) -> dict[str, float | int | None]:
    """The share of true values, None without any, and their number."""
    return {"share": round(float(np.mean(values)), 3) if len(values) else None, "of": len(values)}


def summarize_errors(recordings: Sequence[Recorded], errors: np.ndarray) -> dict[str, Any]:
    result = {}
    for name, walk in (("walks", True), ("others", False)):
        mine = errors[[r.is_walk == walk for r in recordings]]
        result[name] = {
            "recordings": len(mine),
            "rmse_deg": round(float(mine.mean()), 2) if len(mine) else None,
            "within": share((mine <= WITHIN_DEG[walk]).tolist()),
        }
    return result


def ask(
    answerer: Answerer, tokenizer: MotionTokenizer, recordings: Sequence[Recorded], task: str
) -> list[Any]:
    """The answer to a task about each recording."""
    question = answerer.tasks[task].templates[0]
    answers = []
    for first in range(0, len(recordings), 8):
        batch = recordings[first : first + 8]
        motions = answerer.analyse(tokenizer, [r.angles_rad for r in batch], [r.joints for r in batch])
        answers += answerer.score_candidates(
            [Query([motion], "single", task, question) for motion in motions]
        )
    return answers


def measure_answers(model: str, recordings: Sequence[Recorded]) -> dict[str, Any]:
    """How the model answers about the recordings."""
    answerer = Answerer.load(model)
    tokenizer = MotionTokenizer.load(ModelBundle(model).motion_tokenizer)
    walks = [r for r in recordings if r.is_walk]
    activity = ask(answerer, tokenizer, recordings, "activity")
    impaired = ask(answerer, tokenizer, recordings, "impaired")
    measured = [gait.measure(r.angles_rad, r.pelvis, tokenizer.frame_rate_hz) for r in walks]
    for r, found, healthy in zip(recordings, activity, impaired, strict=True):
        print(
            f"{r.row['path']}: {r.row['activity']} is {found.labels[0]} ({found.probabilities[0]:.2f}), impaired "
            f"{healthy.labels[0]} ({healthy.probabilities[0]:.2f}), {found.status}"
        )
    named_walking = ["walk" in a.labels[0] for a in activity]
    by_person: dict[str, list[bool]] = {}
    told: dict[str, list[bool]] = {}
    for r, healthy in zip(recordings, impaired, strict=True):
        by_person.setdefault(r.row["participant"], []).append(healthy.labels[0] == "yes")
        if healthy.status != "unlike":
            told.setdefault(r.row["participant"], []).append(healthy.labels[0] == "yes")
    numbers = {}
    for task, quantity, within in (
        ("cadence", "cadence_steps_min", 0.06),
        ("walking_speed", "speed_m_s", 0.12),
    ):
        true = np.array([getattr(m, quantity) for m in measured])
        answers = ask(answerer, tokenizer, walks, task)
        said = np.array([answerer.tasks[task].parse(answer.text) for answer in answers], dtype=float)
        known = np.isfinite(true)
        for r, number, truth in zip(walks, said, true, strict=True):
            print(f"{r.row['path']}: {task} {number:.2f}, measured {truth:.2f}")
        numbers[task] = share((abs(said[known] / true[known] - 1) <= within).tolist())
    return {
        "activity": {
            "walks_named_walking": share(
                [n for r, n in zip(recordings, named_walking, strict=True) if r.is_walk]
            ),
            "others_named_walking": share(
                [
                    n
                    for r, n in zip(recordings, named_walking, strict=True)
                    if r.row["activity"] in ("squat", "jump", "sit to stand")
                ]
            ),
            "named_right": share(
                [
                    a.labels[0] == r.row["activity"]
                    for r, a in zip(recordings, activity, strict=True)
                    if r.row["activity"] in NAMED
                ]
            ),
        },
        "numbers": numbers,
        "called_impaired": {
            **share([np.mean(votes) > 0.5 for votes in by_person.values()]),
            "told": share([np.mean(votes) > 0.5 for votes in told.values()]),
        },
        "refused": share([a.status == "unlike" for a in activity]),
    }


def hold_out(folder: Path, recordings: Sequence[Recorded]) -> dict[str, Any]:
    """For each source, the errors of a tokenizer that learned from simulated people and the other sources.

    `without`: of a tokenizer that learned from the same simulated people alone.
    """
    sources = sorted({r.row["source"] for r in recordings})
    table = pd.read_csv(folder / "annotations.csv")
    steps = ["--steps", "360"]
    mixed, simulated = (
        load(TokenizerSettings, "configs/tokenizer/demo.yaml", [*steps, "--recorded_share", share])
        for share in ("0.3", "0")
    )
    result: dict[str, Any] = {}
    errors, without = np.zeros(len(recordings)), np.zeros(len(recordings))
    with tempfile.TemporaryDirectory() as temporary:
        for source in sources:
            others = Path(temporary) / source
            shutil.copytree(folder, others, ignore=shutil.ignore_patterns("annotations.csv"))
            rest = table[table["source"] != source].assign(split="train")
            rest.to_csv(others / "annotations.csv", index=False)
            options = [
                *("--recordings", str(others), "--add_simulated", "true"),
                *("--readers.missing_joints", "neutral", "--simulator.scale", "0.4"),
            ]
            cohort = make_cohort(load(CohortSettings, "configs/cohort/demo.yaml", options), temporary)
            if not result:
                tokenizer = MotionTokenizer.load(make_tokenizer(cohort, simulated, temporary).uri)
                without = rmse_deg(tokenizer, recordings)
            tokenizer = MotionTokenizer.load(make_tokenizer(cohort, mixed, temporary).uri)
            mine = [k for k, r in enumerate(recordings) if r.row["source"] == source]
            errors[mine] = rmse_deg(tokenizer, [recordings[k] for k in mine])
            result[source] = summarize_errors([recordings[k] for k in mine], errors[mine])
            print(f"held out {source}: {json.dumps(result[source])}", flush=True)
    return {
        "sources": result,
        "all": summarize_errors(recordings, errors),
        "without": summarize_errors(recordings, without),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recordings", required=True, help="folder of real recordings with annotations.csv")
    parser.add_argument("--model", help="URI of a model artifact; the demo's by default")
    parser.add_argument("--tokenizer", help="URI of a tokenizer artifact, measured alone in place of a model")
    parser.add_argument("--hold-out", action="store_true", help="train tokenizers with each source held out")
    options = parser.parse_args()
    folder = Path(options.recordings)
    model = None if options.tokenizer else artifact.load(options.model or find_model("demo"), "model").uri
    tokenizer = MotionTokenizer.load(options.tokenizer or ModelBundle(model).motion_tokenizer)
    recordings = read_folder(folder, tokenizer.frame_rate_hz)
    errors = rmse_deg(tokenizer, recordings)
    for r, error in zip(recordings, errors, strict=True):
        print(f"{r.row['path']}: {r.row['activity']}, {error:.1f} degrees")
    result: dict[str, Any] = {
        "recordings": len(recordings),
        "tokenizer": summarize_errors(recordings, errors),
    }
    if model:
        result |= measure_answers(model, recordings)
    if options.hold_out:
        result["held_out"] = hold_out(folder, recordings)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
