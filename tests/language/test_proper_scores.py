"""Proper scores: honest probabilities have the lowest, and the gradient is that of the score."""

import numpy as np
import pytest
import torch

from biomechgpt.language import network
from biomechgpt.language.output_layer import token_losses
from biomechgpt.language.proper_scores import (
    AnswerSets,
    Scores,
    batch_scored,
    proper_score,
    scored_tree,
    scores_of,
)
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.questions.tasks import load_tasks
from conftest import ROOT
from tiny_language import (
    CODES,
    artifacts_of,
    base_of,
    new_text_model,
    relative,
    text_tokenizer,
    training_task_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = load_tasks(ROOT / "configs/tasks")
ROWS = [
    {"task": "impaired", "question": "Impaired?", "label": label, "value": None, "trial": "a"}
    for label in ("yes", "no")
] + [
    {"task": "walking_speed", "question": "How fast?", "label": None, "value": value, "trial": "a"}
    for value in (0.5, 0.9, 1.3, 1.7)
]


def scores(question, target, weight, cumulative):
    return Scores(
        torch.tensor(question), torch.tensor(target), torch.tensor(weight), torch.tensor(cumulative).bool()
    )


def test_the_score_of_labels_is_briers_and_that_of_numbers_the_crps():
    p = np.array([0.7, 0.2, 0.1])
    q = np.array([0.1, 0.2, 0.4, 0.3])
    fields = scores(
        [0, 0, 0, 1, 1, 1, 1], [0.0, 1, 0, 0, 0, 1, 1], [1.0, 1, 1, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 1, 1, 1, 1]
    )
    # Likelihoods need not sum to 1: within a question they are scaled.
    log = torch.from_numpy(np.log(np.concatenate([p / 50, 3 * q])))
    brier = ((p - [0, 1, 0]) ** 2).sum()
    crps = 0.5 * ((np.cumsum(q) - [0, 0, 1, 1]) ** 2).sum()
    assert proper_score(log, fields).item() == pytest.approx(brier + crps, rel=1e-6)


@pytest.mark.parametrize("cumulative", [False, True])
def test_the_expected_score_is_lowest_for_the_true_probabilities(cumulative):
    truth = np.array([0.15, 0.5, 0.25, 0.1])
    log = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log], lr=0.05)
    for _ in range(600):
        expected = torch.zeros((), dtype=torch.float64)
        for true, share in enumerate(truth):
            target = (np.arange(4) >= true) if cumulative else (np.arange(4) == true)
            fields = scores([0] * 4, target.astype(float), [1.0] * 4, [cumulative] * 4)
            expected = expected + share * proper_score(log, fields)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
    np.testing.assert_allclose(log.detach().softmax(0), truth, atol=5e-3)


def test_possible_answers_hold_the_true_label_and_the_step_of_the_true_number():
    answers = AnswerSets(TASKS, {}, ROWS, 10, np.random.default_rng(0))
    assert answers.knows(ROWS[0])
    assert answers.knows(ROWS[2])
    assert not answers.knows({**ROWS[0], "label": "perhaps"})
    assert not answers.knows({**ROWS[0], "answer_mirrored": "no"})
    labels = answers.of(ROWS[0])
    assert [target for _, target, _, _ in labels] == [float(text == "impaired") for text, *_ in labels]
    assert sorted(text for text, *_ in labels) == ["impaired", "unimpaired"]
    numbers = answers.of(ROWS[3])
    values = [float(text.split()[0]) for text, *_ in numbers]
    assert values == sorted(values)
    assert 0.5 <= values[0] < values[-1] <= 1.75
    assert [target for _, target, _, _ in numbers] == [float(value >= 0.9) for value in values]
    assert answers.of(ROWS[3]) != numbers  # other places within the steps
    # A number that is the same in all of training has no distribution to learn.
    same = [{**row, "value": 1.0} for row in ROWS if row["value"]]
    assert not AnswerSets(TASKS, {}, same, 10, np.random.default_rng(0)).knows(same[0])


@pytest.fixture(scope="module")
def extended(codebook):
    tokenizer = text_tokenizer()
    model = new_text_model(tokenizer)
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    return model.train(), tokenizer


def test_the_gradient_is_that_of_the_score(extended):
    model, tokenizer = extended
    answers = AnswerSets(TASKS, {}, ROWS, 6, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    trees = [
        scored_tree(
            PromptEncoder(tokenizer),
            rng.integers(CODES, size=length).tolist(),
            asked,
            answers,
            max_length=256,
        )
        for length, asked in ((20, [(ROWS[0], 1.0), (ROWS[3], 2.0)]), (9, [(ROWS[1], 0.5)]))
    ]
    model.zero_grad()
    total, count = network.TreeModel(model)(**batch_scored(trees, 0))["score"]
    assert count == 3
    total.backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()

    # The plain way: each possible answer as a sequence of its own.
    model.zero_grad()
    plain = torch.zeros(())
    for tree in trees:
        log = []
        for question, answer in tree.tree.branches:
            ids = torch.from_numpy(np.concatenate([tree.tree.prefix, question, answer]))[None]
            logits = model(input_ids=ids).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
            log.append(logits.gather(1, ids[0, -len(answer) :, None]).sum())
        fields = scores_of(torch.from_numpy(tree.rows.astype(np.float32)))
        plain = plain + proper_score(torch.stack(log), fields)
    plain.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert total.item() == pytest.approx(plain.item(), rel=1e-4)
    assert relative(found, expected) < 1e-3


def test_losses_of_tokens_are_those_of_the_layer(extended):
    model, _ = extended
    states, targets = torch.randn(7, model.config.hidden_size), torch.arange(7)
    expected = torch.nn.functional.cross_entropy(model.lm_head(states), targets, reduction="none")
    torch.testing.assert_close(token_losses(model.lm_head, states, targets, rows=3), expected)


@pytest.mark.parametrize("layout", ["flat", "stacked"])
def test_a_fine_tuning_ends_with_proper_scores_and_they_fall(layout, codebook, tmp_path):
    sizes = (CODES,) if layout == "flat" else (CODES // 2, CODES // 2)
    artifacts = tmp_path, artifacts_of(codebook, tmp_path, sizes, layout)
    tokenizer = text_tokenizer()
    base = base_of(new_text_model(tokenizer), tokenizer, tmp_path / "base", artifacts)
    task = training_task_of(base, artifacts, proper_scores={"epochs": 4, "numbers": 8})
    without = training_task_of(base, artifacts)
    batches = task.batches()
    assert batches[: len(without.batches())] == without.batches()
    scored = batches[len(without.batches()) :]
    assert len(scored) == 5  # ten training movements, four times, eight in a batch
    model = task.build_model()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    batch, scores = task.collate(scored[0]), []
    for _ in range(12):
        total, count = model(**batch)["score"]
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
        scores.append((total / count).item())
    # So small a model learns how common each answer is, and little of the movements.
    assert scores[-1] < 0.9 * scores[0]
