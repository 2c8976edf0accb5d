"""The Ray Serve application: `Gateway` speaks HTTP, `model.Model` replicas hold a bundle.

`build` is what a RayService's `import_path: serve.app:build` calls; `python -m serve.main` calls it on a laptop.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError, Settings, validate
from biomechgpt.experiment import tracking
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.motion import kinematics, parameters
from biomechgpt.motion.skeleton import NAMES
from biomechgpt.prompts.encoding import Mirrored, Movement, Person, as_it_is, mirror_image, movements_of
from biomechgpt.questions.tasks import askable
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from serve import examples, fhir
from serve.guard import ApiError, Guard, response
from serve.model import QUIET, Model
from serve.schema import (
    LONGEST,
    NOTICE,
    Answer,
    Answers,
    Chat,
    Explanation,
    Motion,
    Recorded,
    Turn,
    answer_of,
    notice_of,
    stated_facts,
    strange_answer,
    sure,
)

KEY = "BIOMECHGPT_API_KEY"
STATIC = Path(__file__).parent / "static"


class ServeSettings(Settings):
    """bundle: URI of a model artifact, or models:/NAME@ALIAS of the registry."""

    bundle: str
    tracking: TrackingSettings = TrackingSettings()
    readers: ReaderSettings = ReaderSettings()
    quality: QualitySettings = QualitySettings()
    risk: float | None = Field(
        None, gt=0, le=1, description="of a wrong label; answers of more are uncertain"
    )
    replicas: int = Field(1, ge=1)
    gpus: float = Field(0, ge=0, description="of each replica")
    batch_size: int = Field(16, ge=1, description="most questions answered together")
    batch_wait_s: float = Field(0.01, ge=0)
    max_queued: int = Field(
        64, ge=1, description="questions waiting for a replica; more are refused with 503"
    )
    max_requests: int = Field(64, ge=1, description="requests at once; more are refused with 503")
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    max_frames: int = Field(60_000, ge=100, description="of a recording as it comes")


MOST_FURTHER = 20
"""Recordings of a person beside the first."""


def api(settings: ServeSettings, model: DeploymentHandle, key: str) -> FastAPI:
    """The HTTP interface over a handle of `Model`."""
    app = FastAPI(
        title="BiomechGPT",
        version="1",
        description=f"Clinical questions about how a person moves. {NOTICE}",
        docs_url=None,  # its page fetches scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, key=key, max_body=settings.max_body_bytes, max_requests=settings.max_requests)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(request, "bad_request", f"{place}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        code = "not_found" if error.status_code in (404, 405) else "bad_request"
        return _error(request, code, str(error.detail), error.status_code)

    def _error(request: Request, code: str, message: str, status: int | None = None) -> Response:
        status, headers, body = response(request.url.path, code, message, status)
        return Response(body, status, headers)

    async def ask(handle: Any, *arguments: Any) -> Any:
        try:
            return await handle.remote(*arguments)
        except BackPressureError:
            raise ApiError("busy", "too many questions are waiting; try again later") from None

    async def read(
        about: dict[str, Any], upload: UploadFile | None
    ) -> tuple[Recorded, np.ndarray, np.ndarray, bytes]:
        if upload is None:
            raise ApiError("bad_request", "recording: expected a file")
        name, content = Path(upload.filename or "recording").name, await upload.read()
        try:
            return (*await asyncio.to_thread(_load, name, content, settings, about), content)
        except InputError as error:
            raise ApiError("bad_recording", str(error)) from None

    async def questions(
        about: dict[str, Any],
        tasks: list[str],
        question: str | None,
        movements: int = 1,
        of_person: bool = False,
    ) -> list[tuple[str | None, str]]:
        """What is asked. One too long is refused here: in a batch it would fail the others' too."""
        known = askable(about["tasks"], movements)
        if of_person:
            known = {name: known[name] for name in about["of_people"]}
            if not known:
                raise ApiError("bad_request", "more: this model was not calibrated for several recordings")
        asked = _questions(known, tasks, question)
        if asked[-1][0] is None:
            task = await ask(model.recognise, asked[-1][1], list(known))
            # A recognised question is asked in words that the model knows; the answer says which.
            asked[-1] = (task, known[task].phrasings[0]) if task else asked[-1]
        if of_person and any(task is None for task, _ in asked):
            expected = f"expected a phrasing of {' or '.join(known)} about several recordings"
            raise ApiError("bad_request", f"question: {expected}, found {question!r}")
        longest, most = max(await ask(model.lengths, [q for _, q in asked])), about["longest_question"]
        if longest > most:
            message = f"question: expected at most {most} tokens of the language model's, found {longest}"
            raise ApiError("bad_request", message)
        return asked

    async def answers(
        about: dict[str, Any],
        motion: Any,
        asked: list[tuple[str | None, str]],
        measured: Callable[[], Awaitable[dict[str, float | None]]],
        before: list[str] | None = None,
        strange: bool = False,
        risk: float | None = None,
        duration_s: float | None = None,
    ) -> list[Answer]:
        """before: turns of the conversation before the question. strange: the movement is. risk: that is wanted;
        duration_s: of the movement."""
        if strange:
            return [strange_answer(about["tasks"], task, question) for task, question in asked]
        made = await asyncio.gather(
            *(ask(model.answer, (motion, t, [*before, q] if before else q)) for t, q in asked)
        )
        given = [
            answer_of(about["tasks"], t, q, weighed) for (t, q), weighed in zip(asked, made, strict=True)
        ]
        wanted = settings.risk if risk is None else risk
        given = [sure(answer, wanted, about["usual_s"], duration_s) for answer in given]
        # Of two movements a fact would not say which it is of.
        single = not isinstance(motion, Person) and len(movements_of(motion)) == 1
        if single and any(stated := [parameters.stated(a.text) for a in given]):
            known = await measured()
            for answer, said in zip(given, stated, strict=True):
                answer.facts = stated_facts(said, known)
        return given

    async def answer_recording(
        recording: UploadFile | None,
        tasks: list[str],
        question: str | None,
        other: UploadFile | None = None,
        risk: float | None = None,
        more: list[UploadFile] | None = None,
    ) -> tuple[Answers, bytes]:
        if other is not None and more:
            raise ApiError("bad_request", "expected `other`, to compare, or `more` of one person, found both")
        if more and len(more) > MOST_FURTHER:
            raise ApiError("bad_request", f"more: expected at most {MOST_FURTHER} files, found {len(more)}")
        about = await ask(model.describe)
        asked = await questions(
            about, tasks, question, movements=1 if other is None else 2, of_person=bool(more)
        )
        recorded, angles, pelvis, content = await read(about, recording)
        motion, strange = await ask(model.tokenize, angles, recorded.joint_mask())
        beside, motions = [], [motion]
        for upload in more or ([other] if other is not None else []):
            one, angles_too, _, _ = await read(about, upload)
            movement, strange_too = await ask(model.tokenize, angles_too, one.joint_mask())
            beside.append(one)
            motions.append(movement)
            strange = strange or strange_too
        if beside:
            motion = Person(motions) if more else motions

        async def measured() -> dict[str, float | None]:
            mask, rate_hz = recorded.joint_mask(), about["frame_rate_hz"]
            return await asyncio.to_thread(parameters.measure, angles, pelvis, rate_hz, mask)

        made = Answers(
            answers=await answers(
                about, motion, asked, measured, strange=strange, risk=risk, duration_s=recorded.used_s
            ),
            model=about["model"],
            recording=recorded,
            other=beside[0] if other is not None else None,
            more=beside if more else [],
            notice=notice_of(about["model"]),
        )
        return made, content

    @app.get("/v1/model")
    async def describe() -> dict[str, Any]:
        """The model behind the answers and what it can be asked."""
        about = await ask(model.describe)
        tasks = [
            {"name": task.name, "kind": task.kind, "question": task.phrasings[0], "unit": task.unit,
             "movements": movements}
            for movements in (1, 2)
            for task in askable(about["tasks"], movements).values()
        ]  # fmt: skip
        return about["model"].model_dump() | {"notice": notice_of(about["model"]), "tasks": tasks}

    @app.get("/v1/examples")
    async def list_examples() -> dict[str, Any]:
        """Simulated recordings to try things out with."""
        return {"examples": [{**example, "data": "synthetic"} for example in examples.listed()]}

    @app.get("/v1/examples/{name}", response_class=PlainTextResponse)
    async def example(name: str) -> str:
        """One of them, as a .mot file."""
        try:
            return await asyncio.to_thread(examples.mot, name)
        except KeyError:
            raise ApiError("not_found", f"no example {name!r}") from None

    @app.post("/v1/motions")
    async def motion(recording: Annotated[UploadFile, File()]) -> Motion:
        """Read a recording: its motion tokens, and a stick figure to show."""
        about = await ask(model.describe)
        recorded, angles, pelvis, _ = await read(about, recording)
        movement, _ = await ask(model.tokenize, angles, recorded.joint_mask())
        points = await asyncio.to_thread(kinematics.points_m, angles, pelvis, ground="frame")
        drawn = {
            "frame_rate_hz": recorded.frame_rate_hz,
            "points": kinematics.POINTS,
            "bones": kinematics.BONES,
            "positions_m": np.round(points.astype(float), 3).tolist(),
        }
        (tokens,), images = as_it_is(movement), mirror_image(movement)
        return Motion(
            recording=recorded,
            tokens=tokens,
            mirrored=images[0] if images else None,
            tokenizer=about["tokenizer"],
            figure=drawn,
        )

    @app.post("/v1/answers")
    async def answer(
        recording: Annotated[UploadFile, File(description="a file of any reader's format")],
        tasks: Annotated[list[str] | None, Form(description="names of tasks, or `all`")] = None,
        question: Annotated[str | None, Form(description="a question of your own")] = None,
        other: Annotated[UploadFile | None, File(description="a second one, to be compared: B")] = None,
        more: Annotated[list[UploadFile] | None, File(description="further ones of the same person")] = None,
        risk: Annotated[float | None, Form(gt=0, le=1, description="of a wrong label, that is taken")] = None,
    ) -> Answers:
        """Answers to tasks or to a question about one recording; about two, the first is A, the other B; or about a
        person, whom `recording` and `more` show: then of what is the same in all of them, as a diagnosis."""
        return (await answer_recording(recording, tasks or [], question, other, risk, more))[0]

    @app.post("/v1/explanations")
    async def explanation(
        recording: Annotated[UploadFile, File(description="a file of any reader's format")],
        task: Annotated[str, Form(description="name of a task with labels or a number")],
        question: Annotated[str | None, Form(description="a phrasing of it")] = None,
    ) -> Explanation:
        """Which seconds and joints of a recording an answer rests on: what becomes of it without them."""
        about = await ask(model.describe)
        tasks = {name: t for name, t in askable(about["tasks"], 1).items() if t.annotated}
        if task not in tasks:
            raise ApiError("bad_request", f"task: expected one of {', '.join(tasks)}, found {task!r}")
        words = (question or "").strip() or tasks[task].phrasings[0]
        if words not in tasks[task].phrasings:
            raise ApiError("bad_request", f"question: expected a phrasing of {task}, found {words!r}")
        recorded, angles, _, _ = await read(about, recording)
        tokens, strange = await ask(model.tokenize, angles, recorded.joint_mask())

        async def nothing() -> dict[str, float | None]:
            return {}

        (given,) = await answers(about, tokens, [(task, words)], nothing, strange=strange)
        if given.refused:
            raise ApiError("bad_recording", given.text)
        (told,) = await ask(model.explain, angles, recorded.joint_mask(), [(task, words)])
        points = dict.fromkeys(kinematics.POINTS, 0.0)
        for joint, weight in told.joints.items():
            points[kinematics.PIVOTS[joint]] += weight
        return Explanation(
            answer=given,
            of=told.of,
            seconds=told.seconds,
            joints=told.joints,
            points=points,
            model=about["model"],
            notice=notice_of(about["model"]),
        )

    @app.post("/v1/chat")
    async def chat(chat: Chat) -> Answers:
        """The answer to the last message, about a movement that /v1/motions tokenized."""
        about = await ask(model.describe)
        movements, images = as_it_is(chat.tokens), as_it_is(chat.mirrored)
        for name, given in (("tokens", movements), ("mirrored", images)):
            wrong = [token for movement in given for token in movement if not 0 <= token < about["codes"]]
            if wrong:
                raise ApiError("bad_request", f"{name}: expected 0 to {about['codes'] - 1}, found {wrong[0]}")
        if images and len(images) != len(movements):
            expected = f"mirrored: expected those of {len(movements)} movements, as tokens has"
            raise ApiError("bad_request", f"{expected}, found {len(images)}")
        if chat.tokenizer not in (None, about["tokenizer"]):
            expected = f"tokenizer: expected the model's, {about['tokenizer']}"
            raise ApiError("bad_request", f"{expected}, found tokens of {chat.tokenizer}")
        if chat.messages[-1].role != "user":
            raise ApiError("bad_request", "messages: expected the last to be the user's")
        turns = _turns(chat.messages)
        asked = await questions(about, [], turns[-1], len(movements))

        async def measured() -> dict[str, float | None]:
            return await ask(model.measure, movements[0])

        motions: list[Movement] = list(movements)
        if images:  # read where the model reads them
            motions = [Mirrored(own, image) for own, image in zip(movements, images, strict=True)]
        motion = motions if len(motions) > 1 else motions[0]
        made = await answers(about, motion, asked, measured, turns[:-1])
        return Answers(answers=made, model=about["model"], notice=notice_of(about["model"]))

    @app.get("/fhir/metadata")
    async def metadata() -> Response:
        """FHIR's CapabilityStatement."""
        return _fhir(fhir.capability_statement("1"))

    @app.post("/fhir/$answer-motion")
    async def answer_motion(request: Request) -> Response:
        """The same as /v1/answers, as a FHIR R4 Bundle. Takes multipart/form-data, or FHIR Parameters:
        `recording` (valueAttachment with title and data), `task` (valueCode, repeated), `question`
        (valueString), `subject` (valueReference)."""
        asked = await _asked(request)
        made, content = await answer_recording(asked["recording"], asked["tasks"], asked["question"])
        try:
            made_bundle = fhir.bundle(
                made.model_dump(),
                subject=asked["subject"],
                recorded=datetime.now(UTC),
                source_sha256=hashlib.sha256(content).hexdigest(),
            )
        except ValueError as error:
            raise ApiError("bad_request", str(error)) from None
        return _fhir(made_bundle)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """The gateway is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready() -> Response:
        """A model answers."""
        try:
            await asyncio.wait_for(ask(model.describe), timeout=5)
        except Exception:
            status, headers, body = response("/readyz", "busy", "no model is ready")
            return Response(body, status, headers)
        return PlainTextResponse("ready")

    if STATIC.is_dir():
        app.mount("/", _Page(directory=STATIC, html=True))
    return app


class _Page(StaticFiles):
    """The web page; nothing that it shows comes from anywhere else."""

    async def get_response(self, path: str, scope: Any) -> Response:
        made = await super().get_response(path, scope)
        made.headers["content-security-policy"] = (
            "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
        )
        made.headers["x-content-type-options"] = "nosniff"
        made.headers["referrer-policy"] = "no-referrer"
        return made


def _fhir(content: dict[str, Any]) -> Response:
    import json

    return Response(json.dumps(content), media_type=fhir.CONTENT_TYPE)


def _load(
    name: str, content: bytes, settings: ServeSettings, about: dict[str, Any]
) -> tuple[Recorded, np.ndarray, np.ndarray]:
    """What a file holds, its angles (T, 34) and pelvis (T, 7) at the tokenizer's rate."""
    found = readers.parse(name, content, settings.readers)
    if len(found.time_s) > settings.max_frames:
        raise ApiError(
            "too_large", f"{name}: expected at most {settings.max_frames} frames, found {len(found.time_s)}"
        )
    rate_hz = about["frame_rate_hz"]
    angles, pelvis, repaired = prepare(name, found, settings.quality, rate_hz)
    duration_s = len(angles) / rate_hz
    recorded = Recorded(
        name=name,
        frames=len(angles),
        duration_s=round(duration_s, 3),
        used_s=round(min(duration_s, about["longest_s"]), 3),
        frame_rate_hz=rate_hz,
        knee_flexion=found.knee_flexion,
        missing_joints=[joint for joint, there in zip(NAMES, found.joint_mask, strict=True) if not there],
        repaired=repaired,
    )
    return recorded, angles, pelvis


def _turns(messages: list[Turn]) -> list[str]:
    """A conversation's words, user's and assistant's in turn, the user's first and last; of two messages in a row
    by one of them the later."""
    turns: list[str] = []
    for message in messages:
        mine = len(turns) % 2 == (message.role == "user")
        if mine and turns:
            turns[-1] = message.content
        elif not mine:
            turns.append(message.content)
    return turns


def _questions(tasks: Any, names: list[str], question: str | None) -> list[tuple[str | None, str]]:
    """(task or None, question) of each thing asked."""
    names = [part.strip() for name in names for part in name.split(",") if part.strip()]
    if "all" in names:
        names = list(tasks)
    unknown = [name for name in names if name not in tasks]
    if unknown:
        raise ApiError(
            "bad_request", f"tasks: expected all or some of {', '.join(tasks)}, found {unknown[0]!r}"
        )
    asked: list[tuple[str | None, str]] = [(name, tasks[name].phrasings[0]) for name in names]
    if question and question.strip():
        text = question.strip()
        if len(text) > LONGEST:
            raise ApiError(
                "bad_request", f"question: expected at most {LONGEST} characters, found {len(text)}"
            )
        same = (name for name, task in tasks.items() if text.casefold() in map(str.casefold, task.phrasings))
        asked.append((next(same, None), text))
    if not asked:
        raise ApiError("bad_request", "expected `tasks` (names, or all) or a `question`, found neither")
    return asked


async def _asked(request: Request) -> dict[str, Any]:
    """The operation's input, from a form or from FHIR Parameters."""
    if not request.headers.get("content-type", "").startswith(("application/fhir+json", "application/json")):
        form = await request.form()
        recording = form.get("recording")
        if isinstance(recording, str):
            raise ApiError("bad_request", "recording: expected a file, found text")
        texts = {name: form.get(name) for name in ("question", "subject")}
        return {
            "recording": recording,
            "tasks": [task for task in form.getlist("tasks") if isinstance(task, str)],
            **{name: text if isinstance(text, str) else None for name, text in texts.items()},
        }
    try:
        return fhir.parameters(await request.json())
    except ValueError as error:
        raise ApiError("bad_request", str(error)) from None


def build(arguments: dict[str, Any]) -> serve.Application:
    """The application, from `ServeSettings`' fields. Raises InputError where there is no such bundle."""
    settings = validate(ServeSettings, arguments, "serve")
    bundle = artifact.load(tracking.resolve(settings.tracking, settings.bundle), "model").uri
    model = Model.options(  # type: ignore[attr-defined]
        num_replicas=settings.replicas,
        max_queued_requests=settings.max_queued,
        ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus},
    ).bind(bundle, settings.batch_size, settings.batch_wait_s)

    def make() -> FastAPI:
        # Built in the replica: the key comes from its own environment, never through the cluster's metadata.
        handle = serve.get_deployment_handle("Model", serve.get_replica_context().app_name)
        return api(settings, handle, os.environ.get(KEY, ""))

    gateway = serve.deployment(
        serve.ingress(make)(),
        name="Gateway",
        # The guard counts requests and refuses in our own words, before Serve would in plain text.
        max_ongoing_requests=settings.max_requests * 4,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
    )
    return gateway.bind(model)  # type: ignore[attr-defined]
