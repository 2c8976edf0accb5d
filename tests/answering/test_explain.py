"""Explanations point at what an answer was made to rest on, and at nothing else. The model here is a formula."""

from dataclasses import replace

import numpy as np
import pytest

from biomechgpt.answering.answer import Answer
from biomechgpt.answering.explain import explain, windows, without_joints, without_tokens
from biomechgpt.motion.skeleton import INDEX, NAMES, mirror
from biomechgpt.prompts.encoding import MotionTokens
from biomechgpt.tokenizer.layout import TokenLayout

KNEE = INDEX["knee_angle_r"]


class Tokenizer:
    """A token a frame: 1 where the right knee is more than 40 degrees from its zero."""

    seen = np.array([not name.startswith("pro_sup") for name in NAMES])
    tokens_per_s = 10.0
    n_posture = 0
    layout = TokenLayout(0, 0, (2,))

    def encode(self, movements, masks):
        assert len(masks) == len(movements)
        return [(np.abs(np.degrees(m[:, KNEE])) > 40).astype(int) for m in movements]


class Answerer:
    """Says "bent" the likelier, the more frames are bent; counts them as a number."""

    def longest_movement(self, n_posture):
        return 150

    def tokenize(self, tokenizer, movements, masks):
        return [MotionTokens(tokens.tolist()) for tokens in tokenizer.encode(movements, masks)]

    def score_candidates(self, queries, full_distribution):
        assert full_distribution  # numbers' means are wanted
        answers = []
        for query in queries:
            (tokens,) = query.tokens
            bent = float(np.mean(tokens))
            probability = {"bent": 0.3 + bent, "straight": 0.7 - bent}
            labels = sorted(probability, key=lambda label: -probability[label])
            p = [probability[label] for label in labels]
            by_task = {
                "label": Answer("x", labels=labels, probabilities=p),
                "number": Answer("x", mean=float(np.sum(tokens))),
            }
            answers.append(by_task[query.task])
        return answers


class OfBoth(Answerer):
    """Reads the mirror image as well, and answers with the mean over both."""

    def tokenize(self, tokenizer, movements, masks):
        recorded = super().tokenize(tokenizer, movements, masks)
        images = super().tokenize(tokenizer, [mirror(angles) for angles in movements], masks)
        return [
            MotionTokens(motion.tokens, [image.tokens])
            for motion, image in zip(recorded, images, strict=True)
        ]

    def score_candidates(self, queries, full_distribution):
        both = [
            replace(query, motions=[MotionTokens([*motion.tokens, *motion.views[0]])])
            for query in queries
            for motion in query.motions
        ]
        return super().score_candidates(both, full_distribution)


def movement(frames=100, bent=slice(60, 80)):
    angles = np.zeros((frames, len(NAMES)), dtype=np.float32)
    angles[bent, KNEE] = np.radians(-80)
    angles[:, INDEX["hip_flexion_r"]] = np.sin(np.arange(frames))
    return angles


def test_the_joint_and_the_seconds_that_the_answer_rests_on_are_told():
    mask = np.ones(len(NAMES), dtype=bool)
    mask[INDEX["neck_rotation"]] = False
    label, number = explain(Answerer(), Tokenizer(), movement(), mask, [("label", "?"), ("number", "?")])
    assert (label.explained_value, number.explained_value) == (pytest.approx(0.5), 20)
    assert "neck_rotation" not in label.joints
    assert "pro_sup_r" not in label.joints
    assert number.joints.pop("knee_angle_r") == 20
    assert label.joints.pop("knee_angle_r") == pytest.approx(0.2)
    assert set(number.joints.values()) | set(label.joints.values()) == {0}
    frames = {b: round(10 * (e - b)) for b, e, _ in number.seconds}
    assert (sum(frames.values()), number.seconds[-1][1]) == (100, 10)
    # Every bent frame is one more of the number; a linear model, a little shrunk, says so of each part.
    for b, _, w in number.seconds:
        assert w == pytest.approx(frames[b] if 6 <= b < 8 else 0, abs=0.25 * frames[b])
    # Without a straight part more of the rest is bent: it speaks against.
    assert all((w < 0) == (not 6 <= b < 8) for b, _, w in label.seconds)


def test_what_the_mirror_image_shows_is_explained_too():
    angles = movement()
    angles[30:48, INDEX["knee_angle_l"]] = np.radians(-80)
    (number,) = explain(OfBoth(), Tokenizer(), angles, np.ones(len(NAMES), dtype=bool), [("number", "?")])
    assert number.explained_value == 38
    assert (number.joints["knee_angle_r"], number.joints["knee_angle_l"]) == (20, 18)
    for b, e, w in number.seconds:
        bent = 3 <= b < 4.8 or 6 <= b < 8
        assert w == pytest.approx(10 * (e - b) if bent else 0, abs=2.5 * (e - b))


def test_only_what_is_read_is_explained():
    explanation = explain(
        Answerer(), Tokenizer(), movement(400), np.ones(len(NAMES), dtype=bool), [("number", "?")]
    )[0]
    assert explanation.seconds[-1][1] == 15


def test_parts_are_the_whole_and_something_stays():
    assert np.concatenate(windows(37)).tolist() == list(range(37))
    assert len(windows(37)) == 37
    assert len(windows(370)) == 40
    assert len(windows(3)) == 3
    assert [w.tolist() for w in windows(9, 2, 3)] == [[2, 3, 4], [5, 6, 7]]  # whole steps, after the posture
    assert without_tokens(MotionTokens([1, 2, 3, 4]), np.array([0, 2])) == MotionTokens([2, 4])
    assert without_tokens(MotionTokens([5]), np.array([0])) == MotionTokens([5])
    assert without_tokens(MotionTokens([1, 2, 3], [[4, 5, 6], [7]]), np.array([1])) == MotionTokens(
        [1, 3], ([4, 6], [7])
    )
    held = without_joints(movement(), [KNEE])
    assert np.ptp(held[:, KNEE]) < 1e-6
    assert held[:, KNEE].mean() == pytest.approx(movement()[:, KNEE].mean(), abs=1e-6)
    others = np.delete(np.arange(len(NAMES)), KNEE)
    np.testing.assert_array_equal(held[:, others], movement()[:, others])
