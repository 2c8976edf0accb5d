"""Questions in a user's own words: what the model is asked, and how its answer is worded.

Knows nothing about HTTP paths, and nothing about Ray.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from biomechgpt.answering.answer import Status
from biomechgpt.answering.risk import RISK_CONFIDENCE
from biomechgpt.motion.skeleton import anatomical_name
from biomechgpt.questions import replies
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import AnnotatedTask, LabelTask, MeasuredTask, Task, Tasks
from serve.schema import Answer

Recognise = Callable[[str, list[str]], Awaitable[Intent]]
"""The intent of a question, given the names of the tasks that can be asked."""

ANSWERED_BY_A_TASK = ("task", "label")
ABOUT_THE_LAST_ANSWER = ("why", "confidence")
MEASURED = "This is measured from the joint angles and the pelvis; the language model has no part in it."
"""Why a measured quantity is what it is, and how sure it is."""
MAX_NAMED = 3
"""Most joints that an explanation in words names for or against an answer."""


@dataclass(frozen=True)
class FreeQuestion:
    """A question in a user's own words.

    words: the question.
    intent: what it asks.
    earlier: the question of the last answer, if this one is about that answer.
    generates: whether the language model may write the answer.
    """

    words: str
    intent: Intent
    earlier: Intent | None = None
    generates: bool = False

    @property
    def task(self) -> str | None:
        """The task that the model is asked; None if it is asked none."""
        if self.intent.kind in ANSWERED_BY_A_TASK:
            return self.intent.task
        return self.earlier.task if self.earlier else None

    def queries(self, tasks: Tasks) -> list[tuple[str | None, str]]:
        """What the model is asked: a task in words of the training data, the question itself, or nothing."""
        if self.task is not None:
            return [(self.task, tasks[self.task].templates[0])]
        return [(None, self.words)] if self.generates else []


async def read_question(
    words: str, history: Sequence[str], recognise: Recognise, tasks: Sequence[str], writes_text: bool
) -> FreeQuestion:
    """What a question asks.

    history: earlier turns, the user's and the assistant's in turn.
    recognise: reads one question.
    tasks: names of the tasks that can be asked.
    writes_text: whether the base model can write text.
    """
    intent = await recognise(words, list(tasks))
    if intent.kind in ABOUT_THE_LAST_ANSWER:
        for turn in reversed(history[::2]):
            earlier = await recognise(turn, list(tasks))
            if earlier.kind in ANSWERED_BY_A_TASK:
                return FreeQuestion(words, intent, earlier)
    # A recording does not show pain, for example. The model may not write about it: nobody checks its text.
    may_be_written = intent.kind == "out_of_scope" and intent.about_movement and intent.label is None
    return FreeQuestion(words, intent, generates=writes_text and may_be_written)


def complete(
    answers: Sequence[Answer],
    question: FreeQuestion | None,
    tasks: Tasks,
    candidates: Sequence[str],
    labels: Mapping[str, Sequence[str]],
) -> list[Answer]:
    """The answers of a request, the one to its free question in the words of that question.

    answers: the model's answers; the last one is to the free question, if that asks the model anything.
    candidates: names of the tasks that can be asked.
    labels: {task: labels that it can be answered with}.
    """
    if question is None:
        return list(answers)
    intent = question.intent
    if not question.queries(tasks):
        status: Status = "answered" if intent.kind == "list" else "refused"
        text = replies.reply(intent, tasks, candidates, labels)
        reply = Answer(
            text=text,
            status=status,
            reason="" if status == "answered" else text,
            task=None,
            question=question.words,
            intent=intent.kind,
            refused=status == "refused",
        )
        return [*answers, reply]
    *others, answer = answers
    answer = replace(answer, intent=intent.kind, generated=question.task is None)
    asked = question.earlier or intent
    if asked.kind == "label" and answer.status in ("answered", "uncertain"):
        answer = replace(answer, text=yes_or_no(answer, tasks[str(asked.task)], str(asked.label)))
    if question.earlier and isinstance(tasks[str(asked.task)], MeasuredTask):
        answer = replace(answer, text=f"{answer.text.rstrip('.')}. {MEASURED}")
    elif intent.kind == "confidence" and answer.status in ("answered", "uncertain"):
        answer = replace(answer, text=confidence(answer, tasks[str(asked.task)]))
    if intent.assumed:
        reading = f"I read this as a question about {replies.task_title(str(intent.task))}."
        answer = replace(answer, assumed=True, text=f"{reading} {answer.text}")
    return [*others, answer]


def yes_or_no(answer: Answer, task: Task, label: str) -> str:
    """The answer to whether a label is true: yes or no, with the label's probability."""
    if not isinstance(task, LabelTask) or label not in answer.probabilities:
        return answer.text
    probability, name = answer.probabilities[label], task.answer(label)
    best = next(iter(answer.probabilities))
    if best == label:
        text = f"Yes, most likely: {name} (probability {probability:.2f})."
    else:
        most_likely = f"{task.answer(best)} ({answer.probabilities[best]:.2f})"
        text = f"No, probably not: {name} has probability {probability:.2f}. Most likely: {most_likely}."
    if answer.condition:
        text += f" This supposes: {answer.condition}."
    return f"Uncertain. {text}" if answer.status == "uncertain" else text


def confidence(answer: Answer, task: Task) -> str:
    """How sure an answer to a task is, in words."""
    sentences = [f"My answer was: {answer.text.rstrip('.')}."]
    guaranteed = "" if answer.coverage_guaranteed else " (coverage not guaranteed)"
    if answer.probabilities and isinstance(task, LabelTask):
        best, probability = next(iter(answer.probabilities.items()))
        sentences.append(f"The probability of {task.answer(best)} is {probability:.2f}.")
        if others := [task.answer(label) for label in answer.prediction_set if label != best]:
            sentences.append(f"Not ruled out: {', '.join(others)}{guaranteed}.")
        sentences.append(error_rate(answer.selective_risk))
    elif answer.low is not None and answer.high is not None:
        interval = f"{answer.low:g} to {answer.high:g} {answer.unit or ''}".strip()
        sentences.append(f"The value is likely within {interval}{guaranteed}.")
    return " ".join(sentences)


def error_rate(limit: float | None) -> str:
    """The guarantee of `risk.fit_risk_thresholds` in words. limit: an answer's selective risk."""
    if limit is None:
        return "No limit of the error rate is guaranteed for it."
    return (
        f"It is given even if at most {limit:.0%} of a new person's given answers may be wrong "
        f"(on average, with confidence {RISK_CONFIDENCE:.0%})."
    )


def asks_why(question: FreeQuestion | None, tasks: Tasks) -> bool:
    """True if a question asks what an earlier answer rests on, and that answer can be explained."""
    if question is None or question.intent.kind != "why" or question.task is None:
        return False
    return isinstance(tasks[question.task], AnnotatedTask)


def explanation_text(
    answer: str, joints: Mapping[str, float], seconds: Sequence[tuple[float, float, float]]
) -> str:
    """An explanation in words: the joints and seconds that support an answer, and those that speak against it.

    answer: its text. joints: {joint: weight}. seconds: (begin, end, weight) of each part of the recording.
    """
    name = f'"{answer.rstrip(".")}"'
    largest_first = sorted(joints.items(), key=lambda item: -abs(item[1]))
    supporting = [anatomical_name(joint) for joint, weight in largest_first if weight > 0][:MAX_NAMED]
    opposing = [anatomical_name(joint) for joint, weight in largest_first if weight < 0][:MAX_NAMED]
    begin, end, weight = max(seconds, key=lambda part: part[2], default=(0.0, 0.0, 0.0))
    if weight > 0:
        supporting.append(f"{begin:.1f} to {end:.1f} s")
    text = (
        f"{name} rests most on {listed(supporting)}."
        if supporting
        else f"No part of the recording by itself supports {name}."
    )
    return f"{text} Against it: {listed(opposing)}." if opposing else text


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
