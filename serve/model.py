"""The model as the gateway sees it: its description, the methods that it is called by, and failures of single
questions.

During an upgrade two models run at once. A request keeps to the one that it began with: `SERVED`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from pydantic import BaseModel, ConfigDict

from biomechgpt.answering.answer import Answer as AnswerRecord
from biomechgpt.answering.ood import StatisticScale
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import Tasks
from biomechgpt.tokenizer.layout import TokenLayout
from serve import metrics
from serve.errors import ApiError
from serve.schema import ModelSummary


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
    likelihood_scale: StatisticScale | None = None
    """Scale of the log-likelihood of motion tokens; None for a model without a check of recordings."""


SERVED: ContextVar[ServedModel | None] = ContextVar("served", default=None)
"""The model that the running request began with; None before it asked."""


class ModelChanged(Exception):
    """The model that a request began with is gone. The request can be answered from its beginning."""


@dataclass(frozen=True)
class OtherModel:
    """Stands for the result of a call that was meant for another model."""


class Replica:
    """Base of a deployment that holds a model. It has a method `answer` for one query.

    served: description of the model.
    """

    served: ServedModel

    async def call(self, fingerprint: str | None, method: str, *arguments: Any) -> Any:
        """The result of a method of `ModelClient`; `OtherModel` if this is not the model that is meant.

        fingerprint: of the model that is meant; None: any.
        """
        if fingerprint not in (None, self.served.summary.fingerprint):
            return OtherModel()
        return await getattr(self, method)(*arguments)

    async def answer_all(self, queries: Sequence[Query]) -> "list[AnswerRecord | Failed]":
        """The answers to the queries of a request, in one call. They join batches as single queries do."""
        return list(await asyncio.gather(*map(self._timed, queries)))

    async def _timed(self, query: Query) -> "AnswerRecord | Failed":
        begun_s = time.monotonic()
        answer = await cast(Any, self).answer(query)
        metrics.observe(metrics.TASK_SECONDS, time.monotonic() - begun_s, task=query.task or metrics.FREE)
        return cast("AnswerRecord | Failed", answer)


class ModelClient(Protocol):
    """Methods of the model, local or remote. `serve.deployment.Model` has them."""

    async def describe(self) -> ServedModel: ...

    async def tokenize(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str
    ) -> MotionTokens: ...

    async def answer_all(self, queries: Sequence[Query]) -> "list[AnswerRecord | Failed]": ...

    async def explain(
        self, angles_rad: np.ndarray, joint_mask: np.ndarray, queries: list[tuple[str, str]]
    ) -> list[Any]: ...

    async def explain_tokens(self, motion: MotionTokens, query: tuple[str, str]) -> Any: ...

    async def recognise(self, question: str, tasks: list[str]) -> Intent: ...

    async def question_lengths(self, questions: list[str]) -> list[int]: ...


@dataclass(frozen=True)
class Failed:
    """Stands in a batch for the answer to a question that failed.

    message: what is wrong with the question; None: nothing that a client should read.
    """

    message: str | None = None

    def error(self) -> ApiError:
        """What to tell the client."""
        if self.message is None:
            return ApiError("internal", "the question could not be answered")
        return ApiError("bad_request", self.message)


def answer_each(
    answer: Callable[[Sequence[Query]], Sequence[AnswerRecord]], queries: Sequence[Query]
) -> list[AnswerRecord | Failed]:
    """The answers to a batch. A query that fails has `Failed`; the others of its batch are answered.

    A batch that fails is halved until the query is found, so that few are answered twice.
    """
    try:
        return list(answer(queries))
    except Exception as error:
        if len(queries) == 1:
            if isinstance(error, InputError):
                return [Failed(str(error))]
            logger.error("a question failed: %s", type(error).__name__)  # its message may quote the question
            return [Failed()]
    half = len(queries) // 2
    return [*answer_each(answer, queries[:half]), *answer_each(answer, queries[half:])]
