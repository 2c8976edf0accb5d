"""Stacks: motion tokens of a step that share a position are read as a sum and predicted by a head each."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.generate import SamplingSettings, continue_motion, describe_to_motion
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.checkpoint import export_model
from biomechgpt.language import network
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.settings import AdapterSettings
from biomechgpt.language.stacked import cross_entropy, read_stacks, stack_of
from biomechgpt.prompts.answer_trie import answer_trie
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.prompts.stack import Stack
from biomechgpt.questions.tasks import load_tasks
from biomechgpt.tokenizer.layout import TokenLayout
from conftest import ROOT
from tiny_language import (
    CODES,
    PAIRS,
    artifacts_of,
    base_of,
    model_of,
    new_text_model,
    settings_of,
    text_tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = (CODES // 2, CODES - CODES // 2)


@pytest.fixture
def stacked(codebook):
    """(model, tokenizer, encoder) with two tokens at each position."""
    tokenizer = text_tokenizer()
    torch.manual_seed(0)
    model = new_text_model(tokenizer)
    network.extend_vocabulary(model, tokenizer, codebook, "codebook", stacked=SIZES)
    return model.eval(), tokenizer, PromptEncoder(tokenizer, stack=stack_of(model.config))


def steps_of(rng, n_steps):
    return np.stack(
        [rng.integers(SIZES[0], size=n_steps), SIZES[0] + rng.integers(SIZES[1], size=n_steps)], 1
    )


@given(st.lists(st.one_of(st.integers(12, 15), st.tuples(st.integers(0, 3), st.integers(4, 11)))))
def test_the_ids_of_a_movement_give_its_tokens_back(positions):
    stack = Stack(100, 16, (4, 8))
    tokens = [t for p in positions for t in (p if isinstance(p, tuple) else (p,))]
    ids = stack.ids(tokens)
    assert len(ids) == len(positions)
    assert [t - 100 for one in ids.tolist() for t in stack.tokens(one)] == tokens
    assert [t for position in stack.positions(tokens) for t in position] == tokens
    assert set(ids[ids >= stack.first_stack]) <= set(range(116, 116 + 32))
    np.testing.assert_array_equal(stack.ids([*tokens, 2]), ids)  # a step without its end


def test_stacks_of_different_tokens_have_different_ids():
    stack = Stack(7, 12, (2, 3, 4))
    steps = np.stack(np.meshgrid(range(2), range(2, 5), range(5, 9), indexing="ij"), -1).reshape(-1, 3)
    assert sorted(stack.ids(steps.flatten())) == list(range(19, 19 + 24))


def test_stacks_that_are_too_many_for_their_ids_are_refused(codebook):
    tokenizer = text_tokenizer()
    with pytest.raises(InputError, match="expected flat, as stacks of 8 tokens are too many"):
        network.extend_vocabulary(new_text_model(tokenizer), tokenizer, codebook, "random", stacked=[512] * 8)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_stack_is_read_as_the_sum_of_its_tokens(stacked, adapted):
    model, _, encoder = stacked
    first = encoder.stack.first_id
    if adapted:
        model = with_adapter(model, AdapterSettings(rank=2), list(range(first - 2, first + CODES)))
    embedding = model.get_input_embeddings()
    plain = embedding(torch.arange(first + CODES)).detach()
    read_stacks(model)
    read_stacks(model)  # a second time changes nothing
    rows = embedding(torch.from_numpy(encoder.motion([1, SIZES[0] + 2, 3, SIZES[0]]))[None])[0]
    expected = [
        plain[first - 2],
        plain[first + 1] + plain[first + SIZES[0] + 2],
        plain[first + 3] + plain[first + SIZES[0]],
        plain[first - 1],
    ]
    torch.testing.assert_close(rows, torch.stack(expected))
    torch.testing.assert_close(embedding(torch.arange(first)[None])[0], plain[:first])


def test_the_loss_of_a_stack_is_that_of_its_tokens():
    stack, rng = Stack(10, 7, (3, 4)), np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(3, 20)))
    targets = torch.tensor([4, int(stack.ids([1, 5])[0]), int(stack.ids([0, 3])[0])])
    word = functional.cross_entropy(logits[:1], torch.tensor([4]))
    first = functional.cross_entropy(logits[1:], torch.tensor([11, 10]), reduction="none")
    second = functional.cross_entropy(logits[1:, 13:17], torch.tensor([2, 0]), reduction="none")
    torch.testing.assert_close(cross_entropy(logits, targets, stack), torch.cat([word[None], first + second]))


def test_a_movement_has_as_many_positions_as_steps_and_each_token_teaches(stacked):
    model, _, encoder = stacked
    steps = steps_of(np.random.default_rng(0), 12)
    tree = encoder.build_tree([steps.flatten().tolist()], PAIRS[:2], 512)
    assert len(tree.prefix) == len(encoder.prefix([[]])) + 12
    task = network.TreeModel(model.train())
    loss, _ = task(**batch_trees([tree], 0, (1, 1, 1)))["language"]
    loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    seen = encoder.stack.first_id + np.unique(steps)
    assert (gradient[seen].abs().sum(1) > 0).all()


def test_the_log_likelihood_is_that_of_the_loss_and_does_not_depend_on_the_batch(stacked):
    model, _, encoder = stacked
    read_stacks(model)
    rng, task = np.random.default_rng(1), load_tasks(ROOT / "configs/tasks")["impaired"]
    prefixes = [encoder.prefix([steps_of(rng, n).flatten()]) for n in (5, 20)]
    query = CandidateQuery(encoder.question(task.templates[0]), answer_trie(encoder, task, ()))
    for prefix, (scores,) in zip(prefixes, score(model, prefixes, [[query], [query]]), strict=True):
        ids = torch.from_numpy(prefix)[None]
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0].float()
        loss = cross_entropy(logits[:-1], ids[0, 1:], encoder.stack)
        assert scores.log_likelihood == pytest.approx(-float(loss.mean()), abs=1e-4)


def test_a_long_movement_loses_whole_steps(stacked):
    encoder = stacked[2]
    tokens = steps_of(np.random.default_rng(2), 30).flatten()
    around = len(encoder.prefix([[]]))
    prefix = encoder.truncated_prefix([tokens], around + 20)
    np.testing.assert_array_equal(prefix, encoder.prefix([tokens[:40]]))
    assert encoder.tokens_in(20, 0) == 40
    assert encoder.positions_of(41, 0) == 20


@pytest.fixture(scope="module", params=["flat", "stacked"])
def answerer(request, codebook, one_thread, tmp_path_factory):
    """(layout, answerer, model), trained from start to end with two motion tokens in a step."""
    root = tmp_path_factory.mktemp(request.param)
    artifacts = root, artifacts_of(codebook, root, SIZES, request.param)
    tokenizer = text_tokenizer()
    base = base_of(new_text_model(tokenizer), tokenizer, tmp_path_factory.mktemp("base"), artifacts)
    model = model_of(base, artifacts, settings_of())
    return request.param, Answerer.load(model.uri), model


def test_a_trained_model_answers_as_its_config_says(answerer):
    layout, loaded, _ = answerer
    assert (loaded.encoder.stack is not None) == (layout == "stacked")
    steps = steps_of(np.random.default_rng(3), 10)
    assert len(loaded.encoder.motion(steps.flatten())) == 2 + (10 if layout == "stacked" else 20)
    assert loaded.longest_movement(0) % (2 if layout == "stacked" else 1) == 0


def test_generated_movements_are_whole_steps_with_a_token_for_each_place(answerer):
    loaded = answerer[1]
    layout = TokenLayout(0, 0, SIZES)
    made = describe_to_motion(loaded, ["a walk", "sitting, no device"], layout, 40, SamplingSettings())
    beginning = steps_of(np.random.default_rng(4), 6).flatten().tolist()
    made += continue_motion(loaded, [beginning, beginning[:8]], [14, 20], layout, SamplingSettings())
    for tokens in made:
        assert len(tokens) >= 8
        layout.check(tokens)
        places = np.array(tokens).reshape(-1, 2)
        assert (places[:, 0] < SIZES[0]).all()
        assert (places[:, 1] >= SIZES[0]).all()
    assert [len(tokens) for tokens in made[2:]] == [14, 20]


def test_at_a_low_temperature_the_most_likely_tokens_are_drawn(answerer):
    loaded = answerer[1]
    layout, stack = TokenLayout(0, 0, SIZES), loaded.encoder.stack
    beginning = steps_of(np.random.default_rng(5), 9).flatten().tolist()
    (drawn,) = continue_motion(loaded, [beginning], [4], layout, SamplingSettings(temperature=1e-4))
    tokens, first = list(beginning), loaded.encoder.motion([0, SIZES[0]])[1]
    first = stack.first_id if stack else int(first)
    for _ in range(2):
        for place, (begin, size) in enumerate(zip((0, SIZES[0]), SIZES, strict=True)):
            read = tokens[: len(tokens) - place] if stack else tokens
            ids = torch.from_numpy(loaded.encoder.prefix([read])[:-1])[None]
            with torch.inference_mode():
                logits = loaded.model(input_ids=ids).logits[0, -1, first + begin : first + begin + size]
            tokens.append(begin + int(logits.argmax()))
    assert drawn == tokens[-4:]


def test_an_exported_checkpoint_says_its_layout_and_its_card_shows_how_to_ask(answerer, capsys):
    layout, loaded, model = answerer
    exported = export_model(model, str(Path(model.uri).parents[1]))
    assert exported.metrics["layout"] == layout
    card = storage.read_bytes(exported.path("README.md")).decode()
    assert f"Layout: **{layout}**" in card
    block = card.split("## Use")[1].split("\n\n")[1]
    code = textwrap.dedent(block).replace("FOLDER", repr(exported.uri))
    tokens = steps_of(np.random.default_rng(6), 10).flatten().tolist()
    names = {"tokens": tokens}
    exec(code, names)
    ids = names["ids"]["input_ids"][0] if layout == "flat" else names["ids"]
    question = loaded.encoder.question("What is the person doing?")
    np.testing.assert_array_equal(ids, np.concatenate([loaded.encoder.prefix([tokens]), question]))
    assert capsys.readouterr().out
