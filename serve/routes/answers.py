"""Endpoints that take recordings: motion tokens, answers, explanations."""

from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, File, Form, UploadFile

from biomechgpt.motion.quantities import Person
from serve.errors import ApiError
from serve.gateway import GatewayDependency
from serve.schema import ERRORS, Answers, Explanation, Motion

router = APIRouter()

MAX_RISK = (
    "Highest accepted error rate of a label. With confidence 0.9 at most this share of the labels that a person is "
    "given is wrong, on average over persons. Others are returned as uncertain."
)

V = TypeVar("V")
Age = Annotated[float | None, Form(ge=0, le=120, description="Age in years, for norms.")]
Sex = Annotated[Literal["female", "male"] | None, Form(description="Sex, for norms.")]
Recording = Annotated[UploadFile, File(description="Recording in any readable format.")]


def one_of(name: str, value: V | None, old_name: str, old_value: V | None) -> V | None:
    """The value of a form field that was renamed. Raises ApiError if both names are given."""
    if value is not None and old_value is not None:
        message = f"expected `{name}` or its earlier name `{old_name}`, found both"
        raise ApiError("bad_request", message)
    return old_value if value is None else value


@router.post("/v1/motions", responses=ERRORS)
async def motion(
    gateway: GatewayDependency, recording: Recording, age: Age = None, sex: Sex = None
) -> Motion:
    """The motion tokens of a recording, what was measured from it, and a stick figure to show."""
    return await gateway.read_motion(recording, Person(age, sex))


@router.post("/v1/answers", responses=ERRORS)
async def answer(
    gateway: GatewayDependency,
    recording: Recording,
    tasks: Annotated[list[str] | None, Form(description="Names of tasks, or `all`.")] = None,
    question: Annotated[str | None, Form(description="A question in free words.")] = None,
    compare_with: Annotated[
        UploadFile | None, File(description="Second recording, to compare; questions call it B.")
    ] = None,
    additional_recordings: Annotated[
        list[UploadFile] | None, File(description="Further recordings of the same person.")
    ] = None,
    max_risk: Annotated[float | None, Form(gt=0, le=1, description=MAX_RISK)] = None,
    age: Age = None,
    sex: Sex = None,
    other: Annotated[
        UploadFile | None, File(description="Deprecated: use compare_with.", deprecated=True)
    ] = None,
    more: Annotated[
        list[UploadFile] | None, File(description="Deprecated: use additional_recordings.", deprecated=True)
    ] = None,
    risk: Annotated[
        float | None, Form(gt=0, le=1, description="Deprecated: use max_risk.", deprecated=True)
    ] = None,
) -> Answers:
    """Answers to tasks or to a free question about one recording, two recordings, or a person.

    With `compare_with` the first recording is A and the second is B. With `additional_recordings` the answers are
    about what all recordings of the person have in common, such as a diagnosis.
    """
    response, _ = await gateway.answer_recordings(
        recording,
        tasks or [],
        question,
        one_of("compare_with", compare_with, "other", other),
        one_of("additional_recordings", additional_recordings, "more", more) or [],
        one_of("max_risk", max_risk, "risk", risk),
        Person(age, sex),
    )
    return response


@router.post("/v1/explanations", responses=ERRORS)
async def explanation(
    gateway: GatewayDependency,
    recording: Recording,
    task: Annotated[str, Form(description="Name of a task that answers with a label or a number.")],
    question: Annotated[str | None, Form(description="A phrasing of the task.")] = None,
) -> Explanation:
    """The seconds and joints of a recording that an answer rests on."""
    return await gateway.explain(recording, task, question)
