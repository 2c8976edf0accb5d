"""Our codes, and the standard codes that mean the same. `definitions` serves them as CodeSystems."""

from biomechgpt.answering.answer import Measured
from biomechgpt.answering.measured import PARAMETER_QUANTITIES
from biomechgpt.motion.parameters import PARAMETERS
from biomechgpt.motion.quantities import QUANTITIES
from serve.fhir.elements import resource_id

STANDARD_CODES: dict[str, tuple[str, str, str]] = {
    "tug_time": (
        "http://loinc.org",
        "89423-8",
        "Time to rise from chair, walk 10 feet and back, and return to sitting [TUG]",
    ),
    "speed": ("http://snomed.info/sct", "724237005", "Gait speed (observable entity)"),
}
"""Measured quantity -> (system, code, display). LOINC has walking speed only as the mean of a day or of a named
test. No LOINC code was found for cadence or for the four square step test."""

TASK_QUANTITIES: dict[str, str] = {"walking_speed": "speed", "tug_time": "tug_time"}
"""Task that a model answers -> measured quantity of the same meaning, for its standard code."""

COMPONENTS: dict[str, str] = {
    "status": "Outcome of the question",
    "applies": "Probability that the question applies to this movement",
    "interval": "Interval that holds the number at the stated coverage",
    "prediction-set": "Labels that cannot be ruled out at the stated coverage",
    "coverage-guaranteed": "Whether the coverage is guaranteed",
    "unlike-checked": "Whether it was checked that the recording is like the training data",
    "unlike": "Whether the recording is unlike the training data",
    "unlike-participants": "Number of participants that the check was fitted on",
    "unlike-value": "Statistic that speaks most against the recording",
    "unlike-usual": "Usual range of this statistic",
}
"""Code of a component that says how far an answer can be trusted -> its meaning."""

_SIDES = ("right", "left")
_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "step_length",
            "stance_share",
            "peak_knee_flexion_swing",
            "knee_extension_contact",
            "hip_range",
            "knee_range",
            "ankle_range",
            "shoulder_range",
        ),
        _SIDES,
    ),
    "pelvic_drop": tuple(f"{side} stance" for side in _SIDES),
    "trunk_lean": ("forward, mean", "to the right, mean", "from side to side, range"),
    "tug_phases": ("sit to stand", "walk out", "turn", "walk back", "turn and sit"),
    "fsst_phases": (
        "forward",
        "right",
        "back",
        "left and right again",
        "forward again",
        "left",
        "back again",
    ),
    "sit_to_stand_time": ("standing up", "sitting down", "five rises"),
}
"""Quantity -> the sides or phases that have a value each."""


def quantity_code(value: Measured) -> tuple[str, str]:
    """(code, display) of a measured quantity, a code for each side or phase: `step_length-right`."""
    display = ", ".join(filter(None, [value.label or QUANTITIES[value.quantity].label, value.part]))
    return _quantity_code(value.quantity, value.part), display


def _quantity_code(quantity: str, part: str) -> str:
    return f"{quantity}-{resource_id(part)}" if part else quantity


def parameter_code(label: str) -> tuple[str, str]:
    """(code, display) of the quantity that a motion parameter of a description is, by its label: `right knee`."""
    name = next((name for name, parameter in PARAMETERS.items() if parameter.label == label), None)
    if name is None:
        return resource_id(label), label
    return _quantity_code(*PARAMETER_QUANTITIES[name]), label


def quantity_codes() -> dict[str, str]:
    """{code: display} of every quantity that is measured, with its sides and phases."""
    codes = {}
    for name, quantity in QUANTITIES.items():
        codes[name] = quantity.label
        for part in _PARTS.get(name, ()):
            codes[_quantity_code(name, part)] = f"{quantity.label}, {part}"
    return codes
