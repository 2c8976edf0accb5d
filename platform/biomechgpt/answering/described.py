"""Descriptions that are made of measured values, for a base model that cannot write text."""

from dataclasses import replace

from biomechgpt.answering.answer import Answer
from biomechgpt.motion.parameters import ParameterValues, format_description

NOTHING_MEASURED = "Nothing could be measured from this movement."


def described(answer: Answer, values: ParameterValues) -> Answer:
    """The answer with a description of measured values as its text, and the check of the recording as it is.

    It is given for a movement that is unlike the training data, too: the model has no part in it.
    values: the motion parameters, measured from the recording.
    """
    text = format_description(values)
    if not text:
        return replace(answer, text=NOTHING_MEASURED, status="refused", reason=NOTHING_MEASURED)
    return replace(answer, text=text, status="answered", reason="")
