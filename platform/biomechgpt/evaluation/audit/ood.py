"""How well movements unlike those that a model learned from are told from held-out ones, and how many are refused.

    python -m biomechgpt.evaluation.audit.ood [--bundle URI] [--trials 100]

Held-out participants' movements are spoilt: `swapped legs` (right leg's angles on the left and the other way, arms
as they were), `upside down` (every angle's sign), `on all fours` (trunk bent forward, arms as hips of the other
side), `noise` (any angle of a joint's range in any frame), `shuffled` (its half seconds in any order). Told apart
by how familiar the language model finds the tokens, by how far the tokenizer gives the movement back (RMSE), and by
both (the larger of the two, each in ranks of held-out movements). The last line is JSON: {kind: {measure: AUROC,
refused}}.
"""

import argparse
import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
from sklearn.metrics import roc_auc_score

from biomechgpt.answering.answerer import Answerer
from biomechgpt.cohort import Cohort
from biomechgpt.core import artifact, storage
from biomechgpt.language import network
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, N_JOINTS, NAMES
from biomechgpt.prompts.encoding import as_it_is
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer, rmse_deg

Movement = np.ndarray
LEGS = (
    "hip_flexion",
    "hip_adduction",
    "hip_rotation",
    "knee_angle",
    "ankle_angle",
    "subtalar_angle",
    "mtp_angle",
)


def swapped(angles: Movement, rng: np.random.Generator) -> Movement:
    order = np.arange(N_JOINTS)
    for joint in LEGS:
        right, left = INDEX[f"{joint}_r"], INDEX[f"{joint}_l"]
        order[right], order[left] = left, right
    return angles[:, order]


def on_all_fours(angles: Movement, rng: np.random.Generator) -> Movement:
    made = angles.copy()
    made[:, INDEX["lumbar_extension"]] -= np.radians(80)
    for side, other in (("r", "l"), ("l", "r")):
        made[:, INDEX[f"arm_flex_{side}"]] = np.radians(90) + angles[:, INDEX[f"hip_flexion_{other}"]]
    return made


def noise(angles: Movement, rng: np.random.Generator) -> Movement:
    return rng.uniform(LOW_RAD, HIGH_RAD, angles.shape).astype(np.float32)


def shuffled(angles: Movement, rng: np.random.Generator) -> Movement:
    pieces = np.array_split(angles, max(len(angles) // 15, 1))
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


KINDS: dict[str, Any] = {
    "swapped legs": swapped,
    "upside down": lambda angles, rng: -angles,
    "on all fours": on_all_fours,
    "noise": noise,
    "shuffled": shuffled,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", help="URI of a model artifact; by default the demo's")
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    network.quiet()
    uri = options.bundle or storage.read_json("results/demo/metrics.json")["model"]["uri"]
    bundle = artifact.load(uri, "model")
    answerer = Answerer.load(bundle.uri)
    tokenizer = MotionTokenizer.load(bundle.path("motion_tokenizer"))
    usual = movements(bundle.input("tokens").input("cohort"), options.trials)
    rng = np.random.default_rng(0)
    known = measured(answerer, tokenizer, usual)
    result: dict[str, Any] = {"usual": {"refused": refused(answerer, known)}}
    for name, spoil in KINDS.items():
        found = measured(answerer, tokenizer, [spoil(angles, rng).astype(np.float32) for angles in usual])
        truth = np.repeat([0, 1], [len(usual), len(usual)])
        ranks = [np.searchsorted(np.sort(k), f) / len(k) for k, f in zip(known, found, strict=True)]
        mine = [np.searchsorted(np.sort(k), k) / len(k) for k in known]
        scores = {
            "likelihood": np.concatenate([known[0], found[0]]),
            "tokenizer": np.concatenate([known[1], found[1]]),
            "both": np.concatenate([np.maximum(*mine), np.maximum(*ranks)]),
        }
        aurocs = {
            measure: round(float(roc_auc_score(truth, values)), 3) for measure, values in scores.items()
        }
        result[name] = aurocs | {"refused": refused(answerer, found)}
        print(f"{name:14}{result[name]}", flush=True)
    print(json.dumps(result))


def movements(cohort: artifact.Artifact, most: int) -> list[Movement]:
    """Angles of held-out trials."""
    table = Cohort(cohort).table(["trial", "split", "angles_rad"])
    table = table.filter(pc.field("split") == "test").sort_by("trial")
    some = table.take(list(range(0, len(table), max(len(table) // most, 1)))[:most])
    return [row.values.to_numpy().reshape(-1, len(NAMES)) for row in some["angles_rad"]]


def measured(
    answerer: Answerer, tokenizer: MotionTokenizer, some: list[Movement]
) -> tuple[np.ndarray, np.ndarray]:
    """How unfamiliar each is to the language model, and its tokenizer's RMSE in degrees."""
    motions = answerer.read(tokenizer, some, [np.ones(len(NAMES), bool)] * len(some))
    given = tokenizer.decode([np.asarray(as_it_is(motion)[0]) for motion in motions])
    seen = tokenizer.seen
    rmse = [rmse_deg(a, b, seen) for a, b in zip(some, given, strict=True)]
    task = next(name for name, task in answerer.tasks.items() if isinstance(task, PredictionTask))
    question = answerer.tasks[task].templates[0]
    unfamiliar = []
    for at in range(0, len(motions), 8):
        answers = answerer.weigh([(motion, task, question) for motion in motions[at : at + 8]])
        unfamiliar += [-float(answer.log_likelihood or 0) for answer in answers]
    return np.array(unfamiliar), np.array(rmse)


def refused(answerer: Answerer, found: tuple[np.ndarray, np.ndarray]) -> float:
    strange = [answerer.calibration.is_ood(-unlikely, lost) for unlikely, lost in zip(*found, strict=True)]
    return round(float(np.mean(strange)), 3)


if __name__ == "__main__":
    main()
