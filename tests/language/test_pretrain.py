"""The samples of pre-training: how often a movement stands alone, in a pair or after its parameters.

Every number in a sample is what was measured. No model is trained here.
"""

import re
from collections import Counter

import numpy as np
import pytest

from biomechgpt.core.settings import InputError, validate
from biomechgpt.language import tiny_model
from biomechgpt.language.pretrain import _comparison, _SampleSource
from biomechgpt.language.settings import PretrainingSettings
from biomechgpt.motion.parameters import PARAMETERS, mirror_parameters, parse_description
from biomechgpt.prompts.encoding import PromptEncoder, motion_vocabulary

WALK = {name: 1.0 + n for n, name in enumerate(PARAMETERS)}
PARAMETERS_OF = {
    "a": WALK,
    "b": {name: value + 0.5 for name, value in WALK.items()},
    "sits": {"duration": 4.0, "knee_r": 60.0},
    "silent": {},
}
MOVEMENTS = {trial: [[n, n, n, n], [n + 4] * 4] for n, trial in enumerate(PARAMETERS_OF)}


@pytest.fixture(scope="module")
def tokenizer():
    made = tiny_model.train_text_tokenizer(["movement A more in change of speed 0.12 m/s"], 320)
    made.add_tokens(motion_vocabulary(8))
    return made


def drawn(tokenizer, trial, view=0, times=200, **settings):
    """Texts of (prefix, questions and answers) of trees drawn for a trial."""
    draw = _SampleSource(
        PromptEncoder(tokenizer),
        validate(PretrainingSettings, settings, "test"),
        np.random.default_rng(0),
        ["asked?"],
        ["stroke"],
        ["Show {}."],
        MOVEMENTS,
        PARAMETERS_OF,
    )
    trees = [draw.sample(trial, view) for _ in range(times)]
    return [
        (tokenizer.decode(t.prefix), [(tokenizer.decode(q), tokenizer.decode(a)) for q, a in t.branches])
        for t in trees
    ]


def test_a_movement_stands_alone_beside_another_one_or_after_its_parameters_as_often_as_set(tokenizer):
    seen = Counter(
        prefix.count("<motion_start>")
        for prefix, _ in drawn(tokenizer, "a", pairwise_share=0.3, text_to_motion_share=0.2)
    )
    assert seen[2] / 200 == pytest.approx(0.3, abs=0.08)
    assert seen[0] / 200 == pytest.approx(0.2, abs=0.08)


def test_the_answer_to_a_description_is_the_movement_itself(tokenizer):
    for view, parameters in ((0, PARAMETERS_OF["b"]), (1, mirror_parameters(PARAMETERS_OF["b"]))):
        for prefix, [(question, answer)] in drawn(
            tokenizer, "b", view, 20, pairwise_share=0, text_to_motion_share=1
        ):
            assert "<motion" not in prefix
            assert answer.count(f"<motion_{MOVEMENTS['b'][view][0]}>") == 4
            assert len(said := parse_description(question)) == 6
            assert all(abs(value - parameters[name]) <= 0.5 for name, value in said.items())
            assert question.startswith("Show quickly, ")


def test_a_pair_has_the_same_parameters_and_the_same_view(tokenizer):
    for prefix, branches in drawn(tokenizer, "a", 1, 40, pairwise_share=1, text_to_motion_share=0):
        first, second = re.findall(r"<motion_start>(.*?)<motion_end>", prefix)
        assert first == "<motion_4>" * 4
        assert second in ("<motion_4>" * 4, "<motion_5>" * 4)
        assert len(branches) == 4
    assert all(
        "<motion_6>" in p
        for p, _ in drawn(tokenizer, "sits", 1, 10, pairwise_share=1, text_to_motion_share=0)
    )


def test_a_movement_without_parameters_gets_no_description(tokenizer):
    for prefix, branches in drawn(tokenizer, "silent", pairwise_share=0.5, text_to_motion_share=0.5):
        assert prefix.count("<motion_start>") == 1
        assert all(not parse_description(answer) for _, answer in branches)


def test_comparisons_state_measured_values():
    forms = Counter()
    for seed in range(30):
        for part in _comparison(PARAMETERS_OF["a"], PARAMETERS_OF["b"], np.random.default_rng(seed)).split(
            ", "
        ):
            if "more" in part:
                forms["more"] += 1
                assert part.endswith("movement B")
            elif "change" in part:
                forms["change"] += 1
                assert float(re.search(r" (-?[\d.]+)", part).group(1)) == pytest.approx(0.5, abs=0.5)
            else:
                ((name, value),) = parse_description(part).items()
                of = "a" if part.startswith("movement A") else "b"
                assert value == pytest.approx(
                    PARAMETERS_OF[of][name], abs=0.51 * 10 ** -PARAMETERS[name].decimals
                )
                forms[of] += 1
    assert set(forms) == {"more", "change", "a", "b"}


def test_shares_above_one_in_total_are_refused():
    with pytest.raises(InputError, match=r"at most 1 together, found 1\.3"):
        validate(PretrainingSettings, {"pairwise_share": 0.7, "text_to_motion_share": 0.6}, "base.yaml")
