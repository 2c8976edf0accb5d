"""Requests and responses of the API. Every field has a description, which the OpenAPI document shows.

Deprecated fields repeat a value under the name it had in the version before; the next version drops them.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, ClassVar, Literal, Self, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field, model_validator
from pydantic.dataclasses import dataclass

from biomechgpt.answering.answer import Answer as AnswerRecord
from biomechgpt.answering.answer import Measured
from biomechgpt.answering.measured import single_value
from biomechgpt.answering.status import unlike_sentence, withheld
from biomechgpt.motion import parameters
from biomechgpt.motion.parameters import PARAMETERS
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.questions.tasks import Tasks

MAX_QUESTION_CHARS = 2000
"""Longest question, in characters. The page reads it from /v1/model."""
NOTICE = "No clinical claim is made: this is research software, not a medical device."


def field_descriptions(record: type) -> dict[str, str]:
    """{field: description} of a dataclass, from the strings under its fields."""
    properties = TypeAdapter(record).json_schema()["properties"]
    return {name: value["description"] for name, value in properties.items() if "description" in value}


def _describe_inherited(schema: dict[str, Any]) -> None:
    """Add the descriptions of the answer dataclass to the JSON schema of the response."""
    for name, text in field_descriptions(AnswerRecord).items():
        schema["properties"][name].setdefault("description", text)


class ApiModel(BaseModel):
    """Base of requests and responses: the string under a field is its description."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_serialization_defaults_required=True)


def deprecated_alias(name: str, value_type: Any) -> Any:
    """A response field that repeats the field `name` under its earlier name, for one version."""

    def value(self: Any) -> Any:
        return getattr(self, name)

    # `deprecated=` of pydantic would warn whenever a response is written.
    return computed_field(
        return_type=value_type,
        description=f"Deprecated: use {name}.",
        json_schema_extra={"deprecated": True},
    )(property(value))


class StatedParameter(ApiModel):
    """A motion parameter that a description states, beside the same parameter measured from the joint angles."""

    name: str
    """Name of the parameter in words, for example `cadence`."""
    unit: str
    """Unit of the values; empty for a ratio."""
    stated: float
    """Value that the answer states."""
    measured: float | None
    """Value measured from the joint angles; null if it cannot be measured."""
    agrees: bool
    """Whether both values agree within the tolerance of the parameter."""
    normal_range: tuple[float, float] | None
    """Range of most healthy adults who walk; null without a norm."""
    normal_range_source: str | None
    """Publication of the norm, with a mark if its numbers are unverified."""
    normal_range_verified: bool | None
    """Whether the numbers of the norm were compared with the publication."""

    usual: ClassVar[Any] = deprecated_alias("normal_range", tuple[float, float] | None)


@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_describe_inherited,
    ),
)
class Answer(AnswerRecord):
    """One answer: the fields of `biomechgpt.answering.answer.Answer`, and the question that was asked."""

    # The API sends one mapping, where the record has two lists of the same length.
    probabilities: dict[str, float] = Field(default_factory=dict)  # type: ignore[assignment]
    """Calibrated probability of each label, most probable first. Empty for a number or a free question."""
    joint_probabilities: dict[str, float] = Field(default_factory=dict)  # type: ignore[assignment]
    """Probability that the condition holds and the label is right. Empty for a question without a condition."""
    task: str | None
    """Name of the task; null for a question that is no task of this model."""
    question: str
    """The question in the words that the model read."""
    label: str | None = None
    """Label that the answer states; null for a number, a free question or an uncertain answer."""
    value: float | None = None
    """Number that the answer states, in `unit`; null for a label."""
    unit: str | None = None
    """Unit of value, low and high."""
    uncertain: bool = False
    """Whether `status` is uncertain. `advice` may say what would help."""
    advice: str | None = None
    """How to get a more certain answer; null unless the answer is uncertain."""
    refused: bool = False
    """Whether there is no answer: `status` is unlike, does_not_apply or refused."""
    is_ood: bool = False
    """Whether the movement is out of distribution; the same as `unlike.unlike`."""
    stated_parameters: list[StatedParameter] = Field(default_factory=list)
    """Motion parameters that a description states, beside measured ones."""
    intent: str | None = None
    """What a free question asks, a kind of `biomechgpt.questions.intent.Intent`; null for a task's own wording."""
    assumed: bool = False
    """Whether a free question was unclear and its likeliest reading is answered. The text says how it was read."""
    generated: bool = False
    """Whether the language model wrote the text freely. Nothing in it was checked."""

    risk: ClassVar[Any] = deprecated_alias("selective_risk", float | None)
    possible: ClassVar[Any] = deprecated_alias("prediction_set", list[str])
    promised: ClassVar[Any] = deprecated_alias("coverage_guaranteed", bool)
    strange: ClassVar[Any] = deprecated_alias("is_ood", bool)
    facts: ClassVar[Any] = deprecated_alias("stated_parameters", list[StatedParameter])

    @classmethod
    def from_record(
        cls, tasks: Tasks, task: str | None, question: str, record: AnswerRecord, provenance: str
    ) -> Self:
        """The response for an answer of the model to a question of `task` (None: a free question).

        provenance: of the model's training data.
        """
        if record.status == "answered" and any(t.refuses(record.text) for t in tasks.values()):
            record = replace(record, status="refused", reason=record.text)
        shown = withheld(record, unlike_sentence(record.unlike, provenance))
        stated = tasks[task].parse(shown.text) if task and shown.status == "answered" else None
        value = single_value(shown) if shown.answered_by == "kinematics" else stated
        values = {field.name: getattr(shown, field.name) for field in fields(AnswerRecord)}
        values["probabilities"] = dict(zip(shown.labels, shown.probabilities, strict=True))
        values["joint_probabilities"] = dict(zip(shown.labels, shown.joint_probabilities, strict=False))
        return cls(
            **values,
            task=task,
            question=question,
            label=stated if isinstance(stated, str) else None,
            value=value if isinstance(value, float) else None,
            unit=tasks[task].answer_unit if task else None,
            uncertain=shown.status == "uncertain",
            refused=shown.status in ("unlike", "does_not_apply", "refused"),
            is_ood=shown.unlike.unlike,
        )


class ModelSummary(ApiModel):
    """The model that gave an answer."""

    fingerprint: str
    """Fingerprint of the model bundle, 64 hex digits."""
    base: str
    """Name of the language model that was fine-tuned."""
    data: str
    """Kind of training data: recorded, synthetic, or both."""


class TaskInfo(ApiModel):
    """A question that the model was trained and calibrated for."""

    name: str
    """Name of the task, as the form field `tasks` takes it."""
    kind: str
    """Kind of the task: classification, regression or description."""
    question: str
    """The question in words."""
    unit: str | None
    """Unit of a number; null for other kinds."""
    movements: int
    """Number of recordings that the question is about: 1, or 2 to compare."""
    labels: dict[str, str]
    """Each label with the words that answers have for it; empty if the task file lists no labels."""


class ModelInfo(ModelSummary):
    """The model behind the answers, its questions, and the limits of a request."""

    notice: str
    """Warning to show beside every answer."""
    tasks: list[TaskInfo]
    """Questions of this model."""
    coverage: float
    """Rate at which prediction sets and intervals contain the truth where coverage_guaranteed is true."""
    suffixes: list[str]
    """Usual file name endings of readable recordings. The content decides, not the name."""
    max_question_chars: int
    """Longest question, in characters."""
    max_additional_recordings: int
    """Largest number of further recordings of a person in one request."""


class Example(ApiModel):
    """A simulated recording to try the API with."""

    name: str
    """File name, to be read from /v1/examples/NAME."""
    description: str
    """What the recording shows."""
    data: str = "synthetic"
    """Kind of data."""


class Examples(ApiModel):
    """The simulated recordings of this server."""

    examples: list[Example]
    """One entry a recording."""


class RecordingInfo(ApiModel):
    """A recording as the server read it."""

    name: str
    """File name."""
    frames: int
    """Number of frames at `frame_rate_hz`."""
    duration_s: float
    """Duration in seconds."""
    used_s: float
    """Seconds from the start that the model reads."""
    frame_rate_hz: float
    """Frame rate of the motion tokenizer, in Hz. Recordings are resampled to it."""
    knee_flexion: str
    """Sign of knee flexion that was found in the file: positive or negative."""
    provenance: str
    """recorded, or synthetic if the file says that its movement was simulated or generated."""
    missing_joints: list[str]
    """Joint angles that the file does not have."""
    repairs: str | None
    """Gaps that were filled, and what was odd about the file; null without any."""

    repaired: ClassVar[Any] = deprecated_alias("repairs", str | None)

    def joint_mask(self) -> np.ndarray:
        """(34,) bool: True for each recorded joint angle."""
        return ~np.isin(NAMES, self.missing_joints)


class Answers(ApiModel):
    """Answers, and what they are about."""

    summary: str = ""
    """What to know first: the recording is unlike the training data, or was not checked; else empty."""
    answers: list[Answer]
    """One answer a question."""
    model: ModelSummary
    """The model that answered."""
    notice: str = NOTICE
    """Warning to show beside every answer."""
    recording: RecordingInfo | None = None
    """The recording in question; null in a chat, which sends tokens."""
    compare_with: RecordingInfo | None = None
    """The second recording of a comparison, called B."""
    additional_recordings: list[RecordingInfo] = []
    """Further recordings of the same person. The answers are then about the person."""
    explanation: "Explanation | None" = None
    """What the last answer of a chat rests on, if the question is why; else null."""

    other: ClassVar[Any] = deprecated_alias("compare_with", RecordingInfo | None)
    more: ClassVar[Any] = deprecated_alias("additional_recordings", list[RecordingInfo])


class Explanation(ApiModel):
    """Seconds and joints of a recording that an answer rests on.

    A weight says how much `explained_value` falls without that part of the recording. A positive weight supports
    the answer, a negative weight speaks against it. Weights describe the model, not the person.
    """

    answer: Answer
    """The answer that is explained."""
    text: str
    """The explanation in words: what supports the answer, and what speaks against it."""
    explained_value: float
    """Probability of the label, or mean of the number's distribution."""
    seconds: list[tuple[float, float, float]]
    """(begin, end, weight) of each part of the recording, in seconds."""
    joints: dict[str, float]
    """Weight of each joint angle."""
    joint_names: dict[str, str]
    """Anatomical name of each joint angle."""
    points: dict[str, float]
    """The weights of the joints at the points of the stick figure."""
    model: ModelSummary
    """The model that answered."""
    notice: str = NOTICE
    """Warning to show beside every answer."""

    of: ClassVar[Any] = deprecated_alias("explained_value", float)


Answers.model_rebuild()


class FigureColors(ApiModel):
    """Colours of the stick figure, the same as in the pictures of the reports."""

    right: str
    """Colour of the right side, #rrggbb."""
    left: str
    """Colour of the left side, #rrggbb."""
    middle: str
    """Colour of trunk and head, #rrggbb."""


class Figure(ApiModel):
    """A moving stick figure."""

    frame_rate_hz: float
    """Frames per second."""
    points: list[str]
    """Names of the points."""
    bones: list[tuple[int, int]]
    """Pairs of points that a line joins, as indices into `points`."""
    positions_m: list[list[list[float]]]
    """Position of each point in each frame: x forward, y up, z right, in metres."""
    colors: FigureColors
    """Colours of the sides."""


class CurveNorm(ApiModel):
    """Norm of a joint curve over the gait cycle of its own side."""

    mean: list[float]
    """Mean at even steps from 0 to 100 % of the gait cycle, in degrees."""
    sd: list[float]
    """Standard deviation between people, in degrees."""
    group: str
    """Whose norm it is."""
    source: str
    """Publication of the norm, with a mark if its numbers are unverified."""
    verified: bool
    """Whether the numbers of the norm were compared with the publication."""


class JointCurve(ApiModel):
    """A joint angle over time, in degrees. A value is null where the file has none."""

    name: str
    """Name of the curve: hip, knee, ankle, pelvis_tilt, pelvis_list or trunk."""
    label: str
    """The angle in words."""
    positive: str
    """Direction of positive angles."""
    right: list[float] | None
    """Angle of the right side in each frame of the figure; null if it was not recorded, or has no sides."""
    left: list[float] | None
    """The same of the left side."""
    middle: list[float] | None
    """The same of pelvis or trunk, which have no sides."""
    norm: CurveNorm | None
    """Norm of healthy walkers; null if the literature at hand has none."""


class Strides(ApiModel):
    """Strides of a walk: (begin, end) in seconds, from heel strike to heel strike. Empty if nobody walks.

    If a side has no complete stride, those that the recording cuts off are as long as a mean stride.
    """

    right: list[tuple[float, float]]
    """Strides of the right leg."""
    left: list[tuple[float, float]]
    """Strides of the left leg."""


class Analysis(ApiModel):
    """What was computed from a recording: for the checks before each answer, and the measured quantities."""

    duration_s: float
    """Duration in seconds."""
    steps: int = Field(ge=0, le=1_000_000)
    """Number of steps."""
    phases: tuple[str, ...]
    """What else the recording contains: `rise` from a chair, `lower` onto one."""
    legs_recorded: bool
    """Whether the joint angles of hips, knees and ankles were recorded."""
    distance: float | None
    """Distance to the most similar training movements; null if the model has none to compare with."""
    rmse_deg: float | None
    """Reconstruction error of the motion tokens, in degrees."""
    provenance: str | None
    """recorded or synthetic."""
    measured: list[Measured] = Field(default_factory=list, max_length=200)
    """Quantities that were measured from the joint angles and the pelvis."""

    @classmethod
    def of(cls, statistics: MovementStatistics | None, measured: Sequence[Measured]) -> "Analysis | None":
        """The analysis with these statistics; None without any."""
        return None if statistics is None else cls(**asdict(statistics), measured=list(measured))

    def statistics(self) -> MovementStatistics:
        """The statistics that the model takes."""
        return MovementStatistics(**self.model_dump(exclude={"measured"}))


class Motion(ApiModel):
    """A recording as motion tokens, which /v1/chat takes, and as a stick figure."""

    recording: RecordingInfo
    """The recording as the server read it."""
    tokens: list[int]
    """Motion tokens."""
    views: list[list[int]] = []
    """Motion tokens of the same movement mirrored or shifted by a few frames; the model's answer is the mean."""
    tokenizer: str
    """Fingerprint of the motion tokenizer that made the tokens."""
    analysis: Analysis | None
    """What was computed from the recording. /v1/chat takes it back."""
    figure: Figure
    """The movement to show."""
    curves: list[JointCurve]
    """Joint angles to show under the figure."""
    strides: Strides
    """Strides that norms are laid over."""

    @computed_field(description="Deprecated: use views.", json_schema_extra={"deprecated": True})  # type: ignore[prop-decorator]
    @property
    def mirrored(self) -> list[int] | None:
        """The first view."""
        return self.views[0] if self.views else None


class ChatMessage(ApiModel):
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    """Who wrote it: user or assistant."""
    content: str = Field(min_length=1, max_length=MAX_QUESTION_CHARS)
    """Text of the message."""


Token = Annotated[int, Field(ge=0, lt=2**31)]
TokenList = Annotated[list[Token], Field(min_length=1, max_length=20_000)]
OneOrTwo = TokenList | Annotated[list[TokenList], Field(min_length=2, max_length=2)]
Views = Annotated[list[TokenList], Field(max_length=63)]
"""Motion tokens of a movement's views but the first."""


def token_lists(tokens: OneOrTwo | None) -> list[list[int]]:
    """The motion tokens of each movement of a field that holds one list, two, or none."""
    if tokens is None:
        return []
    if isinstance(tokens[0], int):
        return [tokens]
    return tokens


class Chat(ApiModel):
    """A conversation about one recording, or about two that are compared."""

    tokens: OneOrTwo
    """Motion tokens from /v1/motions, or a list of two such lists to compare."""
    views: Views | Annotated[list[Views], Field(min_length=2, max_length=2)] = []
    """`views` from /v1/motions, or a list of two such values to compare."""
    mirrored: OneOrTwo | None = Field(None, json_schema_extra={"deprecated": True})
    """Earlier form of `views`, for the mirror image alone. Not read where `views` is given."""
    tokenizer: str | None = None
    """Fingerprint from /v1/motions. Tokens of another tokenizer are refused."""
    analysis: Analysis | list[Analysis] | None = None
    """`analysis` from /v1/motions, or a list of two to compare. Without it nothing is checked or guaranteed."""
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    """The conversation so far. The last message is the question."""

    def views_of_movements(self) -> list[list[list[int]]]:
        """The views of each movement; empty if none were sent."""
        if not self.views:
            return [[tokens] for tokens in token_lists(self.mirrored)]
        of_one = bool(self.views[0]) and isinstance(self.views[0][0], int)
        return cast(list[list[list[int]]], [self.views] if of_one else self.views)


class ErrorDetail(ApiModel):
    """What was wrong with a request."""

    code: str
    """Code of the error, for programs."""
    message: str
    """What was expected and what was found, for people."""
    request_id: str | None = None
    """Id of the request, which the server's log repeats. Null for one recording of a batch."""


class ErrorBody(ApiModel):
    """Body of every error outside /fhir/."""

    error: ErrorDetail
    """What was wrong."""


class ModelCard(ApiModel):
    """The model, as OpenAI's clients list models."""

    id: str
    """Name for the field `model` of /v1/chat/completions."""
    object: Literal["model"] = "model"
    """Always model."""
    created: int
    """A time in seconds since the epoch, which the format asks for."""
    owned_by: str = "biomechgpt"
    """Always biomechgpt."""
    fingerprint: str
    """Fingerprint of the model bundle."""


class ModelCards(ApiModel):
    """The list of models."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[ModelCard]
    """The only model."""


class UploadedFile(ApiModel):
    """A recording that is kept for a while."""

    id: str
    """Id of the file."""
    object: Literal["file"] = "file"
    """Always file."""
    bytes: int
    """Size of the file."""
    created_at: int
    """When it was uploaded, in seconds since the epoch."""
    expires_at: int
    """When it is forgotten, in seconds since the epoch."""
    filename: str
    """Name of the file."""
    purpose: str
    """As given."""
    status: Literal["processed"] = "processed"
    """Always processed."""


class DeletedFile(ApiModel):
    """A recording that was forgotten."""

    id: str
    """Id of the file."""
    object: Literal["file"] = "file"
    """Always file."""
    deleted: Literal[True] = True
    """Always true."""


class FilePart(ApiModel):
    """The recording of a part of a message: `file_data`, or `file_id`."""

    filename: str | None = Field(None, max_length=1000)
    """Name of the file."""
    file_data: str | None = None
    """Content in base64; `data:application/octet-stream;base64,` may stand before it."""
    file_id: str | None = Field(None, max_length=200)
    """Id of a file from /v1/files."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file_data is None) == (self.file_id is None):
            raise ValueError("expected file_data or file_id")
        return self


class MessagePart(ApiModel):
    """A part of a message."""

    type: Literal["text", "file"]
    """text or file."""
    text: str | None = None
    """The text of a text part."""
    file: FilePart | None = None
    """The recording of a file part."""


class CompletionInput(ApiModel):
    """A message of a chat with OpenAI's clients."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who wrote it. Messages of system and developer are ignored."""
    content: str | Annotated[list[MessagePart], Field(max_length=100)]
    """Text, or parts of text and recordings."""

    @property
    def parts(self) -> list[MessagePart]:
        """The parts; a text is one."""
        return (
            [MessagePart(type="text", text=self.content)] if isinstance(self.content, str) else self.content
        )

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "\n".join(part.text for part in self.parts if part.text)


class StreamOptions(ApiModel):
    """Options of a streamed answer."""

    include_usage: bool = False
    """Whether the last event has `usage`."""


class CompletionRequest(ApiModel):
    """A request of OpenAI's clients. Other fields of theirs, such as temperature, are ignored."""

    model: str = Field(max_length=200)
    """Name of the model, from /v1/models."""
    messages: list[CompletionInput] = Field(min_length=1, max_length=400)
    """The conversation so far, with one recording, or two to compare. The last message is the question."""
    stream: bool | None = None
    """Whether the answer comes as server-sent events."""
    stream_options: StreamOptions | None = None
    """Options of a streamed answer."""
    n: Literal[1] | None = None
    """Number of answers: only one."""


class CompletionMessage(ApiModel):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    """Always assistant."""
    content: str
    """The answer in words, with the notice."""
    refusal: None = None
    """Always null: `content` says why there is no answer."""


class CompletionChoice(ApiModel):
    """The only choice."""

    index: int = 0
    """Always 0."""
    message: CompletionMessage
    """The answer."""
    finish_reason: Literal["stop"] = "stop"
    """Always stop."""
    logprobs: None = None
    """Always null: `answers` has probabilities of labels."""


class ChatUsage(ApiModel):
    """Number of tokens, without motion tokens."""

    prompt_tokens: int
    """Tokens of the messages."""
    completion_tokens: int
    """Tokens of the answer."""
    total_tokens: int
    """Both together."""


class Completion(ApiModel):
    """The response for OpenAI's clients."""

    id: str
    """Id of this response."""
    object: Literal["chat.completion"] = "chat.completion"
    """Always chat.completion."""
    created: int
    """Time in seconds since the epoch."""
    model: str
    """Name of the model."""
    system_fingerprint: str
    """Fingerprint of the model bundle."""
    choices: list[CompletionChoice]
    """The answer in words."""
    usage: ChatUsage
    """Number of tokens."""
    answers: Answers
    """The same answer with probabilities, intervals and measured values. OpenAI's format has no such field."""


class Batch(ApiModel):
    """A batch of recordings that are asked the same."""

    id: str
    """Id of the batch."""
    status: Literal["running", "finished", "failed"]
    """running; finished; or failed: the server lost it, or had no room for its results."""
    total: int
    """Number of recordings."""
    done: int
    """Number of recordings that have a result."""
    failed: int
    """Number of results that are errors."""


class Batches(ApiModel):
    """The batches of a client."""

    batches: list[Batch]
    """One entry a batch, the oldest first."""


class BatchResult(ApiModel):
    """One line of the results of a batch."""

    index: int
    """Number of the recording in the request, from 0."""
    recording: str
    """File name of the recording."""
    answers: Answers | None = None
    """Its answers; null if it got none."""
    error: ErrorDetail | None = None
    """Why it got no answers; null if it got some."""


ERROR_TEXTS = {
    400: "The body is neither the JSON nor the form that its content-type says.",
    401: "No key or token, or one that is wrong, expired or revoked.",
    403: "The key or token has no scope for this.",
    408: "The body did not arrive in time.",
    413: "The body or the recording is too large.",
    422: "The request or the recording is wrong.",
    429: "Too many requests or questions with one key; Retry-After says when to come back.",
    503: "The server is busy; Retry-After says when to come back.",
}
"""HTTP status of an error -> what it means."""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text} for status, text in ERROR_TEXTS.items()
}
"""Error responses that the OpenAPI document lists for an endpoint under /v1/."""
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody, "description": "There is none."}}
"""The error response of an endpoint that looks something up."""


class Health(ApiModel):
    """State of the HTTP side."""

    status: Literal["ok"] = "ok"
    """Always ok: the server answers."""


def notice_of(model: ModelSummary) -> str:
    """The warning to show beside every answer of a model."""
    if "synthetic" not in model.data:
        return NOTICE
    return f"{NOTICE} Trained on synthetic data: its answers mean nothing about a patient."


def summary_of(answers: Sequence[Answer], model: ModelSummary) -> str:
    """`Answers.summary` of these answers."""
    # What kinematics measures needs no check: it does not depend on the training data.
    checks = [answer.unlike for answer in answers if answer.answered_by == "model"]
    unlike = next((check for check in checks if check.unlike), None)
    if unlike is not None:
        return unlike_sentence(unlike, model.data)
    if checks and not all(check.checked for check in checks):
        return "It was not checked whether this recording is like those that the model was trained on."
    return ""


def stated_parameters(stated: dict[str, float], measured: dict[str, float | None]) -> list[StatedParameter]:
    """Each parameter that a description states, compared with the measured one."""
    compared = []
    for name, value in stated.items():
        parameter, measured_value = PARAMETERS[name], measured.get(name)
        source = parameters.normal_range_source(name)
        compared.append(
            StatedParameter(
                name=parameter.label,
                unit=parameter.unit,
                stated=value,
                measured=None if measured_value is None else round(measured_value, parameter.decimals),
                agrees=measured_value is not None and abs(measured_value - value) <= parameter.tolerance,
                normal_range=parameters.normal_range(name),
                normal_range_source=source.shown if source else None,
                normal_range_verified=source.verified if source else None,
            )
        )
    return compared


def apply_risk_limit(
    answer: Answer, max_risk: float | None, typical_duration_s: float, duration_s: float | None
) -> Answer:
    """The answer, or an uncertain one if its selective risk is above `max_risk`, or unknown.

    typical_duration_s: of the training recordings; a shorter recording gets the advice to record longer.
    duration_s: of this recording; None if it is unknown.
    """
    if max_risk is None or not answer.probabilities or answer.refused:
        return answer
    if answer.selective_risk is not None and answer.selective_risk <= max_risk:
        return answer
    longer = ""
    if duration_s is not None and duration_s < typical_duration_s:
        longer = (
            f", or a longer one: this recording has {duration_s:.0f} s, "
            f"those of the training data have {typical_duration_s:.0f} s"
        )
    return replace(
        answer,
        uncertain=True,
        status="uncertain",
        text=f"Uncertain; most likely {answer.text}.",
        advice=f"What would help: another recording of this person{longer}.",
        label=None,
    )
