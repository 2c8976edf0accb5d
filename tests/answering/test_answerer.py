"""A bundle answers alone as in a batch, as its mean over phrasings, images and movements, and within its room."""

import numpy as np
import pytest
import torch

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.calibration import Calibration, TaskCalibration
from biomechgpt.core.settings import InputError
from biomechgpt.prompts.encoding import MOTION_END, Mirrored, Person, prefix_text, question_text
from biomechgpt.questions.dataset import read_questions
from biomechgpt.questions.tasks import load_tasks
from tiny_language import CODES, CONFIGS, PAIRS, TASKS, answerer_of, relative

pytestmark = pytest.mark.usefixtures("one_thread")


def prompts(answerer, movements, questions):
    texts = [prefix_text(m) + question_text(q) for m, q in zip(movements, questions, strict=True)]
    read = [answerer.tokenizer(t, add_special_tokens=False, return_tensors="pt")["input_ids"] for t in texts]
    return [ids.to(answerer.model.device) for ids in read]


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
    together = answerer.generate(movements, questions)
    alone = [answerer.generate([m], [q])[0] for m, q in zip(movements, questions, strict=True)]
    by_hand = []
    for ids in prompts(answerer, movements, questions):
        start = ids.shape[1]
        with torch.inference_mode():
            while ids.shape[1] - start < answerer.max_new_tokens and ids[0, -1] != answerer.stop:
                best = answerer.model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
                ids = torch.cat([ids, best.view(1, 1)], dim=1)
        by_hand.append(answerer.tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    assert together == alone == by_hand
    asked = zip(movements, questions, strict=True)
    assert [w.text for w in answerer.answer([(m, None, q) for m, q in asked])] == together
    assert len(set(together)) > 1


def test_a_weighed_answer_is_what_generation_says_and_has_its_probability(bundle):
    answerer = Answerer.load(bundle[1].uri)
    rng = np.random.default_rng(6)
    movements = [rng.integers(CODES, size=n).tolist() for n in (4, 30)]
    asked = [(task.name, task.templates[0]) for task in answerer.tasks.values()]
    weighed = iter(answerer.weigh([(movement, *pair) for movement in movements for pair in asked]))
    for movement in movements:
        answers = [next(weighed) for _ in asked]
        said = answerer.generate([movement] * len(asked), [question for _, question in asked])
        for (name, _), answer, text in zip(asked, answers, said, strict=True):
            task = answerer.tasks[name]
            if task.kind == "regression":
                assert answer.low <= task.parse(answer.text) <= answer.high
            else:
                assert sum(answer.probabilities) == pytest.approx(1)
                assert answer.probabilities == sorted(answer.probabilities, reverse=True)
                assert answer.text == task.answer(answer.labels[0])
                if text in map(task.answer, answer.labels) and answer.probabilities[0] > 0.5:
                    assert answer.text == text


def test_two_movements_are_compared_by_what_is_said_of_each_alone(bundle):
    tasks = TASKS | load_tasks(CONFIGS / "tasks_extra", ["which_impaired"])
    answerer = answerer_of(bundle[1], tasks)
    both = [[7] * 20, [*range(20)]]
    alone = answerer.weigh([(movement, "impaired", TASKS["impaired"].templates[0]) for movement in both])
    a, b = (dict(zip(one.labels, one.probabilities, strict=True))["yes"] for one in alone)
    first, second = answerer.weigh([(m, "which_impaired", "Who?") for m in (both, both[::-1])])
    for answer, only, other in ((first, a * (1 - b), b * (1 - a)), (second, b * (1 - a), a * (1 - b))):
        said = dict(zip(answer.labels, answer.probabilities, strict=True))
        assert said["A"] == pytest.approx(only / (only + other))
    assert first.log_likelihood == min(one.log_likelihood for one in alone)
    # Without a task that asks it of one movement, the two are read together.
    del tasks["impaired"]
    (together,) = answerer_of(bundle[1], tasks).weigh([(both, "which_impaired", "Who?")])
    assert sum(together.probabilities) == pytest.approx(1)
    assert together.log_likelihood != first.log_likelihood


def test_a_persons_answer_is_the_mean_over_their_movements(bundle):
    calibration = Calibration(people={"impaired": TaskCalibration(risk_curve=[(0.5, 0.3)])})
    answerer = answerer_of(bundle[1], calibration=calibration)
    asked = ("impaired", TASKS["impaired"].templates[0])
    movements = [[7] * 20, [*range(20)], [3] * 9]
    (about,) = answerer.answer([(Person(movements), *asked)])
    alone = answerer.answer([(movement, *asked) for movement in movements])
    for label, p in zip(about.labels, about.probabilities, strict=True):
        assert p == pytest.approx(np.mean([w.probabilities[w.labels.index(label)] for w in alone]))
    assert about.log_likelihood == min(w.log_likelihood for w in alone)
    assert about.selective_risk == 0.3
    with pytest.raises(InputError, match="expected a task with answers to choose from"):
        answerer.answer([(movements[0], *asked), (Person(movements), None, "Why?")])


def test_an_answer_about_a_movement_and_its_mirror_image_is_their_mean(bundle):
    tasks = TASKS | load_tasks(CONFIGS / "tasks_extra", ["which_impaired"])
    calibration = Calibration(people={"impaired": TaskCalibration()})
    alone, answerer = (answerer_of(bundle[1], tasks, calibration, mirrored=on) for on in (False, True))
    asked = ("impaired", TASKS["impaired"].templates[0])
    both = [Mirrored([7] * 20, [3] * 20), Mirrored([*range(30)], [*range(30, 0, -1)])]
    as_recorded = alone.weigh([(movement.tokens, *asked) for movement in both])
    assert alone.weigh([(movement, *asked) for movement in both]) == as_recorded
    images = answerer.weigh([(movement.image, *asked) for movement in both])
    together = answerer.weigh([*((movement, *asked) for movement in both), (both[0].tokens, *asked)])
    for answer, one, other in zip(together, as_recorded, images, strict=False):
        for label, p in zip(answer.labels, answer.probabilities, strict=True):
            assert p == pytest.approx(np.mean([w.probabilities[w.labels.index(label)] for w in (one, other)]))
        assert answer.log_likelihood == min(one.log_likelihood, other.log_likelihood)
    np.testing.assert_allclose(together[2].probabilities, as_recorded[0].probabilities, atol=1e-6)
    # A person's movements, two that are compared, and what is generated, which is about the movement itself.
    person, pair, text = answerer.answer(
        [(Person(both), *asked), (both, "which_impaired", "Who?"), (both[0], None, "Why?")]
    )
    yes = [answer.probabilities[answer.labels.index("yes")] for answer in together[:2]]
    assert person.probabilities[person.labels.index("yes")] == pytest.approx(np.mean(yes))
    a, b = yes[0] * (1 - yes[1]), yes[1] * (1 - yes[0])
    assert pair.probabilities[pair.labels.index("A")] == pytest.approx(a / (a + b))
    assert [text.text] == answerer.generate([both[0].tokens], ["Why?"])


def test_an_answer_over_phrasings_is_their_mean_whichever_of_them_was_asked(bundle):
    answerer, averaging = (answerer_of(bundle[1], templates=n) for n in (1, 3))
    movement = [*range(20)]
    for task in answerer.tasks.values():
        first = task.templates[:3]
        alone = [answerer.weigh([(movement, task.name, words)])[0] for words in first]
        assert [len(one.template_answers) for one in alone] == [1, 1, 1]
        together = [averaging.weigh([(movement, task.name, words)] * 2) for words in first]
        for one, other in together:
            assert (one.text, one.template_answers) == (other.text, other.template_answers)
            assert sorted(one.template_answers) == sorted(each.text for each in alone)
            if task.kind == "classification":
                for label, p in zip(one.labels, one.probabilities, strict=True):
                    mean = np.mean([w.probabilities[w.labels.index(label)] for w in alone])
                    assert p == pytest.approx(mean, abs=1e-4)
            else:
                low, high = min(w.low for w in alone), max(w.high for w in alone)
                assert low <= task.parse(one.text) <= high


def test_a_number_and_its_interval_are_those_of_its_whole_distribution(bundle):
    answerer = answerer_of(bundle[1], mirrored=True, templates=3)
    movements = [Mirrored([7] * 20, [3] * 20), [*range(20)]]
    for task in (t for t in answerer.tasks.values() if t.kind == "regression"):
        asked = [(movement, task.name, task.templates[0]) for movement in movements]
        for one, whole in zip(answerer.weigh(asked), answerer.weigh(asked, whole=True), strict=True):
            assert (one.text, one.low, one.high, one.template_answers) == (
                whole.text, whole.low, whole.high, whole.template_answers
            )  # fmt: skip
            assert (one.mean, one.log_likelihood) == (None, whole.log_likelihood)
            assert whole.low < whole.mean < whole.high


def test_a_mixed_batch_is_answered_in_order_and_as_each_alone(bundle):
    answerer = Answerer.load(bundle[1].uri)
    tasks = list(answerer.tasks.values())
    asked = [
        ([1, 2, 3], tasks[0].name, tasks[0].templates[0]),
        ([4] * 9, None, "Is this a walk?"),
        ([1, 2, 3], tasks[1].name, tasks[1].templates[1]),
        ([5, 6], tasks[0].name, tasks[0].templates[0]),
    ]
    together = answerer.answer(asked)
    for one, answer in zip(asked, together, strict=True):
        (alone,) = answerer.answer([one])
        assert (alone.text, alone.labels) == (answer.text, answer.labels)
        np.testing.assert_allclose(alone.probabilities, answer.probabilities, atol=1e-4)


def test_there_is_room_for_every_answer_that_was_trained(bundle, artifacts):
    answerer = Answerer.load(bundle[1].uri)
    answers = set(read_questions(artifacts[1]["questions"])["answer"])
    longest = max(len(answerer.encoder.answer(answer)) for answer in answers)
    assert longest <= answerer.max_new_tokens


def test_a_movement_longer_than_was_trained_on_loses_its_end(bundle, monkeypatch):
    answerer, asked = Answerer.load(bundle[1].uri), []
    limit = answerer.info.max_length
    monkeypatch.setattr(
        answerer.model, "generate", lambda **given: asked.append(given["input_ids"]) or asked[-1]
    )
    question = PAIRS[0][0]
    answerer.generate([[7] * (2 * limit)], [question])
    ids, tail = asked[0][0].tolist(), answerer.encoder.text(MOTION_END + question_text(question)).tolist()
    assert len(ids) + answerer.max_new_tokens == limit
    assert ids[-len(tail) :] == tail
    assert ids[: -len(tail)] == answerer.encoder.prefix([7] * limit)[: len(ids) - len(tail)].tolist()


def test_the_longest_movement_read_whole_is_so_whatever_is_asked(bundle):
    answerer = Answerer.load(bundle[1].uri)
    encoder, longest = answerer.encoder, answerer.longest_movement
    phrasings = [text for task in answerer.tasks.values() for text in task.templates]
    room = answerer.info.max_length - answerer.max_new_tokens
    spare = [
        room - len(encoder.prefix([0] * longest)) - len(encoder.text(question_text(q))) for q in phrasings
    ]
    assert min(spare) == 0


def test_the_longest_question_is_answered_and_a_longer_one_refused(bundle):
    answerer = Answerer.load(bundle[1].uri)
    spare = answerer.longest_question - len(answerer.encoder.question("?"))
    question = "?" * (spare + 1)
    assert len(answerer.encoder.question(question)) == answerer.longest_question
    assert len(answerer.generate([[7] * 50], [question])) == 1
    with pytest.raises(InputError, match="for a movement"):
        answerer.generate([[7] * 50], [question + "?"])
