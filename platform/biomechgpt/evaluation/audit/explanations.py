"""Whether explanations point at what an answer rests on: a deletion test.

The tenth of the seconds, or of the joints, with the largest weights is removed from a held-out movement, and as
much at random. The answer should move further in the first case: a label's probability, or a number's mean.
"""

from typing import Any

import numpy as np

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.explain import (
    answer_strength,
    explain,
    one_tenth,
    readable_part,
    score_all,
    without_joints,
    without_tokens,
)
from biomechgpt.evaluation.audit.held_out import Movement
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

RANDOM_DELETIONS = 5
"""Random deletions for each explained one."""

Questions = dict[str, list[tuple[str, str]]]
"""{trial: [(task, question)]}."""


def audit_explanations(
    answerer: Answerer, tokenizer: MotionTokenizer, movements: list[Movement], questions: Questions, seed: int
) -> dict[str, Any]:
    """The deletion test of each task.

    tasks: {task: {"seconds" and "joints": {explained, random, ratio, answers}}}. explained, random: mean change of
        the answer without the explained or a random tenth. ratio: their quotient. answers: their number.
    ratios: the same quotient over all tasks with labels, and over all tasks with numbers.
    """
    rng = np.random.default_rng(seed)
    # {(task, what is deleted): [(moved by the explained tenth, moved by a random tenth)]}
    moves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for movement in movements:
        for task, question in questions.get(movement.trial, []):
            for deleted, pair in _delete(answerer, tokenizer, movement, task, question, rng).items():
                moves.setdefault((task, deleted), []).append(pair)
    tasks: dict[str, Any] = {}
    pooled: dict[str, list[np.ndarray]] = {}
    for (task, deleted), rows in moves.items():
        pairs = np.array(rows)
        explained, random = pairs.mean(axis=0)
        tasks.setdefault(task, {})[deleted] = {
            "explained": round(float(explained), 4),
            "random": round(float(random), 4),
            "ratio": _ratio(pairs),
            "answers": len(pairs),
        }
        has_labels = answerer.tasks[task].answer_kind == "classification"
        # Numbers have different units, so they are pooled as multiples of what a random deletion moves.
        pooled.setdefault(f"{deleted}_{'labels' if has_labels else 'numbers'}", []).append(
            pairs if has_labels else pairs / max(random, 1e-9)
        )
    ratios = {name: _ratio(np.concatenate(pairs_of_tasks)) for name, pairs_of_tasks in pooled.items()}
    return {"tasks": tasks, "ratios": ratios}


def _ratio(pairs: np.ndarray) -> float | None:
    """Mean of the first column over mean of the second. None if random deletions change nothing."""
    explained, random = pairs.mean(axis=0)
    return round(float(explained / random), 2) if random > 1e-9 else None


def _delete(
    answerer: Answerer,
    tokenizer: MotionTokenizer,
    movement: Movement,
    task: str,
    question: str,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """{"seconds", "joints": (moved by deleting the explained tenth, mean moved by random tenths)}."""
    angles, mask = movement.angles_rad, movement.joint_mask
    (explanation,) = explain(answerer, tokenizer, angles, mask, [(task, question)])
    (whole,) = answerer.tokenize(tokenizer, [angles], [mask])
    motion, windows = readable_part(answerer, whole, tokenizer.layout)
    joints = [INDEX[name] for name in explanation.joints]
    is_number = answerer.tasks[task].answer_kind == "regression"

    def choices(weights: list[float]) -> list[np.ndarray]:
        """What to delete: the explained tenth first, then random tenths, as indices into `weights`."""
        count = one_tenth(len(weights))
        drawn = [rng.choice(len(weights), count, replace=False) for _ in range(RANDOM_DELETIONS)]
        return [_top(weights, count, is_number), *drawn]

    cut_windows = choices([weight for *_, weight in explanation.seconds])
    cut_joints = choices(list(explanation.joints.values()))
    changed_motions = [
        without_tokens(motion, np.concatenate([windows[i] for i in indices])) for indices in cut_windows
    ]
    changed_angles = [without_joints(angles, [joints[i] for i in indices]) for indices in cut_joints]
    changed_motions += answerer.tokenize(tokenizer, changed_angles, [mask] * len(changed_angles))
    rows = score_all(answerer, [motion, *changed_motions], [(task, question)])
    original, *changed = [row[0] for row in rows]
    before = answer_strength(original, original)
    moved = [abs(before - answer_strength(answer, original)) for answer in changed]
    size = 1 + RANDOM_DELETIONS  # deletions of seconds come first, then those of joints
    return {
        "seconds": (moved[0], float(np.mean(moved[1:size]))),
        "joints": (moved[size], float(np.mean(moved[size + 1 :]))),
    }


def _top(weights: list[float], count: int, is_number: bool) -> np.ndarray:
    """The `count` largest weights. For a number, the largest or the smallest, whichever move it more."""
    order = np.argsort(weights)
    up, down = order[::-1][:count], order[:count]
    if is_number and np.take(weights, down).sum() < -np.take(weights, up).sum():
        return down
    return up
