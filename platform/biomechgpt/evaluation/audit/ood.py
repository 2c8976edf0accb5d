"""How well movements that differ from the training data are detected, and how many are refused.

Held-out movements are corrupted. Three scores are compared: the log-likelihood of the tokens under the language
model, the tokenizer's reconstruction error, and the larger of both in ranks of the held-out movements.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from biomechgpt.answering.answerer import Answerer
from biomechgpt.evaluation.audit.held_out import Movement
from biomechgpt.motion.skeleton import HIGH_RAD, INDEX, LOW_RAD, N_JOINTS
from biomechgpt.prompts.encoding import Query
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

LEG_JOINTS = (
    "hip_flexion",
    "hip_adduction",
    "hip_rotation",
    "knee_angle",
    "ankle_angle",
    "subtalar_angle",
    "mtp_angle",
)


def swap_legs(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The right leg's angles on the left and the reverse; the arms as they were."""
    order = np.arange(N_JOINTS)
    for joint in LEG_JOINTS:
        right, left = INDEX[f"{joint}_r"], INDEX[f"{joint}_l"]
        order[right], order[left] = left, right
    return angles[:, order]


def upside_down(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every angle with its sign changed."""
    return -angles


def on_all_fours(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The trunk bent forward by 80 degrees, the arms moving as the opposite hips."""
    changed = angles.copy()
    changed[:, INDEX["lumbar_extension"]] -= np.radians(80)
    for side, opposite in (("r", "l"), ("l", "r")):
        changed[:, INDEX[f"arm_flex_{side}"]] = np.radians(90) + angles[:, INDEX[f"hip_flexion_{opposite}"]]
    return changed


def noise(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random angle of the joint's range in every frame."""
    return rng.uniform(LOW_RAD, HIGH_RAD, angles.shape).astype(np.float32)


def shuffle(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The movement's half seconds (at 30 Hz) in random order."""
    pieces = np.array_split(angles, max(len(angles) // 15, 1))
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "swapped legs": swap_legs,
    "upside down": upside_down,
    "on all fours": on_all_fours,
    "noise": noise,
    "shuffled": shuffle,
}


def audit_ood(
    answerer: Answerer, tokenizer: MotionTokenizer, movements: list[Movement], seed: int
) -> dict[str, Any]:
    """held_out: {refused}. Each corruption: AUROC against held-out movements by log_likelihood, reconstruction and
    both, and refused, the share that the model refuses."""
    rng = np.random.default_rng(seed)
    originals = [movement.angles_rad for movement in movements]
    masks = [movement.joint_mask for movement in movements]
    held_out = _measure(answerer, tokenizer, originals, masks)
    held_out_ranks = np.maximum(*(_ranks(values, values) for values in held_out))
    result: dict[str, Any] = {"held_out": {"refused": _refused(answerer, held_out)}}
    is_corrupted = np.repeat([0, 1], len(movements))
    for name, corrupt in CORRUPTIONS.items():
        angles = [corrupt(original, rng).astype(np.float32) for original in originals]
        corrupted = _measure(answerer, tokenizer, angles, masks)
        ranks = np.maximum(*(_ranks(h, c) for h, c in zip(held_out, corrupted, strict=True)))
        scores = {
            "log_likelihood": np.concatenate([held_out[0], corrupted[0]]),
            "reconstruction": np.concatenate([held_out[1], corrupted[1]]),
            "both": np.concatenate([held_out_ranks, ranks]),
        }
        result[name] = {
            score: round(float(roc_auc_score(is_corrupted, values)), 3) for score, values in scores.items()
        } | {"refused": _refused(answerer, corrupted)}
    return result


def _ranks(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The share of the reference values that are below each value."""
    return np.searchsorted(np.sort(reference), values) / len(reference)


def _measure(
    answerer: Answerer, tokenizer: MotionTokenizer, angles: list[np.ndarray], masks: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood of each movement, and the tokenizer's RMSE in degrees."""
    motions = answerer.tokenize(tokenizer, angles, masks)
    rmse = answerer.reconstruction_errors(tokenizer, angles, masks, motions)
    # The likelihood of a movement does not depend on the question: any task will do.
    task = next(name for name, task in answerer.tasks.items() if isinstance(task, PredictionTask))
    question = answerer.tasks[task].templates[0]
    unlikely: list[float] = []
    for first in range(0, len(motions), 8):
        answers = answerer.score_candidates(
            [Query([motion], "single", task, question) for motion in motions[first : first + 8]]
        )
        unlikely += [-float(answer.log_likelihood or 0) for answer in answers]
    return np.array(unlikely), np.array(rmse)


def _refused(answerer: Answerer, measured: tuple[np.ndarray, np.ndarray]) -> float:
    refused = [answerer.calibration.is_ood(-unlikely, rmse) for unlikely, rmse in zip(*measured, strict=True)]
    return round(float(np.mean(refused)), 3)
