"""What becomes of an answer: whether it is shown, and whether it carries the guarantee.

Pure functions. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import replace

from biomechgpt.answering.answer import Answer, Unlike
from biomechgpt.answering.gates import Gate
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.questions.tasks import BaseTask, NumberTask


def with_status(
    answer: Answer,
    task: BaseTask,
    gate: Gate,
    unlike: Unlike,
    statistics: Sequence[MovementStatistics],
    provenance: str | None,
) -> Answer:
    """The answer with its status, and with a guarantee only if nothing speaks against one.

    gate: whether the question applies.
    unlike: whether a recording is unlike the training data. This comes first: the model's own answers about such a
        recording mean nothing, those that decide whether the question applies included.
    statistics: of the recordings, as far as they are known.
    provenance: kind of the recordings that the model was calibrated on.
    The label, number and interval stay in the record, for evaluation. `withheld` removes them.
    """
    same_kind = bool(statistics) and all(
        known.provenance is not None and known.provenance in (provenance or "").split(" and ")
        for known in statistics
    )
    joint = (
        [] if not gate.condition or gate.applies is None else [gate.applies * p for p in answer.probabilities]
    )
    answer = replace(
        answer,
        applies=gate.applies,
        condition=gate.condition,
        unlike=unlike,
        joint_probabilities=joint,
        coverage_guaranteed=answer.coverage_guaranteed
        and same_kind
        and unlike.checked
        and gate.applies is not None,
    )
    too_long = _longer_than_recording(answer, task, statistics)
    if unlike.unlike:
        return replace(answer, status="unlike", coverage_guaranteed=False)
    if gate.reason:
        return replace(answer, status="does_not_apply", reason=gate.reason, coverage_guaranteed=False)
    if too_long:
        return replace(answer, status="uncertain", reason=too_long, coverage_guaranteed=False)
    return answer


def _longer_than_recording(answer: Answer, task: BaseTask, statistics: Sequence[MovementStatistics]) -> str:
    """Why a stated duration cannot be right; empty if it can."""
    duration = task.parse(answer.text) if isinstance(task, NumberTask) and task.unit == "s" else None
    for known in statistics:
        if isinstance(duration, float) and duration > known.duration_s:
            return f"Uncertain: the model states {answer.text}, but the recording lasts {known.duration_s:.1f} s."
    return ""


def withheld(answer: Answer, sentence: str = "") -> Answer:
    """The answer as it is shown: without a label, number or interval unless its status is `answered`.

    sentence: text of an answer about a recording that is unlike the training data.
    """
    if answer.status == "answered":
        return answer
    text = answer.reason or answer.text
    if answer.status == "unlike":
        text = sentence or "This recording is unlike the training data, so its answers are withheld."
    return Answer(
        text=text,
        status=answer.status,
        reason=answer.reason,
        applies=answer.applies,
        condition=answer.condition,
        unlike=answer.unlike,
        log_likelihood=answer.log_likelihood,
        answered_by=answer.answered_by,
        measured=answer.measured,
    )


def unlike_sentence(unlike: Unlike, provenance: str) -> str:
    """Why the answers about a recording are withheld, in plain words.

    provenance: of the model's training data.
    """
    seen = "simulated people" if provenance == "synthetic" else "people of its training data"
    usual = ""
    if unlike.value is not None and unlike.usual:
        unit = f" {unlike.unit}".rstrip()
        low, high = unlike.usual
        span = f"at most {high:g}{unit}" if low == 0 else f"{low:g} to {high:g}{unit}"
        usual = f" ({unlike.quantity}: {unlike.value:g}{unit}, usually {span})"
    return (
        f"This model has seen only {seen}. This recording is unlike them{usual}, so its answers are withheld. "
        "Values that are measured from the joint angles are still shown."
    )
