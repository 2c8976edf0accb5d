"""Which free-text questions a model answers: new wordings of its tasks, and questions that movement cannot answer.

Each question is asked about held-out movements as the server asks it: the intent classifier maps it to a task, or
the language model may refuse it.
"""

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import yaml

from biomechgpt.answering.answerer import Answerer
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.intent import IntentClassifier
from biomechgpt.questions.tasks import REFUSED, RefusalTask, askable


def audit_scope(answerer: Answerer, motions: Sequence[MotionTokens]) -> dict[str, Any]:
    """{question set: results}; {} if the model has no refusal task.

    The sets are `similar_wording`, `free_wording` and `out_of_scope` of scope.yaml, and `held_out_refusals`, the
    refusal task's test templates. The results of a set:

    questions: number of its questions, without those that the model was trained with.
    should_be_refused: whether they are out of scope.
    mapped: share of the questions that the intent classifier maps to a task.
    correct: share of the mapped questions that got the right task; None if the set does not name the tasks.
    refused: share of the answers that are refusals.
    refused_by_model: the same if every question went to the language model.
    examples: the questions with the worst results.
    """
    tasks = answerer.tasks
    refusals = [task for task in tasks.values() if isinstance(task, RefusalTask)]
    if not refusals:
        return {}
    questions = yaml.safe_load(
        resources.files("biomechgpt.evaluation.audit").joinpath("scope.yaml").read_text()
    )
    task_of = {
        text: task for task, texts in questions["free_wording"].items() if task in tasks for text in texts
    }
    question_sets = {
        "similar_wording": questions["similar_wording"],
        "free_wording": list(task_of),
        "out_of_scope": questions["out_of_scope"],
        "held_out_refusals": [text for task in refusals for text in task.test_templates],
    }
    trained = {text for task in tasks.values() for text in [*task.templates, *task.paraphrases]}
    classifier = IntentClassifier(tasks)
    return {
        name: _results(answerer, classifier, refusals[0], new, motions, task_of, name)
        for name, texts in question_sets.items()
        if (new := [text for text in texts if text not in trained])
    }


def _results(
    answerer: Answerer,
    classifier: IntentClassifier,
    refusal: RefusalTask,
    questions: list[str],
    motions: Sequence[MotionTokens],
    task_of: dict[str, str],
    name: str,
) -> dict[str, Any]:
    """The results of one question set. task_of: {question: its task}, if it is known. name: of the set."""
    mapped = [classifier.task(question, askable(answerer.tasks, 1)) for question in questions]
    counts = np.zeros(len(questions))
    for motion in motions:
        texts = answerer.generate([Query([motion], "single", None, question) for question in questions])
        counts += [refusal.parse(text) == REFUSED for text in texts]
    refused_by_model = counts / max(len(motions), 1)
    # A question that is mapped to a task is answered as that task, so the language model cannot refuse it.
    refused = np.where([task is None for task in mapped], refused_by_model, 0.0)
    should_refuse = name in ("out_of_scope", "held_out_refusals")
    worst = np.argsort(refused if should_refuse else -refused, kind="stable")[:8]
    correct = [
        task == task_of[question]
        for question, task in zip(questions, mapped, strict=True)
        if task and question in task_of
    ]
    return {
        "questions": len(questions),
        "should_be_refused": should_refuse,
        "mapped": round(float(np.mean([task is not None for task in mapped])), 4),
        "correct": round(float(np.mean(correct)), 4) if correct else None,
        "refused": round(float(refused.mean()), 4),
        "refused_by_model": round(float(refused_by_model.mean()), 4),
        "examples": [
            {"question": questions[i], "refused": round(float(refused[i]), 2), "task": mapped[i]}
            for i in worst
        ],
    }
