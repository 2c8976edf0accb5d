"""Which seconds and which joints carry an answer: what happens to it without them.

Seconds are left out of the movement's tokens, part by part and many random parts at a time; a part weighs what a
linear model of all these answers gives it (as in LIME, Ribeiro et al., KDD 2016), since what parts do together is
not what each does alone. A joint is held at its mean over the movement, which goes through the motion tokenizer
again; the change of the answer is what it weighs. Where an answer is also about the mirror image, the same is left
out of both. `evaluation.audit.explanations` holds both against parts drawn at
random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from biomechgpt.answering.answer import Answer
from biomechgpt.answering.answerer import Answerer
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.prompts.encoding import SHORTEST, Mirrored, Movement, Question, as_it_is
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

WINDOWS = 40
"""Parts of a movement, which are left out."""
TOGETHER = 80
"""How many times a random tenth of the parts is left out together."""
AT_ONCE = 16


@dataclass(frozen=True)
class Explanation:
    """Of one answer. of: what is explained, a label's probability or the mean of a number's distribution.
    seconds: (begin, end, weight) of each part of the movement; joints: {joint: weight}. A weight is how much less
    `of` is without the part: above 0 it speaks for the label, or makes the number larger."""

    of: float
    seconds: list[tuple[float, float, float]]
    joints: dict[str, float]


def strength(answer: Answer, first: Answer) -> float:
    """How strongly an answer says what `first` says: its label's probability, or its own number."""
    if answer.mean is not None:
        return answer.mean
    return answer.probabilities[answer.labels.index(first.labels[0])]


def windows(tokens: int) -> list[np.ndarray]:
    """Numbers of the tokens of each part of a movement."""
    return [part for part in np.array_split(np.arange(tokens), min(WINDOWS, tokens)) if len(part)]


def without_tokens(movement: Movement, left_out: np.ndarray) -> Movement:
    """A movement, with its mirror image, without some tokens; of a very short one enough stay to be read."""
    if isinstance(movement, Mirrored):
        return Mirrored(*(_without(tokens, left_out) for tokens in (movement.tokens, movement.image)))
    return _without(movement, left_out)


def _without(tokens: Sequence[int], left_out: np.ndarray) -> list[int]:
    kept = np.delete(np.asarray(tokens), left_out)
    return kept.tolist() if len(kept) else list(tokens)[:SHORTEST]


def whole(answerer: Answerer, movement: Movement) -> tuple[Movement, list[np.ndarray]]:
    """As much of a movement as the answerer reads, and its `windows`."""
    (tokens,) = as_it_is(movement)
    read = without_tokens(movement, np.arange(answerer.longest_movement, len(tokens)))
    return read, windows(min(len(tokens), answerer.longest_movement))


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
    asked: Sequence[tuple[str, Question]],
) -> list[Explanation]:
    """An explanation of the answer to each (task, question), tasks that are `annotated`, all about one movement.

    angles_rad: (T, 34) at the tokenizer's rate; joint_mask: (34,), True where a joint was recorded.
    """
    joints = np.flatnonzero(joint_mask & tokenizer.seen).tolist()
    movements = [angles_rad, *(without_joints(angles_rad, [j]) for j in joints)]
    as_recorded, *held = answerer.read(tokenizer, movements, [joint_mask] * len(movements))
    read, parts = whole(answerer, as_recorded)
    out = _left_out(len(parts))
    left = [without_tokens(read, np.concatenate([parts[i] for i in np.flatnonzero(row)])) for row in out]
    answers = weigh_all(answerer, [read, *left, *held], asked)
    step_s = 1 / tokenizer.tokens_per_s
    explained = []
    for number in range(len(asked)):
        first = answers[0][number]
        now = strength(first, first)
        less = np.array([now - strength(row[number], first) for row in answers[1:]])
        weight = Ridge(alpha=1.0, fit_intercept=False).fit(out, less[: len(out)]).coef_
        seconds = [
            (round(float(part[0]) * step_s, 3), round(float(part[-1] + 1) * step_s, 3), float(w))
            for part, w in zip(parts, weight, strict=True)
        ]
        by_joint = dict(zip([NAMES[j] for j in joints], less[len(out) :].tolist(), strict=True))
        explained.append(Explanation(now, seconds, by_joint))
    return explained


def _left_out(parts: int) -> np.ndarray:
    """(M, parts) bool: each part alone, and random tenths of them; the same ones every time."""
    rng, tenth = np.random.default_rng(0), tenth_of(parts)
    together = np.zeros((TOGETHER, parts), dtype=bool)
    for row in together:
        row[rng.choice(parts, tenth, replace=False)] = True
    return np.concatenate([np.eye(parts, dtype=bool), together]) if tenth > 1 else np.eye(parts, dtype=bool)


def tenth_of(parts: int) -> int:
    """How many parts are a tenth of them, at least one."""
    return max(1, round(parts / 10))


def weigh_all(
    answerer: Answerer, movements: Sequence[Movement], asked: Sequence[tuple[str, Question]]
) -> list[list[Answer]]:
    """The same questions about each movement, a batch at a time, numbers with their means."""
    found: list[list[Answer]] = []
    for at in range(0, len(movements), AT_ONCE):
        some = movements[at : at + AT_ONCE]
        flat = answerer.weigh(
            [(movement, task, words) for movement in some for task, words in asked], whole=True
        )
        found += [flat[i : i + len(asked)] for i in range(0, len(flat), len(asked))]
    return found
