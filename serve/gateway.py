"""The gateway: checks recordings and questions, asks the model, and builds the responses.

Knows nothing about HTTP paths, and nothing about Ray: it takes any object with the methods of `ModelClient`.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from biomechgpt.answering import measured
from biomechgpt.answering.answer import Answer as AnswerRecord
from biomechgpt.answering.described import described
from biomechgpt.motion import kinematics, parameters, quantities
from biomechgpt.motion.quantities import Person
from biomechgpt.motion.skeleton import anatomical_name
from biomechgpt.prompts.encoding import MotionTokens, Query, Relation
from biomechgpt.questions.tasks import (
    AnnotatedTask,
    DescriptionTask,
    LabelTask,
    MeasuredTask,
    Tasks,
    askable,
)
from biomechgpt.recordings import readers
from biomechgpt.recordings.bounded import shared_reader
from serve import metrics
from serve.admission import Admission
from serve.audit import note
from serve.errors import ApiError
from serve.free_questions import FreeQuestion, asks_why, complete, explanation_text, read_question
from serve.jobs import Jobs
from serve.memory import Memory, MemoryClient
from serve.model import SERVED, Failed, ModelClient, ServedModel
from serve.recordings import (
    LoadedRecording,
    clean_name,
    joint_curves,
    load_recording,
    stick_figure,
    strides,
)
from serve.requests import TaskQuestion, alternate_turns, check_tokens, count_questions, parse_questions
from serve.schema import (
    MAX_QUESTION_CHARS,
    Analysis,
    Answer,
    Answers,
    Chat,
    Explanation,
    ModelInfo,
    ModelSummary,
    Motion,
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
C = TypeVar("C")
R = TypeVar("R")
EXPLANATION_COST = 16
"""An explanation asks the model about many changed copies of a recording; it counts as so many questions."""


class Gateway:
    """Answers requests with a model.

    model: the model to ask.
    settings: how recordings are read, and the limits of requests and clients.
    admission: these limits, and the queues in which clients take turns.
    reader: reads recordings in processes of their own.
    fingerprint: fingerprint of the model to serve; None: any model. Only the description of this model is cached:
        during an update the gateway may start before the new model, and must not keep the old one's description.
    memory: keeps uploaded files and the results of jobs; None: a memory of its own.
    jobs: work that goes on after its request is answered.
    """

    def __init__(
        self,
        model: ModelClient,
        settings: GatewaySettings,
        fingerprint: str | None = None,
        memory: MemoryClient | None = None,
    ) -> None:
        self.model, self.settings, self.fingerprint = model, settings, fingerprint
        self.memory = memory or Memory(settings)
        self.jobs = Jobs(self.memory, settings, self.forget_model)
        self.admission, self.reader = Admission(settings), shared_reader(settings.reading)
        self._served: ServedModel | None = None
        # Threads that measure movements must not hold up the event loop: it gets its turn after .5 ms, not 5.
        sys.setswitchinterval(0.0005)

    async def served(self) -> ServedModel:
        """The description of the model that the running request is answered with. It is fetched once."""
        served = SERVED.get() or self._served
        if served is None:
            served = await self.model.describe()
            if self.fingerprint in (None, served.summary.fingerprint):
                self._served = served
        SERVED.set(served)
        return served

    def forget_model(self) -> None:
        """Fetch the description again: the model is no longer there."""
        self._served = None
        SERVED.set(None)

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
        name, content = clean_name(upload.filename), await upload.read()
        served = await self.served()
        note(served.summary.fingerprint, recording=content)
        async with self.admission.reading.turn():
            return await load_recording(
                name, content, self.settings, served.frame_rate_hz, served.max_duration_s, self.reader
            )

    async def tokenize(self, recording: LoadedRecording) -> MotionTokens:
        """Motion tokens of a recording, with the statistics for its checks."""
        info = recording.info
        async with self.admission.asking.turn():
            motion = await self.model.tokenize(recording.angles_rad, info.joint_mask(), info.provenance)
        note(tokens=motion.tokens)
        return motion

    async def measure(self, recording: LoadedRecording, person: Person = NOBODY) -> measured.Analysis:
        """Every quantity that kinematics measures of a recording. person: for norms."""
        movement = quantities.movement(
            recording.angles_rad,
            recording.pelvis,
            recording.info.frame_rate_hz,
            recording.info.joint_mask(),
            person,
        )
        return await self._compute(measured.analyse, movement)

    async def _compute(self, function: Callable[[C], R], about: C) -> R:
        """Compute something of a recording in a thread, when it is the client's turn.

        It takes as long as reading, and the same cores: without turns, one client would slow all others.
        """
        async with self.admission.reading.turn(admitted=True):
            computing = asyncio.ensure_future(asyncio.to_thread(function, about))
            try:
                return await asyncio.shield(computing)
            except asyncio.CancelledError:
                await computing  # a thread goes on: the turn is over when it is done
                raise

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
        # The wordings of a task fit: the model was trained on them.
        own = [words for task, words in queries if task is None or words not in served.tasks[task].templates]
        if own:
            await self._check_length(own)
        note(served.summary.fingerprint, (task for task, _ in queries))
        self.admission.charge(count_questions(served.tasks, queries, self.settings.max_questions))
        return queries, free

    async def check_names(self, names: Sequence[str], question: str | None, movements: int = 1) -> None:
        """Raises ApiError for an unknown task or no question, before a job begins. Parameters as above."""
        parse_questions(askable((await self.served()).tasks, movements), names, question)

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
        # Measured quantities are not asked. Each movement of a question is read.
        cost = max(1, count_questions(served.tasks, queries, len(queries)) * len(motions))
        async with self.admission.asking.turn(cost):
            records = await self._records(
                [Query(motions, relation, task, words, () if task else history) for task, words in queries],
                analysis,
            )
        if not served.writes_text and any(_is_description(served.tasks, task) for task, _ in queries):
            values = measured.parameters(analysis or {})
            records = [
                described(record, values) if _is_description(served.tasks, task) else record
                for (task, _), record in zip(queries, records, strict=True)
            ]
        limit = self.settings.max_risk if max_risk is None else max_risk
        _count_recording(records, served)
        answers = [
            apply_risk_limit(
                Answer.from_record(served.tasks, task, words, record, served.summary.data),
                limit,
                served.typical_duration_s,
                duration_s,
            )
            for (task, words), record in zip(queries, records, strict=True)
        ]
        _count_answers(answers)
        return [_with_measured(answer, analysis) for answer in answers] if analysis else answers

    async def _records(
        self, queries: Sequence[Query], analysis: measured.Analysis | None
    ) -> list[AnswerRecord]:
        """Measured quantities, and the model's answers to all other queries with the measured value beside each."""
        tasks = (await self.served()).tasks
        asked = [query for query in queries if not isinstance(tasks.get(query.task or ""), MeasuredTask)]
        found = iter(await self.model.answer_all(asked) if asked else [])
        records = []
        for query in queries:
            task = tasks[query.task] if query.task else None
            if isinstance(task, MeasuredTask):
                records.append(measured.answer(task, analysis or {}))
                continue
            record = next(found)
            if isinstance(record, Failed):
                raise record.error()
            records.append(measured.beside(record, task, analysis) if task and analysis else record)
        return records

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
        """The motion tokens, the stick figure and the joint curves of a recording."""
        served = await self.served()
        recording = await self.read_recording(upload)
        motion = await self.tokenize(recording)
        analysis = await self.measure(recording, person)
        return Motion(
            recording=recording.info,
            tokens=list(motion.tokens),
            views=[list(tokens) for tokens in motion.views],
            tokenizer=served.tokenizer,
            analysis=Analysis.of(motion.statistics, [v for values in analysis.values() for v in values]),
            figure=await self._compute(stick_figure, recording),
            curves=joint_curves(recording),
            strides=await self._compute(strides, recording),
        )

    async def read_tokens(self, upload: UploadFile) -> tuple[MotionTokens, Analysis | None]:
        """The motion tokens of a recording, and what was computed from it for a chat."""
        recording = await self.read_recording(upload)
        motion = await self.tokenize(recording)
        analysis = await self.measure(recording)
        return motion, Analysis.of(motion.statistics, [v for values in analysis.values() for v in values])

    async def explain(self, upload: UploadFile, task: str, question: str | None) -> Explanation:
        """The seconds and joints that the answer to a task rests on."""
        served = await self.served()
        tasks = {name: t for name, t in askable(served.tasks, 1).items() if isinstance(t, AnnotatedTask)}
        if task not in tasks:
            raise ApiError("bad_request", f"task: expected one of {', '.join(tasks)}, found {task!r}")
        words = (question or "").strip() or tasks[task].templates[0]
        if words not in tasks[task].templates:
            raise ApiError("bad_request", f"question: expected a phrasing of {task}, found {words!r}")
        note(tasks=[task])
        self.admission.charge(EXPLANATION_COST)
        recording = await self.read_recording(upload)
        motion = await self.tokenize(recording)
        queries: list[TaskQuestion] = [(task, words)]
        analysis = await self._measure_for(queries, recording, NOBODY)
        (answer,) = await self.answer([motion], "single", queries, analysis)
        if answer.refused:
            raise ApiError("bad_recording", answer.text)
        async with self.admission.asking.turn(EXPLANATION_COST):
            (explanation,) = await self.model.explain(
                recording.angles_rad, recording.info.joint_mask(), [(task, words)]
            )
        return _explanation(answer, explanation, served.summary)

    async def chat(self, chat: Chat) -> Answers:
        """The answer to the last message of a conversation about motion tokens."""
        served = await self.served()
        movements, views = token_lists(chat.tokens), chat.views_of_movements()
        check_tokens(chat, movements, views, served)
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

        for tokens in movements:
            note(tokens=tokens)
        # A model that does not average over views ignores them.
        motions = [
            MotionTokens(tokens, views[i] if views else (), analyses[i].statistics() if analyses else None)
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
            self.admission.charge(EXPLANATION_COST)
            query = (str(answers[-1].task), answers[-1].question)
            async with self.admission.asking.turn(EXPLANATION_COST):
                found = await self.model.explain_tokens(motions[0], query)
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


def _count_recording(records: Sequence[AnswerRecord], served: ServedModel) -> None:
    """Count what the model made of the recordings of a request."""
    asked = [record for record in records if record.answered_by == "model"]
    if not asked:
        return
    unlike, checked = any(r.unlike.unlike for r in asked), any(r.unlike.checked for r in asked)
    metrics.count(metrics.RECORDINGS, judged="unlike" if unlike else "like" if checked else "unchecked")
    known = [record.log_likelihood for record in asked if record.log_likelihood is not None]
    if known and (scale := served.likelihood_scale) is not None:
        metrics.observe(metrics.LIKELIHOOD, (-known[0] - scale.median) / scale.spread)


def _count_answers(answers: Sequence[Answer]) -> None:
    """Count the answers of a request."""
    for answer in answers:
        task = answer.task or metrics.FREE
        metrics.count(metrics.ANSWERS, task=task, status=answer.status)
        if answer.label is not None:
            metrics.count(metrics.LABELS, task=task, label=answer.label)


def _with_measured(answer: Answer, analysis: measured.Analysis) -> Answer:
    """The answer, each parameter that it states beside the measured one."""
    stated = parameters.parse_description(answer.text) if answer.status == "answered" else {}
    if not stated or answer.measured:
        return answer
    return replace(answer, stated_parameters=stated_parameters(stated, measured.parameters(analysis)))
