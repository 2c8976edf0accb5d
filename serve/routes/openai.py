"""The API of OpenAI's clients: models, files, and chat completions about recordings.

A recording is a part of a message, `{"type": "file", "file": {...}}`, with its content (`file_data`) or the id of a
file that was uploaded to /v1/files. The last user message is the question. Fields that steer how text is drawn, as
`temperature` does, are ignored: an answer is computed from the recording, and the same each time.
"""

import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, UploadFile
from fastapi.responses import Response, StreamingResponse

from serve.admission import CLIENT
from serve.errors import ApiError
from serve.gateway import Gateway, GatewayDependency
from serve.memory import FULL
from serve.recordings import clean_name
from serve.schema import (
    ERRORS,
    MAX_QUESTION_CHARS,
    NOT_FOUND,
    Answers,
    Chat,
    ChatMessage,
    ChatUsage,
    Completion,
    CompletionChoice,
    CompletionMessage,
    CompletionRequest,
    DeletedFile,
    ModelCard,
    ModelCards,
    UploadedFile,
)

router = APIRouter()
MODEL = "biomechgpt"
"""Name of the model, whichever bundle is served; `system_fingerprint` says which one answered."""
KIND = "file"
CREATED = 1_764_374_400
"""A time that OpenAI's format asks for: 29 November 2025, the same for each model."""
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_EVENTS = "text/event-stream"


@router.get("/v1/models", responses=ERRORS)
async def list_models(gateway: GatewayDependency) -> ModelCards:
    """The model, as OpenAI's clients list models."""
    return ModelCards(data=[await _card(gateway)])


@router.get("/v1/models/{model}", responses={**ERRORS, **NOT_FOUND})
async def read_model(gateway: GatewayDependency, model: str) -> ModelCard:
    """The model by its name."""
    _check_model(model)
    return await _card(gateway)


async def _card(gateway: Gateway) -> ModelCard:
    return ModelCard(id=MODEL, created=CREATED, fingerprint=(await gateway.served()).summary.fingerprint)


def _check_model(name: str) -> None:
    if name != MODEL:
        raise ApiError("not_found", f"model: expected {MODEL}, found {name[:80]!r}")


@router.post("/v1/files", responses=ERRORS)
async def upload(
    gateway: GatewayDependency,
    file: Annotated[UploadFile, File(description="Recording in any readable format.")],
    purpose: Annotated[str, Form(max_length=100, description="Ignored.")] = "user_data",
) -> UploadedFile:
    """Keep a recording for a while, so that several chats can name it by its id."""
    name, content = clean_name(file.filename), await file.read()
    state = {"name": name, "created": int(time.time()), "purpose": purpose}
    key = await gateway.memory.add(CLIENT.get(), KIND, state, content)
    if key == FULL:
        raise ApiError("busy", "there is no room for another file; delete some, or try again later", 60)
    return _uploaded(key, state, len(content), gateway)


@router.get("/v1/files/{file}", responses={**ERRORS, **NOT_FOUND})
async def read_file(gateway: GatewayDependency, file: str) -> UploadedFile:
    """What is known about a file."""
    state, content = await _kept(gateway, file)
    return _uploaded(file, state, len(content), gateway)


@router.delete("/v1/files/{file}", responses={**ERRORS, **NOT_FOUND})
async def delete_file(gateway: GatewayDependency, file: str) -> DeletedFile:
    """Forget a file."""
    if not await gateway.memory.remove(CLIENT.get(), KIND, file):
        raise _no_file(file)
    return DeletedFile(id=file)


def _uploaded(key: str, state: dict[str, Any], size: int, gateway: Gateway) -> UploadedFile:
    return UploadedFile(
        id=key,
        bytes=size,
        created_at=state["created"],
        expires_at=int(state["created"] + gateway.settings.keep_s),
        filename=state["name"],
        purpose=state["purpose"],
    )


async def _kept(gateway: Gateway, key: str) -> tuple[dict[str, Any], bytes]:
    """(state, content) of a file of the running request's client. Raises ApiError for another one."""
    entry = await gateway.memory.get(CLIENT.get(), KIND, key)
    if entry is None:
        raise _no_file(key)
    return entry.state, entry.lines[0][1]


def _no_file(key: str) -> ApiError:
    return ApiError("not_found", f"no file {key[:80]!r}, or it is no longer kept")


@router.post(
    "/v1/chat/completions",
    responses={200: {"content": {_EVENTS: {"schema": {"type": "string"}}}}, **ERRORS, **NOT_FOUND},
    response_model=Completion,
)
async def complete(gateway: GatewayDependency, request: CompletionRequest) -> Completion | Response:
    """The answer to the last message, about one recording, or two that are compared."""
    _check_model(request.model)
    answers = await _answer(gateway, request)
    text = _text(answers)
    completion = Completion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=MODEL,
        system_fingerprint=answers.model.fingerprint,
        choices=[CompletionChoice(message=CompletionMessage(content=text))],
        usage=await _usage(gateway, request, text),
        answers=answers,
    )
    if not request.stream:
        return completion
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    return StreamingResponse(_events(completion, with_usage), media_type=_EVENTS)


async def _answer(gateway: Gateway, request: CompletionRequest) -> Answers:
    recordings = [
        part.file for message in request.messages for part in message.parts if part.file is not None
    ]
    if not 1 <= len(recordings) <= 2:
        raise ApiError(
            "bad_request", f"messages: expected one recording (a file part), or two, found {len(recordings)}"
        )
    turns = [
        ChatMessage(role=message.role, content=text)
        for message in request.messages
        if message.role in ("user", "assistant") and (text := _cut(message.role, message.text))
    ]
    if not turns or turns[-1].role != "user":
        raise ApiError("bad_request", "messages: expected the last to be the user's, with a question")
    motions = []
    for index, given in enumerate(recordings):
        if given.file_id is not None:
            state, content = await _kept(gateway, given.file_id)
            name = state["name"]
        else:
            name, content = clean_name(given.filename), _decoded(given.file_data or "", index)
        upload = UploadFile(BytesIO(content), size=len(content), filename=name)
        motions.append(await gateway.read_tokens(upload))
    analyses = [analysis for _, analysis in motions if analysis is not None]
    tokens = [list(motion.tokens) for motion, _ in motions]
    views = [[list(tokens) for tokens in motion.views] for motion, _ in motions]
    single = len(motions) == 1
    chat = Chat(
        tokens=tokens[0] if single else tokens,
        views=views[0] if single else views,
        analysis=None if len(analyses) < len(tokens) else analyses[0] if single else analyses,
        messages=turns[-200:],
    )
    return await gateway.chat(chat)


def _cut(role: str, text: str) -> str:
    """The text of a message. An answer that comes back may be longer than a question may be."""
    if role == "user" and len(text) > MAX_QUESTION_CHARS:
        message = f"messages: expected at most {MAX_QUESTION_CHARS} characters of text, found {len(text)}"
        raise ApiError("bad_request", message)
    return text.strip()[:MAX_QUESTION_CHARS]


def _decoded(data: str, index: int) -> bytes:
    """The content of a file part, in base64, with or without `data:...;base64,` before it."""
    prefix = _DATA_URL.match(data)
    try:
        content = base64.b64decode(data[prefix.end() if prefix else 0 :], validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        expected = "expected the recording in base64, or file_id"
        raise ApiError("bad_request", f"messages: file_data of file {index + 1}: {expected}")
    return content


def _text(answers: Answers) -> str:
    """The answer with what must stand beside it: a chat window shows nothing else."""
    texts = [answer.text for answer in answers.answers]
    return "\n\n".join(filter(None, [answers.summary, *texts, answers.notice]))


async def _usage(gateway: Gateway, request: CompletionRequest, text: str) -> ChatUsage:
    """Tokens of the language model in the messages and in the answer; motion tokens are not counted."""
    sent = [message.text for message in request.messages if message.text]
    *lengths, answered = await gateway.model.question_lengths([*sent, text])
    return ChatUsage(
        prompt_tokens=sum(lengths), completion_tokens=answered, total_tokens=sum(lengths) + answered
    )


async def _events(completion: Completion, with_usage: bool) -> AsyncIterator[str]:
    """The completion as server-sent events, word by word. The whole answer is known before the first one."""
    head = {
        "id": completion.id,
        "object": "chat.completion.chunk",
        "created": completion.created,
        "model": completion.model,
        "system_fingerprint": completion.system_fingerprint,
    }

    def event(choices: Sequence[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]

    yield event(choice({"role": "assistant", "content": ""}))
    for word in re.findall(r"\s*\S+|\s+$", completion.choices[0].message.content):
        yield event(choice({"content": word}))
    yield event(choice({}, "stop"), answers=completion.answers.model_dump(mode="json"))
    if with_usage:
        yield event([], usage=completion.usage.model_dump())
    yield "data: [DONE]\n\n"
