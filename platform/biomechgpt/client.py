"""A client of a running server: recordings in, answers out, with the types of the API.

    from biomechgpt.client import Client

    with Client("http://127.0.0.1:8000", key) as client:
        for answer in client.answers("walk.mot", tasks=["diagnosis", "walking_speed"]).answers:
            print(answer.task, answer.text, answer.probabilities)

A server that is busy, and a key that asks too much, get another try after `Retry-After`. Needs httpx, no Ray and no
model.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from serve.schema import (
    Answers,
    Batch,
    BatchResult,
    Chat,
    ChatMessage,
    Explanation,
    ModelInfo,
    Motion,
)

__all__ = ["Client", "ServerError"]

Recording = str | os.PathLike[str] | tuple[str, bytes]
"""A file, or its name and content."""
RETRIED = (429, 503)
"""HTTP status after which a request is made again."""
DEFAULT_RETRY_S = 2.0
KEY = "BIOMECHGPT_API_KEY"


class ServerError(Exception):
    """An error of the server.

    status: of HTTP.
    code: of the API, for example bad_recording.
    request_id: of the request, which the server's log repeats; None if unknown.
    """

    def __init__(self, status: int, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(f"{message} ({status}, {code})")
        self.status, self.code, self.message, self.request_id = status, code, message, request_id


class Client:
    """Calls a server.

    url: where it listens, with the route prefix if it has one.
    key: access key; None: that of the environment variable BIOMECHGPT_API_KEY.
    timeout_s: for one response.
    patience_s: longest time to wait for a busy server, all tries of a request together.
    transport: of httpx; for tests.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout_s: float = 120.0,
        patience_s: float = 120.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        key = os.environ.get(KEY, "") if key is None else key
        self.patience_s, self._sleep = patience_s, sleep
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def model(self) -> ModelInfo:
        """The model, its tasks, and the limits of a request."""
        return ModelInfo.model_validate_json(self._request("GET", "/v1/model").content)

    def answers(
        self,
        recording: Recording,
        *,
        tasks: Sequence[str] = (),
        question: str | None = None,
        compare_with: Recording | None = None,
        additional_recordings: Sequence[Recording] = (),
        max_risk: float | None = None,
        age: float | None = None,
        sex: Literal["female", "male"] | None = None,
    ) -> Answers:
        """The answers about a recording, about two that are compared, or about several of one person.

        tasks: names of tasks, or `all`.
        question: in free words.
        compare_with: second recording, which questions call B.
        additional_recordings: further recordings of the same person.
        max_risk: highest accepted error rate of a label.
        age, sex: for the norms of measured values.
        Raises ServerError; OSError for a file that cannot be read.
        """
        files = [("recording", recording)]
        files += [("compare_with", compare_with)] if compare_with is not None else []
        files += [("additional_recordings", further) for further in additional_recordings]
        fields = {"tasks": list(tasks), "question": question, "max_risk": max_risk, "age": age, "sex": sex}
        response = self._request("POST", "/v1/answers", files=_files(files), data=_form(fields))
        return Answers.model_validate_json(response.content)

    def motion(
        self, recording: Recording, *, age: float | None = None, sex: Literal["female", "male"] | None = None
    ) -> Motion:
        """The motion tokens of a recording, which `chat` takes, its measured values, and a stick figure."""
        fields = {"age": age, "sex": sex}
        files = _files([("recording", recording)])
        return Motion.model_validate_json(
            self._request("POST", "/v1/motions", files=files, data=_form(fields)).content
        )

    def chat(self, motion: Motion, messages: str | Sequence[ChatMessage]) -> Answers:
        """The answer to the last message of a conversation about a movement; a string is a first message."""
        if isinstance(messages, str):
            messages = [ChatMessage(role="user", content=messages)]
        chat = Chat(
            tokens=motion.tokens,
            views=motion.views,
            tokenizer=motion.tokenizer,
            analysis=motion.analysis,
            messages=list(messages),
        )
        body = chat.model_dump_json().encode()
        headers = {"content-type": "application/json"}
        return Answers.model_validate_json(
            self._request("POST", "/v1/chat", content=body, headers=headers).content
        )

    def explain(self, recording: Recording, task: str) -> Explanation:
        """The seconds and joints of a recording that the answer to a task rests on."""
        files = _files([("recording", recording)])
        response = self._request("POST", "/v1/explanations", files=files, data={"task": task})
        return Explanation.model_validate_json(response.content)

    def fhir(self, recording: Recording, *, tasks: Sequence[str] = ("all",), **fields: str) -> dict[str, Any]:
        """The answers as a FHIR Bundle. fields: of the form of /fhir/$answer-motion, such as subject or bundle."""
        files = _files([("recording", recording)])
        data = _form({"tasks": list(tasks), **fields})
        bundle: dict[str, Any] = self._request("POST", "/fhir/$answer-motion", files=files, data=data).json()
        return bundle

    def submit(
        self,
        recordings: Iterable[Recording],
        *,
        tasks: Sequence[str] = (),
        question: str | None = None,
        max_risk: float | None = None,
        age: float | None = None,
        sex: Literal["female", "male"] | None = None,
    ) -> Batch:
        """Ask the same about many recordings; `results` gives the answers. Parameters as for `answers`."""
        files = _files([("recordings", recording) for recording in recordings])
        fields = {"tasks": list(tasks), "question": question, "max_risk": max_risk, "age": age, "sex": sex}
        response = self._request("POST", "/v1/batches", files=files, data=_form(fields))
        return Batch.model_validate_json(response.content)

    def batch(self, batch: Batch | str) -> Batch:
        """How far a batch is."""
        response = self._request("GET", f"/v1/batches/{_id(batch)}")
        return Batch.model_validate_json(response.content)

    def results(self, batch: Batch | str) -> Iterator[BatchResult]:
        """The results of a batch, each when it is there. Raises ServerError if the server lost the batch."""
        given, every_s = 0, DEFAULT_RETRY_S
        while True:
            state = self.batch(batch)
            if state.done > given:
                lines = self._request("GET", f"/v1/batches/{_id(batch)}/results").text.splitlines()
                for line in lines[given:]:
                    yield BatchResult.model_validate_json(line)
                given = len(lines)
            if state.status == "failed":
                raise ServerError(
                    503, "busy", f"the server lost the batch after {given} of {state.total} results"
                )
            if state.status == "finished" and given >= state.total:
                return
            self._sleep(every_s)

    def remove(self, batch: Batch | str) -> None:
        """Stop a batch and forget its results."""
        self._request("DELETE", f"/v1/batches/{_id(batch)}")

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A response without an error. Raises ServerError."""
        give_up = time.monotonic() + self.patience_s
        while True:
            response = self._http.request(method, path, **arguments)
            if response.is_success:
                return response
            wait_s = _retry_after_s(response)
            if response.status_code not in RETRIED or time.monotonic() + wait_s > give_up:
                raise _error(response)
            self._sleep(wait_s)


def _id(batch: Batch | str) -> str:
    return batch if isinstance(batch, str) else batch.id


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds after which the server may answer."""
    try:
        return max(0.0, float(response.headers.get("retry-after", DEFAULT_RETRY_S)))
    except ValueError:  # a date, which this server never sends, but a proxy may
        return DEFAULT_RETRY_S


def _error(response: httpx.Response) -> ServerError:
    """The error that a body tells, in the form of the API or of FHIR."""
    try:
        body = response.json()
        if "error" in body:
            error = body["error"]
            return ServerError(response.status_code, error["code"], error["message"], error.get("request_id"))
        details = body["issue"][0]["details"]
        return ServerError(
            response.status_code, details["coding"][0]["code"], details["text"], body.get("id")
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError):
        return ServerError(response.status_code, "unknown", response.text[:200] or "no message")


def _files(recordings: Iterable[tuple[str, Recording]]) -> list[tuple[str, tuple[str, bytes]]]:
    """The files of a form. Their content is read, so that a request can be made again."""
    found = []
    for field, recording in recordings:
        if isinstance(recording, tuple):
            found.append((field, recording))
        else:
            path = Path(recording)
            found.append((field, (path.name, path.read_bytes())))
    return found


def _form(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a form that have a value."""
    return {
        name: value if isinstance(value, list) else str(value)
        for name, value in fields.items()
        if value is not None and value != []
    }
