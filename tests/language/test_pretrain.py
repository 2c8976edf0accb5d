"""What pre-training reads: every movement as often as it should stand alone, beside another one or after its facts,
and every number said is what was measured. No model is trained here."""

import re
from collections import Counter

import numpy as np
import pytest

from biomechgpt.core.settings import InputError, validate
from biomechgpt.language import tiny_gemma
from biomechgpt.language.pretrain import PretrainingSettings, _compared, _Draw
from biomechgpt.motion.parameters import PARAMETERS, mirror_parameters, parse_description
from biomechgpt.prompts.encoding import Encoder, motion_vocabulary

WALK = {name: 1.0 + n for n, name in enumerate(PARAMETERS)}
FACTS_OF = {
    "a": WALK,
    "b": {name: value + 0.5 for name, value in WALK.items()},
    "sits": {"duration": 4.0, "knee_r": 60.0},
    "silent": {},
}
MOVEMENTS = {trial: [[n, n, n, n], [n + 4] * 4] for n, trial in enumerate(FACTS_OF)}


@pytest.fixture(scope="module")
def tokenizer():
    made = tiny_gemma.train_text_tokenizer(["movement A more in change of speed 0.12 m/s"], 320)
    made.add_tokens(motion_vocabulary(8))
    return made


def drawn(tokenizer, trial, view=0, times=200, **settings):
    """Texts of (prefix, questions and answers) of trees drawn for a trial."""
    draw = _Draw(
        Encoder(tokenizer),
        validate(PretrainingSettings, settings, "test"),
        np.random.default_rng(0),
        ["asked?"],
        ["stroke"],
        ["Show {}."],
        MOVEMENTS,
        FACTS_OF,
    )
    trees = [draw.tree(trial, view) for _ in range(times)]
    return [
        (tokenizer.decode(t.prefix), [(tokenizer.decode(q), tokenizer.decode(a)) for q, a in t.branches])
        for t in trees
    ]


def test_a_movement_stands_alone_beside_another_one_or_after_its_facts_as_often_as_set(tokenizer):
    seen = Counter(
        prefix.count("<motion_start>") for prefix, _ in drawn(tokenizer, "a", beside=0.3, told=0.2)
    )
    assert seen[2] / 200 == pytest.approx(0.3, abs=0.08)
    assert seen[0] / 200 == pytest.approx(0.2, abs=0.08)


def test_what_comes_after_its_facts_is_the_movement_itself(tokenizer):
    for view, facts in ((0, FACTS_OF["b"]), (1, mirror_parameters(FACTS_OF["b"]))):
        for prefix, [(question, answer)] in drawn(tokenizer, "b", view, 20, beside=0, told=1):
            assert "<motion" not in prefix
            assert answer.count(f"<motion_{MOVEMENTS['b'][view][0]}>") == 4
            assert len(said := parse_description(question)) == 6
            assert all(abs(value - facts[name]) <= 0.5 for name, value in said.items())
            assert question.startswith("Show quickly, ")


def test_movements_stand_beside_those_that_can_be_compared_in_the_same_view(tokenizer):
    for prefix, branches in drawn(tokenizer, "a", 1, 40, beside=1, told=0):
        first, second = re.findall(r"<motion_start>(.*?)<motion_end>", prefix)
        assert first == "<motion_4>" * 4
        assert second in ("<motion_4>" * 4, "<motion_5>" * 4)
        assert len(branches) == 4
    assert all("<motion_6>" in p for p, _ in drawn(tokenizer, "sits", 1, 10, beside=1, told=0))


def test_of_a_movement_without_facts_nothing_is_said(tokenizer):
    for prefix, branches in drawn(tokenizer, "silent", beside=0.5, told=0.5):
        assert prefix.count("<motion_start>") == 1
        assert all(not parse_description(answer) for _, answer in branches)


def test_comparisons_say_what_was_measured():
    forms = Counter()
    for seed in range(30):
        for part in _compared(FACTS_OF["a"], FACTS_OF["b"], np.random.default_rng(seed)).split(", "):
            if "more" in part:
                forms["more"] += 1
                assert part.endswith("movement B")
            elif "change" in part:
                forms["change"] += 1
                assert float(re.search(r" (-?[\d.]+)", part).group(1)) == pytest.approx(0.5, abs=0.5)
            else:
                ((name, value),) = parse_description(part).items()
                of = "a" if part.startswith("movement A") else "b"
                assert value == pytest.approx(FACTS_OF[of][name], abs=0.51 * 10 ** -PARAMETERS[name].decimals)
                forms[of] += 1
    assert set(forms) == {"more", "change", "a", "b"}


def test_shares_of_more_than_all_are_refused():
    with pytest.raises(InputError, match=r"at most 1 together, found 1\.3"):
        validate(PretrainingSettings, {"beside": 0.7, "told": 0.6}, "base.yaml")
