"""A tokenizer on recordings it was not made for: as it is, adapted to them, and one made from them alone.

Everybody is held out once: by participant, in folds; one row is of the recordings that were learned from. Errors
are RMSE in degrees over the tracked joints. The last line is JSON.

python benchmarks/studies/adaptation.py --tokenizer URI --recordings FOLDER [--steps 300]
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import load, override, validate
from biomechgpt.motion.skeleton import TRACKED
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.reconstruction import LEGS, held_out, read_trials, squared_errors
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.train import make_tokenizer

ROWS = ("as it is", "adapted", "adapted, on those it adapted to", "made from these alone")


def squared(
    tokenizer: MotionTokenizer, cohort: Artifact, sums: dict[str, np.ndarray], split: str = "test"
) -> None:
    """Adds a split's trials' squared errors, (2, 34) of error and frames, to `sums`, by activity and in all."""
    movements, masks, labels = read_trials(cohort, split)
    errors = squared_errors(tokenizer, movements, tokenizer.encode(movements, masks)) * masks
    activities = labels.get("activity", [None] * len(movements))
    for movement, mask, error, activity in zip(movements, masks, errors, activities, strict=True):
        for name in ("all", activity or "not annotated"):
            sums.setdefault(name, np.zeros((2, len(mask))))
            sums[name] += [error, len(movement) * mask]


def degrees(sums: np.ndarray, joints: np.ndarray) -> float:
    there = joints & (sums[1] > 0)
    return round(float(np.degrees(np.sqrt(sums[0, there] / sums[1, there])).mean()), 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", help="URI of a tokenizer")
    parser.add_argument("--recordings", help="a folder, with its annotations.csv")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--root", default="results/artifacts")
    options = parser.parse_args()
    if not options.tokenizer or not options.recordings:
        print("nothing to measure: give --tokenizer and --recordings\n{}")
        return
    start = artifact.load(options.tokenizer, "tokenizer")
    settings = override(
        validate(TokenizerSettings, start.manifest["settings"], start.uri),
        {"steps": options.steps, "training.warmup_steps": 20},
        "adaptation",
    )
    recordings = load(CohortSettings, Path(__file__).parents[2] / "configs/cohort/recordings.yaml")
    sums: dict[str, dict[str, np.ndarray]] = {row: {} for row in ROWS}
    seconds, trials, before = [], 0, start.metrics["rmse_deg_tracked"]
    after = []
    for fold in range(options.folds):
        how: dict[str, Any] = {
            "recordings": options.recordings,
            "readers.missing_joints": "neutral",
            "splits.method": "kfold",
            "splits.folds": options.folds,
            "splits.fold": fold,
            "splits.validation": 0.0,
        }
        cohort = make_cohort(override(recordings, how, "adaptation"), options.root)
        trials = cohort.metrics["trials"]
        squared(MotionTokenizer.load(start.uri), cohort, sums["as it is"])
        began = time.time()
        adapted = MotionTokenizer.load(make_tokenizer(cohort, settings, options.root, start).uri)
        seconds.append(time.time() - began)
        squared(adapted, cohort, sums["adapted"])
        squared(adapted, cohort, sums[ROWS[2]], "train")
        after.append(held_out(adapted, start.input("cohort"))["rmse_deg_tracked"])
        alone = make_tokenizer(cohort, settings, options.root)
        squared(MotionTokenizer.load(alone.uri), cohort, sums["made from these alone"])
    names = list(sums[ROWS[0]])
    legs = TRACKED & LEGS
    table = [["tokenizer", "26 tracked", "legs", *names[1:]], ["---", *["---:"] * (len(names) + 1)]]
    for row in ROWS:
        by = [f"{degrees(sums[row][name], TRACKED)}" for name in names]
        table.append([row, by[0], f"{degrees(sums[row]['all'], legs)}", *by[1:]])
    text = "\n\n".join(
        [
            "## On recordings of people",
            f"`python {' '.join(sys.argv)}`, on {os.cpu_count()} cores. {trials} recordings; each participant "
            f"held out once in {options.folds} folds. Adapting took {np.mean(seconds):.0f} s a fold. On held-out "
            f"participants of the cohort it was made from ({start.provenance}) the tokenizer's error goes from "
            f"{before} to {np.mean(after):.2f} degrees by it.",
            "\n".join(f"| {' | '.join(line)} |" for line in table),
        ]
    )
    print(text)
    print(json.dumps({row: degrees(sums[row]["all"], TRACKED) for row in ROWS}))


if __name__ == "__main__":
    log_to_stdout()
    main()
