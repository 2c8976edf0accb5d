"""Answers that kinematics gives: measured quantities, and the measured value beside a model's answer.

The language model is never asked for them. A measured value does not depend on what the model was trained on, so it
is shown for a recording that is unlike the training data too. Pure functions. Knows nothing about models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from biomechgpt.answering.answer import Answer, Measured, MeasuredNorm
from biomechgpt.motion import quantities
from biomechgpt.motion.quantities import QUANTITIES, Measurement, Movement
from biomechgpt.questions.tasks import BaseTask, DescriptionTask, MeasuredTask, RegressionTask

Analysis = Mapping[str, Sequence[Measured]]
"""{quantity: its values}: everything that was measured of one recording."""


def analyse(movement: Movement) -> dict[str, list[Measured]]:
    """Every quantity of a movement, as records of answers."""
    return {
        name: [_record(name, value) for value in values]
        for name, values in quantities.measure_all(movement).items()
    }


def by_quantity(values: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Values in a list, as /v1/motions returns them, by their quantity."""
    found: dict[str, list[Measured]] = {}
    for value in values:
        found.setdefault(value.quantity, []).append(value)
    return found


def answer(task: MeasuredTask, analysis: Analysis) -> Answer:
    """The answer to a measured task. A recording that does not contain the quantity gets a plain reason."""
    values = list(analysis.get(task.quantity, ()))
    if not any(value.value is not None for value in values):
        reasons = dict.fromkeys(value.reason for value in values if value.reason)
        why = "; ".join(reasons) or "nothing was measured of this recording"
        reason = f"Cannot be measured: {why}."
        return Answer(
            reason, status="does_not_apply", reason=reason, answered_by="kinematics", measured=values
        )
    return Answer(_sentence(task, values), answered_by="kinematics", measured=values)


def is_needed(task: BaseTask) -> bool:
    """Whether an answer to a task needs what is measured of the recording."""
    if isinstance(task, RegressionTask):
        return task.measured_as is not None
    return isinstance(task, MeasuredTask | DescriptionTask)


def beside(found: Answer, task: BaseTask, analysis: Analysis) -> Answer:
    """The model's answer with the measured value of the same quantity beside it.

    If both differ by more than the task's tolerance, the answer is uncertain and says so.
    """
    if not isinstance(task, RegressionTask) or task.measured_as is None:
        return found
    values = list(analysis.get(task.measured_as, ()))
    found = replace(found, measured=values)
    stated = task.parse(found.text)
    if found.status != "answered" or stated is None or not values or values[0].value is None:
        return found
    measured, allowed = values[0], tolerance(task)
    if abs(stated - values[0].value) <= allowed:
        return found
    reason = (
        f"Uncertain: the model says {found.text}, but {_number(measured)} was measured{_rests_on(measured)}. "
        f"They differ by more than {allowed:g} {task.unit}."
    )
    return replace(found, status="uncertain", reason=reason, coverage_guaranteed=False)


def tolerance(task: RegressionTask) -> float:
    """Largest difference between an answer and the measured value, in the task's unit."""
    return task.tolerance or QUANTITIES[str(task.measured_as)].tolerance


PARAMETER_QUANTITIES = {
    "duration": ("duration", ""),
    "cadence": ("cadence", ""),
    "speed": ("speed", ""),
    "symmetry": ("step_time_symmetry", ""),
    **{
        f"{joint}_{side}": (f"{joint}_range", part)
        for joint in ("hip", "knee", "ankle", "shoulder")
        for side, part in quantities.SIDE_NAMES.items()
    },
}
"""{motion parameter: (quantity, part)}: what a description states, as a measured quantity."""


def parameters(analysis: Analysis) -> dict[str, float | None]:
    """The motion parameters (`motion.parameters.PARAMETERS`) among the measured quantities; None: not measured."""
    return {
        name: next((v.value for v in analysis.get(quantity, ()) if v.part == part), None)
        for name, (quantity, part) in PARAMETER_QUANTITIES.items()
    }


def single_value(found: Answer) -> float | None:
    """The value of an answer that has exactly one."""
    values = [value.value for value in found.measured if value.value is not None]
    return values[0] if len(values) == 1 else None


def in_words(values: Sequence[Measured]) -> str:
    """The values in words, one after the other: `right 0.66 m (4 steps, 1.2 to 3.4 s); left: reason`."""
    return "; ".join(_words(value) for value in values)


def _record(name: str, value: Measurement) -> Measured:
    quantity, norm = QUANTITIES[name], value.norm
    return Measured(
        quantity=name,
        label=quantity.label,
        part=value.part,
        value=None if value.value is None else round(value.value, quantity.decimals) + 0.0,
        unit=quantity.unit,
        steps=value.n,
        events=value.events,
        begin_s=None if value.begin_s is None else round(value.begin_s, 2),
        end_s=None if value.end_s is None else round(value.end_s, 2),
        norm=None
        if norm is None
        else MeasuredNorm(
            round(norm.mean, quantity.decimals + 1),
            round(norm.sd, quantity.decimals + 1),
            value.norm_of,
            norm.source.shown,
            norm.verified,
        ),
        note=value.note,
        reason=value.reason,
    )


def _sentence(task: MeasuredTask, values: Sequence[Measured]) -> str:
    """`Step length: right 0.66 m (4 steps, 1.2 to 3.4 s); left ... . Healthy adults of 50 years: 0.58 m.`"""
    label = values[0].label
    text = f"{label[0].upper()}{label[1:]}: {in_words(values)}."
    norms = dict.fromkeys(_norm(value, task.decimals) for value in values if value.norm)
    notes = dict.fromkeys(f"{value.note[0].upper()}{value.note[1:]}." for value in values if value.note)
    return " ".join([text, *norms, *notes])


def _norm(value: Measured, decimals: int) -> str:
    norm = value.norm
    assert norm is not None
    who = f"{norm.group[0].upper()}{norm.group[1:]}"
    unit = f" {value.unit}".rstrip()
    return f"{who}: {norm.mean:.{decimals}f}{unit} (SD {norm.sd:.{decimals}f})."


def _words(value: Measured) -> str:
    if value.value is None:
        return f"{value.part}: {value.reason}".removeprefix(": ")
    return f"{value.part} {_number(value)}{_rests_on(value)}".lstrip()


def _number(value: Measured) -> str:
    decimals = QUANTITIES[value.quantity].decimals
    return f"{value.value:.{decimals}f} {value.unit}".rstrip()


def _rests_on(value: Measured) -> str:
    """` (4 steps, 1.2 to 3.4 s)`; only the place if it rests on no events."""
    parts = []
    if value.steps is not None:
        parts.append(f"{value.steps} {value.events if value.steps != 1 else value.events.removesuffix('s')}")
    if value.begin_s is not None and value.end_s is not None:
        same = round(value.begin_s, 1) == round(value.end_s, 1)
        parts.append(f"at {value.begin_s:.1f} s" if same else f"{value.begin_s:.1f} to {value.end_s:.1f} s")
    return f" ({', '.join(parts)})" if parts else ""
