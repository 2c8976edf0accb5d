"""How well movements that differ from the training data are detected, and how many are refused.

Held-out movements are corrupted or replaced. Four scores are compared: the distance to the most similar training
movements, the reconstruction error of the motion tokens, their log-likelihood under the language model, and the
largest of the three in ranks of the held-out movements.
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


def sines(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every joint on a sine of its own within its range."""
    time_s = np.arange(len(angles))[:, None] / 30
    amplitude = rng.uniform(0.05, 0.5, N_JOINTS) * (HIGH_RAD - LOW_RAD) / 2
    phase = 2 * np.pi * (rng.uniform(0.2, 3, N_JOINTS) * time_s + rng.random(N_JOINTS))
    return np.asarray(amplitude * np.sin(phase))


def sway(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean posture of the movement with a sway of 1 degree."""
    time_s = np.arange(len(angles))[:, None] / 30
    phase = 2 * np.pi * (rng.uniform(0.1, 0.5, N_JOINTS) * time_s + rng.random(N_JOINTS))
    return np.asarray(angles.mean(axis=0) + np.radians(1) * np.sin(phase))


def shaking(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The movement with a tremor of 6 Hz and 6 degrees in every joint."""
    time_s = np.arange(len(angles))[:, None] / 30
    return np.asarray(angles + np.radians(6) * np.sin(2 * np.pi * (6 * time_s + rng.random(N_JOINTS))))


def motionless(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every angle zero."""
    return np.zeros_like(angles)


CORRUPTIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "swapped legs": swap_legs,
    "upside down": upside_down,
    "on all fours": on_all_fours,
    "noise": noise,
    "shuffled": shuffle,
    "sines": sines,
    "sway": sway,
    "shaking": shaking,
    "motionless": motionless,
}


def audit_ood(
    answerer: Answerer, tokenizer: MotionTokenizer, movements: list[Movement], seed: int
) -> dict[str, Any]:
    """held_out: {refused}. Each corruption: AUROC against held-out movements by `distance`, `reconstruction`,
    `log_likelihood` and `largest` of the three, and `refused`, the share that the model refuses."""
    rng = np.random.default_rng(seed)
    originals = [movement.angles_rad for movement in movements]
    masks = [movement.joint_mask for movement in movements]
    held_out, refused = _measure(answerer, tokenizer, originals, masks)
    held_out_ranks = _largest_rank(held_out, held_out)
    result: dict[str, Any] = {"held_out": {"refused": refused}}
    is_corrupted = np.repeat([0, 1], len(movements))
    for name, corrupt in CORRUPTIONS.items():
        angles = [corrupt(original, rng).astype(np.float32) for original in originals]
        corrupted, refused = _measure(answerer, tokenizer, angles, masks)
        scores = {key: np.concatenate([held_out[key], corrupted[key]]) for key in held_out}
        scores["largest"] = np.concatenate([held_out_ranks, _largest_rank(held_out, corrupted)])
        result[name] = {
            key: round(float(roc_auc_score(is_corrupted, values)), 3) for key, values in scores.items()
        } | {"refused": refused}
    return result


def _largest_rank(reference: dict[str, np.ndarray], values: dict[str, np.ndarray]) -> np.ndarray:
    """For each movement, the largest share of the reference movements that a score is above."""
    ranks = [np.searchsorted(np.sort(reference[key]), values[key]) / len(reference[key]) for key in reference]
    return np.asarray(np.max(ranks, axis=0))


def _measure(
    answerer: Answerer, tokenizer: MotionTokenizer, angles: list[np.ndarray], masks: list[np.ndarray]
) -> tuple[dict[str, np.ndarray], float]:
    """{score: (n,)}, large for movements unlike the training data, and the share that the model refuses."""
    motions = answerer.analyse(tokenizer, angles, masks)
    # The check does not depend on the question: any task will do.
    task = next(name for name, task in answerer.tasks.items() if isinstance(task, PredictionTask))
    question = answerer.tasks[task].templates[0]
    answers = []
    for first in range(0, len(motions), 8):
        answers += answerer.score_candidates(
            [Query([motion], "single", task, question) for motion in motions[first : first + 8]]
        )
    statistics = [motion.statistics for motion in motions if motion.statistics is not None]
    scores = {
        "distance": np.array([known.distance or 0.0 for known in statistics]),
        "reconstruction": np.array([known.rmse_deg or 0.0 for known in statistics]),
        "log_likelihood": np.array([-float(answer.log_likelihood or 0) for answer in answers]),
    }
    return scores, round(float(np.mean([answer.unlike.unlike for answer in answers])), 3)
