"""The endpoints of batches: many recordings in one request, whose answers are read when they are there."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response
from starlette.datastructures import Headers

from biomechgpt.motion.quantities import Person
from serve.audit import note
from serve.errors import ApiError
from serve.gateway import Gateway, GatewayDependency
from serve.jobs import RETRY_S
from serve.memory import Entry
from serve.recordings import clean_name
from serve.routes.answers import MAX_RISK, Age, Sex
from serve.schema import ERRORS, NOT_FOUND, Batch, Batches, BatchResult, ErrorDetail

router = APIRouter()
KIND = "batch"
NDJSON = "application/x-ndjson"


class NdjsonResponse(Response):
    """Results in JSON, one a line."""

    media_type = NDJSON


@router.post("/v1/batches", status_code=202, responses=ERRORS)
async def submit(
    gateway: GatewayDependency,
    request: Request,
    response: Response,
    recordings: Annotated[list[UploadFile], File(description="Recordings, each of which is answered alone.")],
    tasks: Annotated[list[str] | None, Form(description="Names of tasks, or `all`.")] = None,
    question: Annotated[str | None, Form(description="A question in free words.")] = None,
    max_risk: Annotated[float | None, Form(gt=0, le=1, description=MAX_RISK)] = None,
    age: Age = None,
    sex: Sex = None,
) -> Batch:
    """Ask the same about many recordings. The answer is 202; the header Location says where to ask for more."""
    most = gateway.settings.max_batch_recordings
    if len(recordings) > most:
        raise ApiError("bad_request", f"recordings: expected at most {most} files, found {len(recordings)}")
    await gateway.check_names(tasks or [], question)
    note(tasks=[*(tasks or []), *([None] if question else [])])
    items, names = [], []
    for index, upload in enumerate(recordings):
        name, content = clean_name(upload.filename), await upload.read()
        note(recording=content)
        work = partial(
            _answer, gateway, index, name, content, tasks or [], question, max_risk, Person(age, sex)
        )
        items.append((len(content), work))
        names.append(name)
    key = await gateway.jobs.submit(KIND, items, partial(_failed, names), {})
    response.headers["location"] = f"{str(request.base_url).rstrip('/')}/v1/batches/{key}"
    response.headers["retry-after"] = str(RETRY_S)
    return _batch(key, await gateway.jobs.get(KIND, key))


@router.get("/v1/batches", responses=ERRORS)
async def list_batches(gateway: GatewayDependency) -> Batches:
    """The batches of this client that are still kept, the oldest first."""
    found = [(key, await gateway.jobs.get(KIND, key)) for key in await gateway.jobs.keys(KIND)]
    return Batches(batches=[_batch(key, entry) for key, entry in found])


@router.get("/v1/batches/{batch}", responses={**ERRORS, **NOT_FOUND})
async def batch_status(gateway: GatewayDependency, response: Response, batch: str) -> Batch:
    """How far a batch is."""
    found = _batch(batch, await gateway.jobs.get(KIND, batch))
    if found.status == "running":
        response.headers["retry-after"] = str(RETRY_S)
    return found


@router.get(
    "/v1/batches/{batch}/results",
    response_class=NdjsonResponse,
    responses={
        200: {
            "content": {NDJSON: {"schema": {"type": "string", "description": "A BatchResult in each line."}}}
        },
        **ERRORS,
        **NOT_FOUND,
    },
)
async def batch_results(gateway: GatewayDependency, batch: str) -> Response:
    """The results so far, one line of JSON a recording, in the order of the recordings."""
    entry = await gateway.jobs.results(KIND, batch)
    return NdjsonResponse(b"".join(line + b"\n" for _, line in entry.lines))


@router.delete("/v1/batches/{batch}", responses={**ERRORS, **NOT_FOUND})
async def remove_batch(gateway: GatewayDependency, batch: str) -> Batch:
    """Stop a batch and forget its results."""
    found = _batch(batch, await gateway.jobs.get(KIND, batch))
    await gateway.jobs.remove(KIND, batch)
    return found


def _batch(key: str, entry: Entry) -> Batch:
    return Batch(id=key, **{name: entry.state[name] for name in ("status", "total", "done", "failed")})


async def _answer(
    gateway: Gateway,
    index: int,
    name: str,
    content: bytes,
    tasks: Sequence[str],
    question: str | None,
    max_risk: float | None,
    person: Person,
) -> tuple[str, bytes]:
    """The line of one recording. Raises ApiError."""
    upload = UploadFile(BytesIO(content), size=len(content), filename=name, headers=Headers())
    answers, _ = await gateway.answer_recordings(upload, tasks, question, max_risk=max_risk, person=person)
    return "answers", BatchResult(index=index, recording=name, answers=answers).model_dump_json().encode()


def _failed(names: Sequence[str], index: int, error: ApiError) -> tuple[str, bytes]:
    """The line of a recording that got no answers."""
    result = BatchResult(
        index=index, recording=names[index], error=ErrorDetail(code=error.code, message=error.message)
    )
    return "error", result.model_dump_json().encode()
