"""The gateway: checks recordings and questions, asks the model, and builds the responses.

Knows nothing about HTTP paths, and nothing about Ray: it takes any object with the methods of `ModelClient`.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import UploadFile

from biomechgpt.answering import measured
from biomechgpt.answering.answer import Answer as AnswerRecord
from biomechgpt.answering.described import described
from biomechgpt.core.settings import InputError
from biomechgpt.motion import kinematics, parameters, quantities
from biomechgpt.motion.plots import LEFT, RIGHT, TRUNK
from biomechgpt.motion.quantities import Person
from biomechgpt.motion.skeleton import NAMES, anatomical_name
from biomechgpt.prompts.encoding import MotionTokens, Query, Relation
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import (
    AnnotatedTask,
    DescriptionTask,
    LabelTask,
    MeasuredTask,
    Tasks,
    askable,
)
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.tokenizer.layout import TokenLayout
from serve.errors import ApiError
from serve.free_questions import FreeQuestion, asks_why, complete, explanation_text, read_question
from serve.schema import (
    MAX_QUESTION_CHARS,
    Analysis,
    Answer,
    Answers,
    Chat,
    ChatMessage,
    Explanation,
    Figure,
    FigureColors,
    ModelInfo,
    ModelSummary,
    Motion,
    RecordingInfo,
    TaskInfo,
    apply_risk_limit,
    notice_of,
    stated_parameters,
    summary_of,
    token_lists,
)
from serve.settings import GatewaySettings

NOBODY = Person()
"""A person of whom nothing is known."""

TaskQuestion = tuple[str | None, str]
"""A question: (task or None, words)."""


class ServedModel(BaseModel):
    """Description of the loaded model, made by the deployment that holds it."""

    model_config = ConfigDict(arbitrary_types_allowed=True, use_attribute_docstrings=True)

    summary: ModelSummary
    """Fingerprint, base model and kind of training data."""
    tasks: Tasks
    """All tasks of the bundle."""
    person_tasks: list[str]
    """Tasks that were calibrated for several recordings of a person."""
    coverage: float
    """Coverage of prediction sets and intervals."""
    labels: dict[str, list[str]] = {}
    """Labels of each task, for tasks that name none of their own."""
    writes_text: bool = False
    """Whether the base model can write text. The local stand-in cannot."""
    max_question_tokens: int
    """Longest question, in tokens of the language model."""
    frame_rate_hz: float
    """Frame rate of the motion tokenizer."""
    layout: TokenLayout
    """Which tokens can stand where in a movement."""
    tokenizer: str
    """Fingerprint of the motion tokenizer."""
    max_duration_s: float
    """Longest movement that the model reads, in seconds."""
    typical_duration_s: float
    """Typical duration of the training recordings, in seconds."""


class ModelClient(Protocol):
    """Methods of the model, local or remote. `serve.deployment.Model` has them."""

    async def describe(self) -> ServedModel: ...

    async def tokenize(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str
    ) -> MotionTokens: ...

    async def answer(self, query: Query) -> AnswerRecord: ...

    async def explain(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, queries: list[tuple[str, str]]
    ) -> list[Any]: ...

    async def explain_tokens(self, motion: MotionTokens, query: tuple[str, str]) -> Any: ...

    async def recognise(self, question: str, tasks: list[str]) -> Intent: ...

    async def question_lengths(self, questions: list[str]) -> list[int]: ...


@dataclass(frozen=True)
class LoadedRecording:
    """An uploaded recording at the tokenizer's frame rate.

    info: description for the response.
    angles_rad: (T, 34) joint angles.
    pelvis: (T, 7) position and orientation.
    content: bytes of the file.
    """

    info: RecordingInfo
    angles_rad: np.ndarray
    pelvis: np.ndarray
    content: bytes

    @property
    def sha256(self) -> str:
        """Checksum of the file, 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()


class Gateway:
    """Answers requests with a model.

    model: the model to ask.
    settings: how recordings are read, and the limits of a request.
    fingerprint: fingerprint of the model to serve; None: any model. Only the description of this model is cached:
        during an update the gateway may start before the new model, and must not keep the old one's description.
    """

    def __init__(self, model: ModelClient, settings: GatewaySettings, fingerprint: str | None = None) -> None:
        self.model, self.settings, self.fingerprint = model, settings, fingerprint
        self._served: ServedModel | None = None

    async def served(self) -> ServedModel:
        """The description of the model, fetched once."""
        if self._served is not None:
            return self._served
        served = await self.model.describe()
        if self.fingerprint in (None, served.summary.fingerprint):
            self._served = served
        return served

    async def model_info(self) -> ModelInfo:
        served = await self.served()
        tasks = [
            TaskInfo(
                name=task.name,
                kind=task.answer_kind,
                question=task.templates[0],
                unit=task.answer_unit,
                movements=movements,
                labels=dict(task.labels or {}) if isinstance(task, LabelTask) else {},
            )
            for movements in (1, 2)
            for task in askable(served.tasks, movements).values()
        ]
        return ModelInfo(
            **served.summary.model_dump(),
            notice=notice_of(served.summary),
            tasks=tasks,
            coverage=served.coverage,
            suffixes=list(readers.SUFFIXES),
            max_question_chars=MAX_QUESTION_CHARS,
            max_additional_recordings=self.settings.max_additional_recordings,
        )

    async def read_recording(self, upload: UploadFile | None) -> LoadedRecording:
        """An uploaded file, judged, repaired and resampled. Raises ApiError for a file that cannot be used."""
        if upload is None:
            raise ApiError("bad_request", "recording: expected a file")
        name, content = Path(upload.filename or "recording").name, await upload.read()
        served = await self.served()
        try:
            return await asyncio.to_thread(load_recording, name, content, self.settings, served)
        except InputError as error:
            raise ApiError("bad_recording", str(error)) from None

    async def tokenize(self, recording: LoadedRecording) -> MotionTokens:
        """Motion tokens of a recording, with the statistics for its checks."""
        info = recording.info
        return await self.model.tokenize(recording.angles_rad, info.joint_mask(), info.provenance)

    async def measure(self, recording: LoadedRecording, person: Person = NOBODY) -> measured.Analysis:
        """Every quantity that kinematics measures of a recording. person: for norms."""
        movement = quantities.movement(
            recording.angles_rad,
            recording.pelvis,
            recording.info.frame_rate_hz,
            recording.info.joint_mask(),
            person,
        )
        return await asyncio.to_thread(measured.analyse, movement)

    async def _measure_for(
        self, queries: Sequence[TaskQuestion], recording: LoadedRecording, person: Person
    ) -> measured.Analysis | None:
        """As `measure`; None if no answer needs it: measuring takes longer than scoring a label."""
        tasks = (await self.served()).tasks
        if not any(task is None or measured.is_needed(tasks[task]) for task, _ in queries):
            return None
        return await self.measure(recording, person)

    async def resolve_questions(
        self,
        names: Sequence[str],
        question: str | None,
        movements: int = 1,
        about_person: bool = False,
        history: Sequence[str] = (),
    ) -> tuple[list[TaskQuestion], FreeQuestion | None]:
        """The questions of a request as (task or None, words), and the one in free words.

        names: tasks, `all`, or several names joined by commas.
        question: in free words; it is matched to a task where possible.
        movements: number of recordings that are compared.
        about_person: only tasks that were calibrated for several recordings of a person are allowed.
        history: earlier turns of the conversation.
        Raises ApiError for an unknown task, no question, or one that is too long. A question that is too long
        is refused here, because in a batch it would make the questions of other requests fail too.
        """
        served = await self.served()
        tasks = askable(served.tasks, movements)
        if about_person:
            tasks = {name: tasks[name] for name in served.person_tasks}
            if not tasks:
                message = "additional_recordings: this model was not calibrated for several recordings"
                raise ApiError("bad_request", message)
        queries = parse_questions(tasks, names, question)
        free = None
        if queries[-1][0] is None:
            words = queries.pop()[1]
            await self._check_length([words])
            free = await read_question(words, history, self.model.recognise, list(tasks), served.writes_text)
            queries += free.queries(served.tasks)
        if about_person and free and free.task is None:
            expected = f"expected a phrasing of {' or '.join(tasks)} about several recordings"
            raise ApiError("bad_request", f"question: {expected}, found {question!r}")
        await self._check_length([words for _, words in queries])
        return queries, free

    async def _check_length(self, questions: Sequence[str]) -> None:
        """Raises ApiError for a question that is too long for the model."""
        served = await self.served()
        longest = max(await self.model.question_lengths(list(questions)), default=0)
        if longest > served.max_question_tokens:
            expected = f"expected at most {served.max_question_tokens} tokens of the language model's"
            raise ApiError("bad_request", f"question: {expected}, found {longest}")

    async def _complete(
        self, answers: Sequence[Answer], free: FreeQuestion | None, movements: int = 1
    ) -> list[Answer]:
        """The answers, the one to the free question in its words."""
        served = await self.served()
        return complete(answers, free, served.tasks, list(askable(served.tasks, movements)), served.labels)

    async def answer(
        self,
        motions: Sequence[MotionTokens],
        relation: Relation,
        queries: Sequence[TaskQuestion],
        analysis: measured.Analysis | None = None,
        history: Sequence[str] = (),
        max_risk: float | None = None,
        duration_s: float | None = None,
    ) -> list[Answer]:
        """The answers to `queries` about some movements.

        relation: how the movements belong together.
        analysis: what was measured of the movement; None: nothing, or several movements.
        history: earlier turns of the conversation, the user's and the assistant's in turn. Only a free question
            reads them: the answer to a task is calibrated for a question without any.
        max_risk: highest accepted error rate. None: that of the settings.
        duration_s: of the movement.
        """
        served = await self.served()
        records = await asyncio.gather(
            *(
                self._record(Query(motions, relation, task, words, () if task else history), analysis)
                for task, words in queries
            )
        )
        if not served.writes_text and any(_is_description(served.tasks, task) for task, _ in queries):
            values = measured.parameters(analysis or {})
            records = [
                described(record, values) if _is_description(served.tasks, task) else record
                for (task, _), record in zip(queries, records, strict=True)
            ]
        limit = self.settings.max_risk if max_risk is None else max_risk
        answers = [
            apply_risk_limit(
                Answer.from_record(served.tasks, task, words, record, served.summary.data),
                limit,
                served.typical_duration_s,
                duration_s,
            )
            for (task, words), record in zip(queries, records, strict=True)
        ]
        return [_with_measured(answer, analysis) for answer in answers] if analysis else answers

    async def _record(self, query: Query, analysis: measured.Analysis | None) -> AnswerRecord:
        """The answer to a query: a measured quantity, or the model's answer with the measured value beside it."""
        task = (await self.served()).tasks[query.task] if query.task else None
        if isinstance(task, MeasuredTask):
            return measured.answer(task, analysis or {})
        record = await self.model.answer(query)
        return measured.beside(record, task, analysis) if task and analysis else record

    async def answer_recordings(
        self,
        recording: UploadFile | None,
        names: Sequence[str],
        question: str | None,
        compare_with: UploadFile | None = None,
        additional: Sequence[UploadFile] = (),
        max_risk: float | None = None,
        person: Person = NOBODY,
    ) -> tuple[Answers, LoadedRecording]:
        """Answers about one recording, two that are compared, or several of one person; and the first recording.

        person: age and sex, for the norms of measured values.
        """
        if compare_with is not None and additional:
            expected = "expected `compare_with` or `additional_recordings` of one person"
            raise ApiError("bad_request", f"{expected}, found both")
        limit = self.settings.max_additional_recordings
        if len(additional) > limit:
            message = f"additional_recordings: expected at most {limit} files, found {len(additional)}"
            raise ApiError("bad_request", message)
        served = await self.served()
        movements = 1 if compare_with is None else 2
        queries, free = await self.resolve_questions(
            names, question, movements, about_person=bool(additional)
        )
        first = await self.read_recording(recording)
        motion = await self.tokenize(first)
        further, motions = [], [motion]
        relation: Relation = "single"
        if additional:
            relation = "same_person"
        elif compare_with is not None:
            relation = "compare"
        for upload in additional or ([] if compare_with is None else [compare_with]):
            loaded = await self.read_recording(upload)
            further.append(loaded.info)
            motions.append(await self.tokenize(loaded))
        # With several recordings it is unclear which one a measured value is about.
        analysis = None if further else await self._measure_for(queries, first, person)
        answers = await self.answer(
            motions,
            relation,
            queries,
            analysis,
            max_risk=max_risk,
            duration_s=first.info.used_s,
        )
        response = Answers(
            summary=summary_of(answers, served.summary),
            answers=await self._complete(answers, free, movements),
            model=served.summary,
            recording=first.info,
            compare_with=None if compare_with is None else further[0],
            additional_recordings=further if additional else [],
            notice=notice_of(served.summary),
        )
        return response, first

    async def read_motion(self, upload: UploadFile, person: Person = NOBODY) -> Motion:
        """The motion tokens and the stick figure of a recording."""
        served = await self.served()
        recording = await self.read_recording(upload)
        motion = await self.tokenize(recording)
        analysis = await self.measure(recording, person)
        return Motion(
            recording=recording.info,
            tokens=list(motion.tokens),
            mirrored=None if motion.mirrored is None else list(motion.mirrored),
            tokenizer=served.tokenizer,
            analysis=Analysis.of(motion.statistics, [v for values in analysis.values() for v in values]),
            figure=await asyncio.to_thread(stick_figure, recording),
        )

    async def explain(self, upload: UploadFile, task: str, question: str | None) -> Explanation:
        """The seconds and joints that the answer to a task rests on."""
        served = await self.served()
        tasks = {name: t for name, t in askable(served.tasks, 1).items() if isinstance(t, AnnotatedTask)}
        if task not in tasks:
            raise ApiError("bad_request", f"task: expected one of {', '.join(tasks)}, found {task!r}")
        words = (question or "").strip() or tasks[task].templates[0]
        if words not in tasks[task].templates:
            raise ApiError("bad_request", f"question: expected a phrasing of {task}, found {words!r}")
        recording = await self.read_recording(upload)
        motion = await self.tokenize(recording)
        queries: list[TaskQuestion] = [(task, words)]
        analysis = await self._measure_for(queries, recording, NOBODY)
        (answer,) = await self.answer([motion], "single", queries, analysis)
        if answer.refused:
            raise ApiError("bad_recording", answer.text)
        (explanation,) = await self.model.explain(
            recording.angles_rad, recording.info.joint_mask(), [(task, words)]
        )
        return _explanation(answer, explanation, served.summary)

    async def chat(self, chat: Chat) -> Answers:
        """The answer to the last message of a conversation about motion tokens."""
        served = await self.served()
        movements, mirrored = token_lists(chat.tokens), token_lists(chat.mirrored)
        check_tokens(chat, movements, mirrored, served)
        analyses = (
            chat.analysis if isinstance(chat.analysis, list) else [chat.analysis] if chat.analysis else []
        )
        if analyses and len(analyses) != len(movements):
            expected = f"analysis: expected those of {len(movements)} movements, as tokens has"
            raise ApiError("bad_request", f"{expected}, found {len(analyses)}")
        if chat.messages[-1].role != "user":
            raise ApiError("bad_request", "messages: expected the last to be the user's")
        turns = alternate_turns(chat.messages)
        queries, free = await self.resolve_questions([], turns[-1], len(movements), history=turns[:-1])

        # A model that does not average over mirror images ignores them.
        motions = [
            MotionTokens(
                tokens, mirrored[i] if mirrored else None, analyses[i].statistics() if analyses else None
            )
            for i, tokens in enumerate(movements)
        ]
        if len(motions) == 1:
            # Measured when the recording was read; never from tokens, which only resemble it.
            analysis = measured.by_quantity(analyses[0].measured) if analyses else None
            answers = await self.answer(motions, "single", queries, analysis, turns[:-1])
        else:
            answers = await self.answer(motions, "compare", queries, history=turns[:-1])
        completed = await self._complete(answers, free, len(movements))
        explanation = None
        if len(motions) == 1 and asks_why(free, served.tasks) and answers[-1].status == "answered":
            found = await self.model.explain_tokens(motions[0], (str(answers[-1].task), answers[-1].question))
            explanation = _explanation(answers[-1], found, served.summary)
            completed[-1] = replace(completed[-1], text=explanation.text)
        return Answers(
            summary=summary_of(answers, served.summary),
            answers=completed,
            explanation=explanation,
            model=served.summary,
            notice=notice_of(served.summary),
        )


def get_gateway(request: Request) -> Gateway:
    """The gateway of the application that a request came to."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDependency = Annotated[Gateway, Depends(get_gateway)]
"""Type of an endpoint's parameter that takes the gateway."""


def _explanation(answer: Answer, explanation: Any, model: ModelSummary) -> Explanation:
    """The response for an explanation of an answer."""
    points = dict.fromkeys(kinematics.LANDMARKS, 0.0)
    for joint, weight in explanation.joints.items():
        points[kinematics.JOINT_LANDMARK[joint]] += weight
    return Explanation(
        answer=answer,
        text=explanation_text(answer.text, explanation.joints, explanation.seconds),
        explained_value=explanation.explained_value,
        seconds=explanation.seconds,
        joints=explanation.joints,
        joint_names={joint: anatomical_name(joint) for joint in explanation.joints},
        points=points,
        model=model,
        notice=notice_of(model),
    )


def _is_description(tasks: Tasks, task: str | None) -> bool:
    return task is not None and isinstance(tasks[task], DescriptionTask)


def _with_measured(answer: Answer, analysis: measured.Analysis) -> Answer:
    """The answer, each parameter that it states beside the measured one."""
    stated = parameters.parse_description(answer.text) if answer.status == "answered" else {}
    if not stated or answer.measured:
        return answer
    return replace(answer, stated_parameters=stated_parameters(stated, measured.parameters(analysis)))


def load_recording(
    name: str, content: bytes, settings: GatewaySettings, served: ServedModel
) -> LoadedRecording:
    """Read a file's content. Raises InputError for one that cannot be used, ApiError for one that is too long."""
    recording = readers.parse(name, content, settings.readers)
    frames = len(recording.time_s)
    if frames > settings.max_frames:
        message = f"{name}: expected at most {settings.max_frames} frames, found {frames}"
        raise ApiError("too_large", message)
    rate_hz = served.frame_rate_hz
    # Few rows may span a long time: what is resampled is bounded too.
    resampled = (recording.time_s[-1] - recording.time_s[0]) * rate_hz + 1
    if resampled > settings.max_frames:
        found = f"found {resampled:.0f} at {rate_hz:g} Hz ({frames} rows)"
        raise ApiError("too_large", f"{name}: expected at most {settings.max_frames} frames, {found}")
    angles, pelvis, repairs = prepare(name, recording, settings.quality, rate_hz)
    duration_s = len(angles) / rate_hz
    info = RecordingInfo(
        name=name,
        frames=len(angles),
        duration_s=round(duration_s, 3),
        used_s=round(min(duration_s, served.max_duration_s), 3),
        frame_rate_hz=rate_hz,
        knee_flexion=recording.knee_flexion,
        provenance=recording.provenance,
        missing_joints=[
            joint for joint, recorded in zip(NAMES, recording.joint_mask, strict=True) if not recorded
        ],
        repairs="; ".join(text for text in (*recording.notes, repairs) if text) or None,
    )
    return LoadedRecording(info, angles, pelvis, content)


def stick_figure(recording: LoadedRecording) -> Figure:
    """The stick figure of a recording."""
    points = kinematics.points_m(recording.angles_rad, recording.pelvis, ground="frame")
    return Figure(
        frame_rate_hz=recording.info.frame_rate_hz,
        points=list(kinematics.LANDMARKS),
        bones=list(kinematics.BONES),
        positions_m=np.round(points.astype(float), 3).tolist(),
        colors=FigureColors(right=RIGHT, left=LEFT, middle=TRUNK),
    )


def parse_questions(tasks: Tasks, names: Sequence[str], question: str | None) -> list[TaskQuestion]:
    """The questions as (task or None, words), the one in free words last. Raises ApiError."""
    names = [name.strip() for joined in names for name in joined.split(",") if name.strip()]
    if "all" in names:
        names = list(tasks)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        message = f"tasks: expected all or some of {', '.join(tasks)}, found {unknown[0]!r}"
        raise ApiError("bad_request", message)
    queries: list[TaskQuestion] = [(name, tasks[name].templates[0]) for name in names]
    text = (question or "").strip()
    if text:
        if len(text) > MAX_QUESTION_CHARS:
            message = f"question: expected at most {MAX_QUESTION_CHARS} characters, found {len(text)}"
            raise ApiError("bad_request", message)
        # A question in the words of a template needs no intent classifier.
        matching = (
            name for name, task in tasks.items() if text.casefold() in map(str.casefold, task.templates)
        )
        queries.append((next(matching, None), text))
    if not queries:
        raise ApiError("bad_request", "expected `tasks` (names, or all) or a `question`, found neither")
    return queries


def check_tokens(
    chat: Chat, movements: Sequence[Sequence[int]], mirrored: Sequence[Sequence[int]], served: ServedModel
) -> None:
    """Raises ApiError for motion tokens that are not this model's."""
    for name, movement_tokens in (("tokens", movements), ("mirrored", mirrored)):
        for tokens in movement_tokens:
            try:
                served.layout.check(tokens)
            except InputError as error:
                raise ApiError("bad_request", f"{name}: {error}") from error
    if mirrored and len(mirrored) != len(movements):
        expected = f"mirrored: expected those of {len(movements)} movements, as tokens has"
        raise ApiError("bad_request", f"{expected}, found {len(mirrored)}")
    if chat.tokenizer not in (None, served.tokenizer):
        expected = f"tokenizer: expected the model's, {served.tokenizer}"
        raise ApiError("bad_request", f"{expected}, found tokens of {chat.tokenizer}")


def alternate_turns(messages: Sequence[ChatMessage]) -> list[str]:
    """The texts of a conversation, the user's and the assistant's in turn, the first and the last from the user.

    Of two messages in a row from the same side, the later one is kept.
    """
    turns: list[str] = []
    for message in messages:
        # After an even number of turns it is the user's turn.
        same_side = len(turns) % 2 == (message.role == "user")
        if same_side and turns:
            turns[-1] = message.content
        elif not same_side:
            turns.append(message.content)
    return turns
