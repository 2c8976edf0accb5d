"""A bundle answers alone as in a batch, as its mean over templates, images and movements, and within max_length."""

import numpy as np
import pytest
import torch

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.calibration import Calibration, TaskCalibration
from biomechgpt.core.settings import InputError
from biomechgpt.prompts.encoding import MOTION_END, MotionTokens, Query
from biomechgpt.questions.dataset import read_questions
from biomechgpt.questions.tasks import load_tasks
from prompt_text import prefix_text, question_text
from tiny_language import CODES, CONFIGS, PAIRS, TASKS, about, answerer_of, relative

pytestmark = pytest.mark.usefixtures("one_thread")


def prompts(answerer, movements, questions):
    texts = [prefix_text(m) + question_text(q) for m, q in zip(movements, questions, strict=True)]
    prompts = [answerer.tokenizer(t, add_special_tokens=False, return_tensors="pt") for t in texts]
    return [prompt["input_ids"].to(answerer.model.device) for prompt in prompts]


def compare(movements, task, question):
    motions = [m if isinstance(m, MotionTokens) else MotionTokens(m) for m in movements]
    return Query(motions, "compare", task, question)


def of_person(movements, task, question):
    return Query(compare(movements, task, question).motions, "same_person", task, question)


def probability_of(answer, label):
    return answer.probabilities[answer.labels.index(label)]


def test_a_bundle_loads_to_the_model_that_was_trained(bundle):
    trained, made_bundle = bundle
    answerer = Answerer.load(made_bundle.uri)
    (ids,) = prompts(answerer, [[1, 2, 3] * 9], [PAIRS[0][0]])
    with torch.inference_mode():
        expected, logits = trained.model(input_ids=ids).logits, answerer.model(input_ids=ids).logits
        with trained.model.disable_adapter():
            base_logits = trained.model(input_ids=ids).logits
    # Packed 4-bit weights are multiplied in 16 bits, unpacked ones in full.
    assert relative(logits, expected) < 0.03
    assert relative(base_logits, expected) > 0.06


def test_a_batch_is_answered_as_each_question_alone_word_for_word(bundle):
    _, made_bundle = bundle
    answerer, rng = Answerer.load(made_bundle.uri), np.random.default_rng(5)
    movements = [rng.integers(CODES, size=n).tolist() for n in (1, 3, 17, 33, 60, 25)]
    questions = [question for question, _ in PAIRS * 2]
    queries = [about(m, None, q) for m, q in zip(movements, questions, strict=True)]
    together = answerer.generate(queries)
    alone = [answerer.generate([query])[0] for query in queries]
    by_hand = []
    for ids in prompts(answerer, movements, questions):
        start = ids.shape[1]
        with torch.inference_mode():
            while ids.shape[1] - start < answerer.max_new_tokens and ids[0, -1] != answerer.stop:
                best = answerer.model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
                ids = torch.cat([ids, best.view(1, 1)], dim=1)
        by_hand.append(answerer.tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    assert together == alone == by_hand
    assert [answer.text for answer in answerer.answer(queries)] == together
    assert len(set(together)) > 1


def test_a_scored_answer_is_what_generation_gives_and_has_its_probability(bundle):
    answerer = Answerer.load(bundle[1].uri)
    rng = np.random.default_rng(6)
    movements = [rng.integers(CODES, size=n).tolist() for n in (4, 30)]
    tasks = answerer.tasks.values()
    queries = [[about(movement, task.name, task.templates[0]) for task in tasks] for movement in movements]
    scored = iter(answerer.score_candidates([*queries[0], *queries[1]]))
    for of_movement in queries:
        texts = answerer.generate(of_movement)
        for task, answer, text in zip(tasks, [next(scored) for _ in tasks], texts, strict=True):
            if task.kind == "regression":
                assert answer.low <= task.parse(answer.text) <= answer.high
            else:
                assert sum(answer.probabilities) == pytest.approx(1)
                assert answer.probabilities == sorted(answer.probabilities, reverse=True)
                assert answer.text == task.answer(answer.labels[0])
                if text in map(task.answer, answer.labels) and answer.probabilities[0] > 0.5:
                    assert answer.text == text


def test_two_movements_are_compared_by_the_answers_about_each_alone(bundle):
    tasks = TASKS | load_tasks(CONFIGS / "tasks_extra", ["which_impaired"])
    answerer = answerer_of(bundle[1], tasks)
    both = [[7] * 20, [*range(20)]]
    question = TASKS["impaired"].templates[0]
    alone = answerer.score_candidates([about(movement, "impaired", question) for movement in both])
    a, b = (probability_of(answer, "yes") for answer in alone)
    only_a, only_b = a * (1 - b), b * (1 - a)
    first, second = answerer.score_candidates(
        [compare(movements, "which_impaired", "Who?") for movements in (both, both[::-1])]
    )
    assert probability_of(first, "A") == pytest.approx(only_a / (only_a + only_b))
    assert probability_of(second, "A") == pytest.approx(only_b / (only_a + only_b))
    assert first.log_likelihood == min(answer.log_likelihood for answer in alone)
    # Without a task that asks it about one movement, the two are read together.
    del tasks["impaired"]
    (together,) = answerer_of(bundle[1], tasks).score_candidates([compare(both, "which_impaired", "Who?")])
    assert sum(together.probabilities) == pytest.approx(1)
    assert together.log_likelihood != first.log_likelihood


def test_a_persons_answer_is_the_mean_over_their_movements(bundle):
    calibration = Calibration(
        people={"impaired": {2: TaskCalibration(), 3: TaskCalibration(risk_thresholds=[(0.3, 0.5)])}}
    )
    answerer = answerer_of(bundle[1], calibration=calibration)
    task_and_question = ("impaired", TASKS["impaired"].templates[0])
    movements = [[7] * 20, [*range(20)], [3] * 9]
    (person,) = answerer.answer([of_person(movements, *task_and_question)])
    alone = answerer.answer([about(movement, *task_and_question) for movement in movements])
    for label, p in zip(person.labels, person.probabilities, strict=True):
        assert p == pytest.approx(np.mean([probability_of(answer, label) for answer in alone]))
    assert person.log_likelihood == min(answer.log_likelihood for answer in alone)
    assert person.selective_risk == 0.3
    with pytest.raises(InputError, match="expected a task with answers to choose from"):
        answerer.answer([about(movements[0], *task_and_question), of_person(movements, None, "Why?")])


def test_an_answer_about_a_movement_and_its_mirror_image_is_their_mean(bundle):
    tasks = TASKS | load_tasks(CONFIGS / "tasks_extra", ["which_impaired"])
    calibration = Calibration(people={"impaired": {2: TaskCalibration()}})
    alone, answerer = (answerer_of(bundle[1], tasks, calibration, views=views) for views in (1, 2))
    task_and_question = ("impaired", TASKS["impaired"].templates[0])
    both = [MotionTokens([7] * 20, [[3] * 20]), MotionTokens([*range(30)], [[*range(30, 0, -1)]])]
    as_recorded = alone.score_candidates([about(motion.tokens, *task_and_question) for motion in both])
    assert alone.score_candidates([about(motion, *task_and_question) for motion in both]) == as_recorded
    images = answerer.score_candidates([about(motion.views[0], *task_and_question) for motion in both])
    together = answerer.score_candidates(
        [*(about(motion, *task_and_question) for motion in both), about(both[0].tokens, *task_and_question)]
    )
    for answer, recorded, image in zip(together, as_recorded, images, strict=False):
        for label, p in zip(answer.labels, answer.probabilities, strict=True):
            assert p == pytest.approx(np.mean([probability_of(view, label) for view in (recorded, image)]))
        assert answer.log_likelihood == min(recorded.log_likelihood, image.log_likelihood)
    np.testing.assert_allclose(together[2].probabilities, as_recorded[0].probabilities, atol=1e-6)
    # A person's movements, two that are compared, and what is generated, which is about the movement itself.
    person, pair, text = answerer.answer(
        [
            of_person(both, *task_and_question),
            compare(both, "which_impaired", "Who?"),
            about(both[0], None, "Why?"),
        ]
    )
    yes = [probability_of(answer, "yes") for answer in together[:2]]
    assert probability_of(person, "yes") == pytest.approx(np.mean(yes))
    a, b = yes[0] * (1 - yes[1]), yes[1] * (1 - yes[0])
    assert probability_of(pair, "A") == pytest.approx(a / (a + b))
    assert [text.text] == answerer.generate([about(both[0].tokens, None, "Why?")])


def test_an_answer_over_templates_is_their_mean_whichever_of_them_was_asked(bundle):
    answerer, averaging = (answerer_of(bundle[1], templates=n) for n in (1, 3))
    movement = [*range(20)]
    for task in answerer.tasks.values():
        first = task.templates[:3]
        queries = [about(movement, task.name, words) for words in first]
        alone = [answerer.score_candidates([query])[0] for query in queries]
        assert [len(answer.template_answers) for answer in alone] == [1, 1, 1]
        for query in queries:
            answer, repeated = averaging.score_candidates([query] * 2)
            assert (answer.text, answer.template_answers) == (repeated.text, repeated.template_answers)
            assert sorted(answer.template_answers) == sorted(single.text for single in alone)
            if task.kind == "classification":
                for label, p in zip(answer.labels, answer.probabilities, strict=True):
                    mean = np.mean([probability_of(single, label) for single in alone])
                    assert p == pytest.approx(mean, abs=1e-4)
            else:
                low, high = min(single.low for single in alone), max(single.high for single in alone)
                assert low <= task.parse(answer.text) <= high


def test_a_number_and_its_interval_are_those_of_its_whole_distribution(bundle):
    answerer = answerer_of(bundle[1], views=2, templates=3)
    movements = [MotionTokens([7] * 20, [[3] * 20]), [*range(20)]]
    for task in (t for t in answerer.tasks.values() if t.kind == "regression"):
        queries = [about(movement, task.name, task.templates[0]) for movement in movements]
        quantiles_only = answerer.score_candidates(queries)
        full_distribution = answerer.score_candidates(queries, full_distribution=True)
        for searched, full in zip(quantiles_only, full_distribution, strict=True):
            assert (searched.text, searched.low, searched.high, searched.template_answers) == (
                full.text, full.low, full.high, full.template_answers
            )  # fmt: skip
            assert (searched.mean, searched.log_likelihood) == (None, full.log_likelihood)
            assert full.low < full.mean < full.high


def test_a_mixed_batch_is_answered_in_order_and_as_each_alone(bundle):
    answerer = Answerer.load(bundle[1].uri)
    tasks = list(answerer.tasks.values())
    queries = [
        about([1, 2, 3], tasks[0].name, tasks[0].templates[0]),
        about([4] * 9, None, "Is this a walk?"),
        about([1, 2, 3], tasks[1].name, tasks[1].templates[1]),
        about([5, 6], tasks[0].name, tasks[0].templates[0]),
    ]
    together = answerer.answer(queries)
    for query, answer in zip(queries, together, strict=True):
        (alone,) = answerer.answer([query])
        assert (alone.text, alone.labels) == (answer.text, answer.labels)
        np.testing.assert_allclose(alone.probabilities, answer.probabilities, atol=1e-4)


def test_max_new_tokens_is_enough_for_every_trained_answer(bundle, artifacts):
    answerer = Answerer.load(bundle[1].uri)
    answers = set(read_questions(artifacts[1]["questions"])["answer"])
    longest = max(len(answerer.encoder.answer(answer)) for answer in answers)
    assert longest <= answerer.max_new_tokens


def test_a_movement_longer_than_was_trained_on_loses_its_end(bundle, monkeypatch):
    answerer, received = Answerer.load(bundle[1].uri), []
    limit = answerer.info.max_length
    monkeypatch.setattr(
        answerer.model, "generate", lambda **given: received.append(given["input_ids"]) or received[-1]
    )
    question = PAIRS[0][0]
    answerer.generate([about([7] * (2 * limit), None, question)])
    ids, tail = received[0][0].tolist(), answerer.encoder.text(MOTION_END + question_text(question)).tolist()
    assert len(ids) + answerer.max_new_tokens == limit
    assert ids[-len(tail) :] == tail
    assert ids[: -len(tail)] == answerer.encoder.prefix([[7] * limit])[: len(ids) - len(tail)].tolist()


def test_the_longest_movement_read_whole_is_so_whatever_is_asked(bundle):
    answerer = Answerer.load(bundle[1].uri)
    encoder, longest = answerer.encoder, answerer.longest_movement(0)
    templates = [text for task in answerer.tasks.values() for text in task.templates]
    max_tokens = answerer.info.max_length - answerer.max_new_tokens - len(encoder.prefix([[0] * longest]))
    unused = [max_tokens - len(encoder.text(question_text(template))) for template in templates]
    assert min(unused) == 0


def test_the_longest_question_is_answered_and_a_longer_one_refused(bundle):
    answerer = Answerer.load(bundle[1].uri)
    unused = answerer.longest_question - len(answerer.encoder.question("?"))
    question = "?" * (unused + 1)
    assert len(answerer.encoder.question(question)) == answerer.longest_question
    assert len(answerer.generate([about([7] * 50, None, question)])) == 1
    with pytest.raises(InputError, match="for a movement"):
        answerer.generate([about([7] * 50, None, question + "?")])
