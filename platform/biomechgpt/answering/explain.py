"""Which seconds and which joints an answer rests on, measured by what happens to it without them.

- Seconds: windows of the movement's tokens are left out, one at a time and many random ones together. A linear
  model of all these answers gives each window its weight (as in LIME, Ribeiro et al., KDD 2016), because windows
  together may change an answer that none of them changes alone.
- Joints: each joint is held at its mean over the movement, which is tokenized again. The change of the answer is
  the joint's weight.
Where an answer is averaged over the mirror image, the same is left out of both. `evaluation.audit.explanations`
compares explanations with random deletions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from biomechgpt.answering.answer import Answer
from biomechgpt.answering.answerer import Answerer
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.prompts.encoding import MIN_MOTION_TOKENS, MotionTokens, Query
from biomechgpt.tokenizer.layout import TokenLayout
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

WINDOWS = 40
"""Windows that a movement is divided into."""
RANDOM_DELETIONS = 80
"""How many times a random tenth of the windows is left out together."""
BATCH_SIZE = 16
"""Movements that are scored at the same time."""


@dataclass(frozen=True)
class Explanation:
    """What one answer rests on.

    A weight is how much less the explained value is without the window or joint. Above 0, it speaks for the label
    or makes the number larger.
    explained_value: probability of the label, or mean of the number's distribution.
    seconds: (begin, end, weight) of each window of the movement.
    joints: {joint: weight}.
    """

    explained_value: float
    seconds: list[tuple[float, float, float]]
    joints: dict[str, float]


def answer_strength(answer: Answer, original: Answer) -> float:
    """How strongly an answer agrees with `original`: the probability of its label, or the answer's own number."""
    if answer.mean is not None:
        return answer.mean
    return answer.probabilities[answer.labels.index(original.labels[0])]


def windows(n_tokens: int, n_posture: int = 0, per_step: int = 1) -> list[np.ndarray]:
    """Indices of the tokens in each window of a movement: whole steps of `per_step` motion tokens.

    Posture tokens are in none: they have no time.
    """
    n_steps = max(n_tokens - n_posture, 0) // per_step
    steps = n_posture + np.arange(n_steps * per_step).reshape(n_steps, per_step)
    return [
        window.flatten() for window in np.array_split(steps, max(min(WINDOWS, n_steps), 1)) if len(window)
    ]


def without_tokens(motion: MotionTokens, left_out: np.ndarray) -> MotionTokens:
    """A movement without the tokens at these indices, and its views likewise. Some tokens always stay."""
    return MotionTokens(_without(motion.tokens, left_out), tuple(_without(v, left_out) for v in motion.views))


def _without(tokens: Sequence[int], left_out: np.ndarray) -> list[int]:
    # A shifted view may be a step shorter.
    kept = np.delete(np.asarray(tokens), left_out[left_out < len(tokens)])
    return kept.tolist() if len(kept) else list(tokens)[:MIN_MOTION_TOKENS]


def readable_part(
    answerer: Answerer, motion: MotionTokens, layout: TokenLayout
) -> tuple[MotionTokens, list[np.ndarray]]:
    """As much of a movement as the answerer reads, and its `windows`."""
    n_tokens, longest = len(motion.tokens), answerer.longest_movement(layout.n_posture)
    read = without_tokens(motion, np.arange(longest, n_tokens))
    return read, windows(min(n_tokens, longest), layout.n_posture, len(layout.sizes))


def without_joints(angles_rad: np.ndarray, joints: Sequence[int]) -> np.ndarray:
    """Angles (T, 34) with these joints held at their mean."""
    held = angles_rad.copy()
    held[:, list(joints)] = angles_rad[:, list(joints)].mean(axis=0)
    return held


def explain(
    answerer: Answerer,
    tokenizer: MotionTokenizer,
    angles_rad: np.ndarray,
    joint_mask: np.ndarray,
    questions: Sequence[tuple[str, str]],
) -> list[Explanation]:
    """An explanation of the answer to each question, all about one movement.

    angles_rad: (T, 34) at the tokenizer's frame rate.
    joint_mask: (34,) bool, True where a joint was recorded.
    questions: (task, question); tasks with answers to choose from.
    """
    joints = np.flatnonzero(joint_mask & tokenizer.seen).tolist()
    movements = [angles_rad, *(without_joints(angles_rad, [joint]) for joint in joints)]
    original, *without_joint = answerer.tokenize(tokenizer, movements, [joint_mask] * len(movements))
    motion, motion_windows = readable_part(answerer, original, tokenizer.layout)
    deletions = _deletions(len(motion_windows))
    without_windows = [
        without_tokens(motion, np.concatenate([motion_windows[i] for i in np.flatnonzero(deleted)]))
        for deleted in deletions
    ]
    answers = score_all(answerer, [motion, *without_windows, *without_joint], questions)
    step_s, n_posture = 1 / tokenizer.tokens_per_s, tokenizer.n_posture
    explanations = []
    for number in range(len(questions)):
        answer = answers[0][number]
        strength = answer_strength(answer, answer)
        decrease = np.array([strength - answer_strength(row[number], answer) for row in answers[1:]])
        # The decreases are of the deletions first, then of the joints.
        regression = Ridge(alpha=1.0, fit_intercept=False).fit(deletions, decrease[: len(deletions)])
        seconds = [
            (
                round(float(window[0] - n_posture) * step_s, 3),
                round(float(window[-1] + 1 - n_posture) * step_s, 3),
                float(weight),
            )
            for window, weight in zip(motion_windows, regression.coef_, strict=True)
        ]
        names = [NAMES[joint] for joint in joints]
        by_joint = dict(zip(names, decrease[len(deletions) :].tolist(), strict=True))
        explanations.append(Explanation(strength, seconds, by_joint))
    return explanations


def _deletions(n_windows: int) -> np.ndarray:
    """(M, n_windows) bool: each window alone, then random tenths of them; the same ones every time."""
    rng, count = np.random.default_rng(0), one_tenth(n_windows)
    random = np.zeros((RANDOM_DELETIONS, n_windows), dtype=bool)
    for row in random:
        row[rng.choice(n_windows, count, replace=False)] = True
    alone = np.eye(n_windows, dtype=bool)
    return np.concatenate([alone, random]) if count > 1 else alone


def one_tenth(count: int) -> int:
    """A tenth of a count, at least 1."""
    return max(1, round(count / 10))


def score_all(
    answerer: Answerer, motions: Sequence[MotionTokens], questions: Sequence[tuple[str, str]]
) -> list[list[Answer]]:
    """The answers to the same questions about each movement, numbers with their means; a batch at a time."""
    answers: list[list[Answer]] = []
    for begin in range(0, len(motions), BATCH_SIZE):
        queries = [
            Query([motion], "single", task, question)
            for motion in motions[begin : begin + BATCH_SIZE]
            for task, question in questions
        ]
        flat = answerer.score_candidates(queries, full_distribution=True)
        answers += [flat[i : i + len(questions)] for i in range(0, len(flat), len(questions))]
    return answers
