"""Prompts: Gemma's chat template, trees of questions, and which token sees which."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from biomechgpt.core.settings import InputError
from biomechgpt.language.batches import read_trees
from biomechgpt.language.families import FAMILIES
from biomechgpt.language.settings import SampleSettings
from biomechgpt.language.tiny_model import train_text_tokenizer
from biomechgpt.prompts.encoding import (
    MIN_MOTION_TOKENS,
    MOTION_END,
    MOTION_START,
    Branch,
    MotionTokens,
    PrefixTree,
    PromptEncoder,
    Query,
    motion_token,
    motion_vocabulary,
)
from biomechgpt.prompts.packing import attention_mask, batch_trees, pack
from biomechgpt.questions.dataset import ask
from example_trials import ALL_TASKS, MANY_TRIALS, PARAMETERS, TASKS
from prompt_text import ANSWER_END, QUESTION_END, TURN_END, answer_text, prefix_text, question_text

PHRASINGS = [text for task in TASKS.values() for text in task.templates]
CHAT_TEMPLATE, SPECIALS = FAMILIES["gemma3"].tiny.chat_template, FAMILIES["gemma3"].tiny.special_tokens
CODES = 48
FEW = hypothesis_settings(max_examples=50, deadline=None)


def make_encoder() -> PromptEncoder:
    tokenizer = train_text_tokenizer(PHRASINGS, 400)
    tokenizer.add_tokens(motion_vocabulary(CODES), special_tokens=True)
    return PromptEncoder(tokenizer)


ENCODER = make_encoder()
PREFIX = ENCODER.text("<bos><start_of_turn>user\n" + MOTION_START).tolist()
codes = st.lists(st.integers(0, CODES - 1), max_size=80)
spoken = st.sampled_from(PHRASINGS) | st.text(st.characters(codec="utf-8"), max_size=20).map(str.strip)
harmless = spoken.filter(lambda text: not any(token in text for token in SPECIALS))
"""Without control tokens, which a chat template would take for what they are."""


@FEW
@given(codes, harmless, harmless)
def test_a_dialogue_is_what_the_chat_template_writes(tokens, question, answer):
    motion = "".join(motion_token(code) for code in tokens)
    opening = [{"role": "user", "content": f"{MOTION_START}{motion}{MOTION_END}{question}"}]
    dialogue = [*opening, {"role": "assistant", "content": answer}]
    apply, prompt = ENCODER.tokenizer.apply_chat_template, prefix_text(tokens) + question_text(question)
    assert ENCODER.tokenizer.chat_template == CHAT_TEMPLATE
    assert prompt == apply(opening, tokenize=False, add_generation_prompt=True)
    assert prompt + answer_text(answer) + "\n" == apply(dialogue, tokenize=False)
    tree = ENCODER.build_tree([tokens], [(question, answer)], 4096)
    ids = np.concatenate([tree.prefix, *tree.branches[0]]).tolist()
    newline = ENCODER.text("\n").tolist()
    assert ids + newline == apply(dialogue, tokenize=True, return_dict=False)


@FEW
@given(st.text(st.characters(codec="utf-8", categories=["L", "Zs"]), max_size=9))
def test_a_question_without_a_movement_follows_the_template_too(question):
    messages = [{"role": "user", "content": question}]
    template = ENCODER.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ENCODER.tokenizer.decode(ENCODER.prefix([])) + question_text(question.strip()) == template


control = st.sampled_from([*SPECIALS, *motion_vocabulary(3)])


@FEW
@given(st.lists(control | spoken, max_size=6).map("".join))
def test_control_tokens_that_somebody_types_are_letters(typed):
    ids = [ENCODER.tokenizer.convert_tokens_to_ids(token) for token in (*SPECIALS, *motion_vocabulary(CODES))]
    for read, text, end in (
        (ENCODER.question, question_text, QUESTION_END),
        (ENCODER.answer, answer_text, ANSWER_END),
    ):
        typed_ids, closing = read(typed).tolist(), ENCODER.text(end).tolist()
        assert typed_ids[-len(closing) :] == closing
        assert not set(typed_ids[: -len(closing)]) & set(ids)
        assert ENCODER.tokenizer.decode(typed_ids) == text(typed)


def test_who_speaks_is_one_token():
    assert len(ENCODER.text(TURN_END)) == len(ENCODER.text(QUESTION_END)) == 5


def test_motion_has_a_token_a_code_in_order():
    vocabulary = motion_vocabulary(CODES)
    assert len(set(vocabulary)) == CODES + 2
    ids = [ENCODER.text(token).tolist() for token in vocabulary]
    assert [len(token_ids) for token_ids in ids] == [1] * len(ids)
    prefix = ENCODER.prefix([[3, 0, CODES - 1]]).tolist()
    assert prefix == ENCODER.text(prefix_text([3, 0, CODES - 1])).tolist()
    assert prefix[-4:] == [ids[2 + 3][0], ids[2][0], ids[-1][0], ids[1][0]]


pairs = st.lists(st.tuples(spoken, spoken), min_size=1, max_size=4)


@FEW
@given(st.integers(0, 200), pairs, st.integers(8, 80))
def test_cutting_takes_the_end_of_a_movement_and_never_a_word(length, pairs, spare):
    tokens = [n % CODES for n in range(length)]
    longest = max(len(ENCODER.text(question_text(q))) + len(ENCODER.text(answer_text(a))) for q, a in pairs)
    max_length = longest + len(PREFIX) + 1 + spare
    tree, full_prefix = ENCODER.build_tree([tokens], pairs, max_length), ENCODER.prefix([tokens])
    for (question, answer), (q, a) in zip(pairs, tree.branches, strict=True):
        assert q.tolist() == ENCODER.text(question_text(question)).tolist()
        assert a.tolist() == ENCODER.text(answer_text(answer)).tolist()
        assert len(tree.prefix) + len(q) + len(a) <= max_length
    assert len(tree.prefix) == min(len(full_prefix), len(PREFIX) + 1 + spare)
    assert tree.prefix[:-1].tolist() == full_prefix[: len(tree.prefix) - 1].tolist()
    assert tree.prefix[-1] == full_prefix[-1]
    assert len(tree) == len(tree.prefix) + sum(len(q) + len(a) for q, a in tree.branches)


def test_no_room_for_a_movement_is_refused():
    longest = len(ENCODER.text(question_text("Why?"))) + len(ENCODER.text(answer_text("x")))
    with pytest.raises(InputError, match=r"max_length: .* for a movement"):
        ENCODER.build_tree([[1, 2, 3]], [("Why?", "x")], longest + 7)


def test_what_is_not_refused_has_some_movement_in_it():
    longest = len(ENCODER.text(question_text("Why?"))) + len(ENCODER.text(answer_text("x")))
    for n_free in range(1, 40):
        try:
            tree = ENCODER.build_tree([[5] * 40], [("Why?", "x")], longest + n_free)
        except InputError:
            continue
        assert tree.prefix[: len(PREFIX)].tolist() == PREFIX
        assert len(tree.prefix) > len(PREFIX) + 1


lengths = st.tuples(
    st.integers(1, 9), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3)
)
forests = st.lists(lengths, min_size=1, max_size=3)


def trees_of(shapes) -> list[PrefixTree]:
    """Trees with these lengths of prefix and (question, answer), every token another number."""
    fresh = iter(range(1, 10_000))
    take = lambda n: np.array([next(fresh) for _ in range(n)])  # noqa: E731
    return [PrefixTree(take(n), [Branch(take(q), take(a)) for q, a in branches]) for n, branches in shapes]


@FEW
@given(
    forests,
    st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3),
    st.integers(0, 40),
    st.booleans(),
)
def test_a_batch_holds_for_each_token_what_its_separate_samples_would(shapes, weights, max_tokens, apart):
    trees = trees_of(shapes)
    if apart:
        trees = [PrefixTree(t.prefix, t.branches, [0.5 * n for n, _ in enumerate(t.branches)]) for t in trees]
    batch = {name: values.numpy() for name, values in batch_trees(trees, 0, weights, max_tokens).items()}
    expected: dict[int, list] = {}
    for tree in trees:
        for number, (question, answer) in enumerate(tree.branches):
            sample = np.concatenate([tree.prefix, question, answer])
            kind_weights = (*weights[:2], weights[2] * (0.5 * number if apart else 1.0))
            kinds = np.repeat(kind_weights, [len(tree.prefix), len(question), len(answer)])
            for at, token in enumerate(sample):
                before = sample[at - 1] if at else None
                seen = expected.setdefault(token, [at, before, 0.0])
                assert seen[:2] == [at, before]
                seen[2] += kinds[at] if at else 0.0
    held = {}
    for ids, position, _, segment, parent, weight in zip(*batch.values(), strict=True):
        for at in np.flatnonzero(segment >= 0):
            before = ids[parent[at]] if position[at] else None
            held[ids[at]] = [position[at], before, weight[at]]
        assert not ids[segment < 0].any()
        assert not weight[segment < 0].any()
    assert held == expected


@FEW
@given(forests, st.none() | st.integers(1, 6), st.integers(0, 40))
def test_a_token_sees_its_own_sample_up_to_itself_within_the_window(shapes, window, max_tokens):
    trees = trees_of(shapes)
    batch = batch_trees(trees, 0, (1, 1, 1), max_tokens)
    seen = attention_mask(batch["tree"], batch["segment"], batch["position_ids"], window)
    length = batch["input_ids"].shape[1]
    assert seen.shape == (len(batch["input_ids"]), 1, length, length)
    assert length <= max(max_tokens, *map(len, trees))
    sees = {a: {b for b, yes in zip(ids, line, strict=True) if yes}
            for ids, lines in zip(batch["input_ids"].tolist(), seen[:, 0].tolist(), strict=True)
            for a, line in zip(ids, lines, strict=True) if a}  # fmt: skip
    for tree in trees:
        for question, answer in tree.branches:
            sample = [*tree.prefix, *question, *answer]
            for at, token in enumerate(sample):
                first = 0 if window is None else max(0, at + 1 - window)
                assert sees[token] == set(sample[first : at + 1])


@FEW
@given(forests)
def test_padding_sees_itself_and_nobody_sees_it(shapes):
    batch = batch_trees(trees_of(shapes), 0, (1, 1, 1))
    padding = batch["segment"] < 0
    seen = attention_mask(batch["tree"], batch["segment"], batch["position_ids"])[:, 0]
    itself = torch.eye(seen.shape[1], dtype=torch.bool).expand_as(seen)
    assert torch.equal(seen[padding], itself[padding])
    assert torch.equal(seen.mT[padding], itself[padding])


@FEW
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 40))
def test_best_fit_loses_nothing_and_opens_no_row_that_is_not_needed(sizes, max_tokens):
    rows = pack(sizes, max_tokens)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    filled = [sum(sizes[i] for i in row) for row in rows]
    assert all(total <= max_tokens or len(row) == 1 for total, row in zip(filled, rows, strict=True))
    # Any two rows would not fit into one.
    assert all(a + b > max_tokens for n, a in enumerate(filled) for b in filled[:n])


@FEW
@given(st.lists(harmless, min_size=1, max_size=7).filter(lambda turns: len(turns) % 2))
def test_a_conversation_is_what_the_chat_template_writes(turns):
    roles = ["user", "assistant"]
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
    messages[0]["content"] = f"{MOTION_START}{MOTION_END}{turns[0]}"
    template = ENCODER.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert [*ENCODER.prefix([[]]), *ENCODER.question(turns)] == template
    assert ENCODER.question(turns[:1]).tolist() == ENCODER.question(turns[0]).tolist()


def test_several_movements_have_a_letter_each():
    prompt = ENCODER.tokenizer.decode(ENCODER.prefix([[1, 2], [3]]))
    first, second = (f"{MOTION_START}{text}{MOTION_END}" for text in ("<motion_1><motion_2>", "<motion_3>"))
    assert prompt == f"<bos><start_of_turn>user\nA: {first}\nB: {second}\n"
    assert "A: " not in ENCODER.tokenizer.decode(ENCODER.prefix([[1, 2]]))


@FEW
@given(st.integers(0, 90), st.integers(0, 90), st.integers(2 * MIN_MOTION_TOKENS, 120))
def test_of_two_movements_the_longer_loses_its_end(first_length, second_length, spare):
    motion = [[n % CODES for n in range(length)] for length in (first_length, second_length)]
    around = len(ENCODER.prefix([[], []]))
    prefix = ENCODER.truncated_prefix(motion, around + spare).tolist()
    assert len(prefix) == around + min(spare, first_length + second_length)
    kept = ENCODER.tokenizer.decode(prefix).count
    lengths = [kept(motion_token(0) + motion_token(1)), prefix.count(ENCODER.text(MOTION_END)[0])]
    assert lengths[1] == 2
    starts = [n for n, token in enumerate(prefix) if token == ENCODER.text(MOTION_START)[0]]
    ends = [n for n, token in enumerate(prefix) if token == ENCODER.text(MOTION_END)[0]]
    left = [end - start - 1 for start, end in zip(starts, ends, strict=True)]
    for movement, start, n in zip(motion, starts, left, strict=True):
        assert prefix[start : start + n + 1] == [prefix[start], *ENCODER.motion(movement)[1 : n + 1]]
    if first_length + second_length > spare:
        assert min(left) == min(first_length, second_length, max(left)) or abs(left[0] - left[1]) <= 1


def test_two_movements_need_room_for_both():
    around = len(ENCODER.prefix([[], []]))
    with pytest.raises(InputError, match=rf"expected at least {around + 2 * MIN_MOTION_TOKENS}"):
        ENCODER.truncated_prefix([[1] * 30, [2] * 30], around + 2 * MIN_MOTION_TOKENS - 1)


def test_a_movement_is_answered_in_motion_tokens_and_loses_its_end():
    tokens = [n % CODES for n in range(300)]
    ((question, answer),) = ENCODER.build_tree([], [("Show TUG.", tokens)], 128).branches
    end = ENCODER.text(ANSWER_END).tolist()
    assert answer.tolist()[-1:] == end
    assert answer.tolist()[:-1] == ENCODER.motion(tokens[: len(answer) - 3]).tolist()
    assert len(ENCODER.prefix([])) + len(question) + len(answer) == 128


def decoded(tree: PrefixTree) -> list[tuple[str, str]]:
    return [(ENCODER.tokenizer.decode(q), ENCODER.tokenizer.decode(a)) for q, a in tree.branches]


def test_trees_show_both_movements_and_a_mirror_image_its_own_answers():
    rows = ask(MANY_TRIALS[20:60], ALL_TASKS, 0, PARAMETERS)
    views = {r["trial"]: [[1, 2, 3] * 5, [4, 5] * 5] for r in MANY_TRIALS}
    settings = SampleSettings(max_length=512)
    trees = read_trees(ENCODER, views, rows, settings)
    texts = [[ENCODER.tokenizer.decode(t.prefix) for t in of] for of in trees]
    compared = [n for n, (text, _) in enumerate(texts) if "B: " in text]
    assert len(compared) == len({(q["trial"], q["other"]) for q in rows if q["other"]})
    for first, second in (texts[n] for n in compared):
        assert first.count("<motion_1>") == 10
        assert second.count("<motion_4>") == 10
    mirrored_answers = {q["answer"]: q["answer_mirrored"] for q in rows if q["task"] == "description"}
    pairs = [(decoded(a), decoded(b)) for a, b in trees]
    for original, mirror in pairs:
        for (_, answer), (_, in_mirror) in zip(original, mirror, strict=True):
            plain, of_mirror = (text.removesuffix(ANSWER_END) for text in (answer, in_mirror))
            if not plain.startswith(MOTION_START):
                assert of_mirror == mirrored_answers.get(plain, plain)
    generated = [n for n, (text, _) in enumerate(texts) if MOTION_START not in text]
    assert len(generated) == sum(q["task"] == "movement" for q in rows)
    assert all("<motion_1>" in pairs[n][0][0][1] and "<motion_4>" in pairs[n][1][0][1] for n in generated)


def test_an_answer_counts_by_its_question_and_its_length_whatever_is_asked_beside_it():
    rows = ask(MANY_TRIALS[20:60], ALL_TASKS, 0, PARAMETERS)
    views = {r["trial"]: [[1, 2, 3] * 5, [4, 5] * 5] for r in MANY_TRIALS}
    loss_weight = lambda row, tokens: {"activity": 3.0}.get(row["task"], 1.0) / tokens  # noqa: E731
    trees = read_trees(ENCODER, views, rows, SampleSettings(max_length=512), 0, loss_weight)
    activity = {q["question"] for q in rows if q["task"] == "activity"}
    seen = 0
    for tree in (view for of in trees for view in of):
        for (question, _), (_, answer), weight in zip(
            decoded(tree), tree.branches, tree.loss_weights, strict=True
        ):
            is_activity = question.removesuffix(QUESTION_END) in activity
            assert weight == (3.0 if is_activity else 1.0) / len(answer)
            seen += is_activity
    assert seen > 10


def test_a_share_of_questions_comes_after_another_about_the_same_movement():
    rows = ask(MANY_TRIALS, TASKS, 0)
    views = {r["trial"]: [[1] * 10] for r in MANY_TRIALS}
    trees = read_trees(ENCODER, views, rows, SampleSettings(max_length=512, history_share=0.5))
    plain = read_trees(ENCODER, views, rows, SampleSettings(max_length=512))
    questions = {q["question"]: q["answer"] for q in rows}
    shares, answers = [], []
    for (tree,), (plain_tree,) in zip(trees, plain, strict=True):
        for (question, answer), (alone, _) in zip(decoded(tree), decoded(plain_tree), strict=True):
            shares.append(question != alone)
            answers.append(answer)
            if question != alone:
                first, rest = question.split(QUESTION_END, 1)
                assert first in questions
                assert rest.endswith(f"{ANSWER_END}\n<start_of_turn>user\n{alone}")
    assert 0.35 < np.mean(shares) < 0.65
    assert len(answers) == len(rows)


def test_a_query_has_its_turns_and_the_tokens_of_its_movements():
    query = Query([MotionTokens([1, 2], [3, 4])], "single", None, "How fast?", ["What is it?", "a walk"])
    assert query.turns == ["What is it?", "a walk", "How fast?"]
    assert query.tokens == [[1, 2]]
    both = Query([MotionTokens([1]), MotionTokens([5])], "compare", None, "Which?")
    assert (both.turns, both.tokens) == (["Which?"], [[1], [5]])
