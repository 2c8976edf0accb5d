"""Scores of answers are those of separate passes, over any questions, whatever a sliding window hides."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.answering.calibration import INTERVAL_SHARES
from biomechgpt.answering.scores import quantile
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.core.settings import InputError
from biomechgpt.language import tiny_model
from biomechgpt.language.network import extend_vocabulary
from biomechgpt.language.settings import TinyModelSettings
from biomechgpt.prompts.answer_trie import answer_trie
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT
from prompt_text import answer_text

TASKS = load_tasks(ROOT / "configs/tasks")
ACTIVITIES = ("TUG", "overground walking", "sitting", "sit to stand")


@pytest.fixture(scope="module")
def model_and_encoder():
    """A small Gemma 3 with random weights and a window shorter than its prompts, and its encoder."""
    texts = [p for t in TASKS.values() for p in t.templates] + [*ACTIVITIES, "12.3 s", "101 steps/min"]
    tokenizer = tiny_model.train_text_tokenizer(texts, 400)
    torch.manual_seed(0)
    size = TinyModelSettings(
        hidden_size=32,
        intermediate_size=48,
        layers=3,
        heads=2,
        key_value_heads=1,
        head_dim=16,
        sliding_window=12,
    )
    model = tiny_model.new_model(tokenizer, size).eval()
    with torch.no_grad():  # as unlike as a trained model's
        for p in model.parameters():
            p.mul_(3.0)
    extend_vocabulary(model, tokenizer, np.random.default_rng(0).normal(size=(16, 4)), "random")
    return model, PromptEncoder(tokenizer)


def question(encoder, name, number=0):
    task = TASKS[name]
    return CandidateQuery(encoder.question(task.templates[number]), answer_trie(encoder, task, ACTIVITIES))


def separate_pass(model, prefix, question_ids, trie, answer):
    """Log probability of an answer by a pass of its own.

    Each token of a number but the first is conditional on those that may stand there.
    """
    path = [int(trie.leaves[answer])]
    while path[0] >= 0:
        path.insert(0, int(trie.parent[path[0]]))
    ids = torch.from_numpy(np.concatenate([prefix, question_ids, trie.token[path[1:]]])).long()[None]
    with torch.inference_mode():
        log_p = model(input_ids=ids).logits[0].float().log_softmax(dim=-1)
    total, at = 0.0, len(prefix) + len(question_ids) - 1
    for k, (above, node) in enumerate(pairwise(path)):
        total += float(log_p[at + k, trie.token[node]])
        if k and trie.is_numeric:
            total -= float(log_p[at + k, trie.token[trie.parent == above]].logsumexp(dim=0))
    return total


@pytest.mark.parametrize("names", [["activity", "impaired", "cadence"], ["walking_speed", "diagnosis"]])
def test_scores_are_those_of_separate_passes(model_and_encoder, names):
    model, encoder = model_and_encoder
    rng = np.random.default_rng(1)
    prefixes = [encoder.prefix([rng.integers(16, size=n)]) for n in (5, 40)]
    queries = [
        [question(encoder, name) for name in names],
        [question(encoder, name, 1) for name in names[::-1]],
    ]
    for prefix, of_prompt, prompt_scores in zip(
        prefixes, queries, score(model, prefixes, queries, min_probability=0), strict=True
    ):
        for (question_ids, trie, *_), scores in zip(of_prompt, prompt_scores, strict=True):
            assert scores.probability.sum() == pytest.approx(1)
            for answer in rng.choice(len(trie.leaves), min(len(trie.leaves), 12), replace=False):
                log_p = np.log(scores.probability[answer]) + np.log(scores.valid_probability)
                assert log_p == pytest.approx(
                    separate_pass(model, prefix, question_ids, trie, answer), abs=1e-4
                )


def test_the_log_likelihood_of_a_movement_does_not_depend_on_the_batch(model_and_encoder):
    model, encoder = model_and_encoder
    prefixes = [encoder.prefix([range(n)]) for n in (2, 9, 16)]
    queries = [[question(encoder, "activity")] for _ in prefixes]
    for prefix, (scores,) in zip(prefixes, score(model, prefixes, queries), strict=True):
        ids = torch.from_numpy(prefix)[None]
        with torch.inference_mode():
            log_p = model(input_ids=ids).logits[0].float().log_softmax(dim=-1)
        assert scores.log_likelihood == pytest.approx(
            float(log_p[:-1].gather(1, ids[0, 1:, None]).mean()), abs=1e-4
        )


def test_what_is_not_expanded_is_little(model_and_encoder):
    model, encoder = model_and_encoder
    prefix = encoder.prefix([[1, 2, 3, 4]])
    queries = [
        question(encoder, name)._replace(full_distribution=True)
        for name in ("tug_time", "cadence", "activity")
    ]
    (exact,) = score(model, [prefix], [queries], min_probability=0)
    for searched, full in zip(*score(model, [prefix], [queries]), exact, strict=True):
        assert np.abs(searched.probability - full.probability).sum() < 0.01  # of a model that knows nothing
        assert searched.valid_probability == pytest.approx(full.valid_probability, rel=0.01)


@pytest.mark.parametrize("name", ["walking_speed", "cadence", "tug_time"])
def test_quantiles_are_those_of_all_numbers_scored(model_and_encoder, name):
    model, encoder = model_and_encoder
    decoder, n_tokens = model.get_decoder(), {}

    def quantiles(search, **given):
        hook = decoder.register_forward_pre_hook(
            lambda _, __, named: n_tokens.update(
                {search: n_tokens.get(search, 0) + named["input_ids"].numel()}
            ),
            with_kwargs=True,
        )
        (first, second, single), (third, fourth) = score(model, prefixes, queries, **given)
        hook.remove()
        values = []
        for averaged, shares in (
            ((single,), INTERVAL_SHARES),
            ((first, second, third, fourth), INTERVAL_SHARES),
            ((first, third), INTERVAL_SHARES[1:2]),
            ((second, fourth), INTERVAL_SHARES[1:2]),
        ):
            mean = np.mean([scores.probability for scores in averaged], axis=0)
            values += [quantile(np.asarray(queries[0][0].trie.answers), mean, share) for share in shares]
        return values

    for seed in range(10):
        rng = np.random.default_rng(seed)
        prefixes = [encoder.prefix([rng.integers(16, size=n)]) for n in (5, 30)]
        # Two templates about each of two movements are one answer; a third template is another answer.
        both = [question(encoder, name, number)._replace(group="both") for number in (0, 1)]
        queries = [[*both, question(encoder, name, 2)], both]
        assert quantiles("few") == quantiles("all", min_probability=0)
    assert n_tokens["few"] < 0.85 * n_tokens["all"]


def test_a_trial_is_scored_alike_alone_and_among_others(model_and_encoder):
    model, encoder = model_and_encoder
    prefixes = [encoder.prefix([range(n)]) for n in (2, 9, 16)]
    queries = [[question(encoder, name)] for name in ("fsst_time", "activity", "walking_speed")]
    together = score(model, prefixes, queries)
    for prefix, of_prompt, (scores,) in zip(prefixes, queries, together, strict=True):
        assert scores.probability.sum() == pytest.approx(1)
        ((single,),) = score(model, [prefix], [of_prompt])
        np.testing.assert_allclose(scores.probability, single.probability, atol=1e-5)


def test_every_plausible_number_and_every_label_can_be_chosen(model_and_encoder):
    _, encoder = model_and_encoder
    for task in TASKS.values():
        trie = answer_trie(encoder, task, ACTIVITIES)
        texts = []
        for leaf in trie.leaves:
            node, path = int(leaf), []
            while node >= 0:
                path.insert(0, int(trie.token[node]))
                node = int(trie.parent[node])
            texts.append(encoder.tokenizer.decode(path))
        spoken = [answer_text(task.answer(answer)) for answer in trie.answers]
        assert all(whole.startswith(text) for whole, text in zip(spoken, texts, strict=True))
        assert len(set(texts)) == len(texts)
        if task.kind == "regression":
            assert (trie.answers[0], trie.answers[-1]) == pytest.approx(task.plausible)


def test_a_task_without_labels_needs_some(model_and_encoder):
    with pytest.raises(InputError, match="task 'activity': expected labels"):
        answer_trie(model_and_encoder[1], TASKS["activity"])


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=30), st.floats(0.01, 0.99))
@hypothesis_settings(max_examples=50, deadline=None)
def test_a_quantile_has_its_share_below(weights, share):
    probability = np.array(weights) / sum(weights)
    numbers = np.arange(len(weights)) / 10
    at = quantile(numbers, probability, share)
    assert probability[numbers <= at].sum() >= share - 1e-6
    assert probability[numbers < at].sum() <= share + 1e-6


COMPARING = load_tasks(ROOT / "configs/tasks_extra", ["which_impaired", "quicker", "speed_change"])


@pytest.mark.parametrize("name", COMPARING)
def test_two_movements_are_compared_as_if_each_pair_of_their_answers_were_scored(model_and_encoder, name):
    task, encoder = COMPARING[name], model_and_encoder[1]
    (single_task,) = [t for t in TASKS.values() if t.annotation == task.annotation]
    assert task.is_derivable_from(single_task, single_task.answers())
    trie, single_trie = answer_trie(encoder, task), answer_trie(encoder, single_task)
    rng = np.random.default_rng(3)
    a, b = (np.zeros(len(single_trie.answers)) for _ in range(2))
    for p in (a, b):
        support = rng.permutation(len(p))[:6]
        p[support] = rng.dirichlet(np.ones(len(support)))
    expected = np.zeros(len(trie.answers))
    for i, j in product(np.flatnonzero(a), np.flatnonzero(b)):
        first, second = ({task.annotation: single_trie.answers[n]} for n in (i, j))
        truth = task.compare(first, second)
        if truth is None:
            continue
        answer = trie.answers.index(round(truth, task.decimals) if isinstance(truth, float) else truth)
        expected[answer] += a[i] * b[j]
    derived = task.derive(trie.answers, single_trie.answers, a, b)
    assert derived == pytest.approx(expected / expected.sum(), abs=1e-9)
