"""A shadow model: it is asked what the model is asked, answers nobody, and its agreement is counted.

Its failures, and the time it takes, do not reach a client. Knows nothing about HTTP and Ray.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Any

import numpy as np

from biomechgpt.answering.answer import Answer
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.tasks import AnnotatedTask, Tasks
from serve import metrics
from serve.model import SERVED, Failed, ModelClient

logger = logging.getLogger("biomechgpt.serve")

Movement = tuple[np.ndarray, np.ndarray, str]
"""Angles, joint mask and provenance of a recording, as `ModelClient.tokenize` takes them."""
KEPT_MOVEMENTS = 256
"""Recordings that are kept, so that the shadow can read them with its own tokenizer."""


class Shadowed:
    """A `ModelClient` with a shadow.

    model: gives the answers.
    shadow: is asked the same, with recordings as its own tokenizer reads them.
    most: questions that the shadow is asked at once; further ones it is not asked.
    """

    def __init__(self, model: ModelClient, shadow: ModelClient, most: int) -> None:
        self.model, self.shadow, self.most = model, shadow, most
        self._movements: OrderedDict[tuple[int, ...], Movement] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, method: str) -> Any:
        return getattr(self.model, method)

    async def tokenize(self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str) -> MotionTokens:
        """As the model does it."""
        motion = await self.model.tokenize(angles_rad, joint_mask, provenance)
        self._movements[tuple(motion.tokens)] = (angles_rad, joint_mask, provenance)
        if len(self._movements) > KEPT_MOVEMENTS:
            self._movements.popitem(last=False)
        return motion

    async def answer_all(self, queries: Sequence[Query]) -> list[Answer | Failed]:
        """The model's answers. The shadow is asked when they are known."""
        answers = await self.model.answer_all(queries)
        for query, answer in zip(queries, answers, strict=True):
            if not isinstance(answer, Failed):
                self._ask(query, answer)
        return answers

    def _ask(self, query: Query, answer: Answer) -> None:
        """Ask the shadow a query, unless it has too much to do."""
        served, movements = SERVED.get(), [self._movements.get(tuple(m.tokens)) for m in query.motions]
        known = [movement for movement in movements if movement is not None]
        # A chat sends tokens, perhaps of a recording that another gateway read.
        if served is not None and query.task and len(known) == len(movements):
            if len(self._tasks) < self.most:
                self._begin(self._compare(query, answer, known, served.tasks))
            else:
                metrics.count(metrics.SHADOW, task=query.task, agreement="not_asked")

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: the shadow is another model than the one of the request.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, query: Query, answer: Answer, movements: list[Movement], tasks: Tasks) -> None:
        name = str(query.task)
        try:
            motions = [await self.shadow.tokenize(*movement) for movement in movements]
            (other,) = await self.shadow.answer_all([replace(query, motions=motions)])
            agreement = "failed"
            if not isinstance(other, Failed):
                agreement = "agrees" if agree(tasks, name, answer, other) else "differs"
        except Exception as error:  # its message may quote the question
            logger.warning("the shadow model failed: %s", type(error).__name__)
            agreement = "failed"
        metrics.count(metrics.SHADOW, task=name, agreement=agreement)


def agree(tasks: Tasks, name: str, answer: Answer, other: Answer) -> bool:
    """Whether two answers to a task say the same: the same label, or a number within the first one's interval."""
    if answer.status != other.status:
        return False
    task = tasks[name]
    if answer.status != "answered" or not isinstance(task, AnnotatedTask):
        return True
    first, second = task.parse(answer.text), task.parse(other.text)
    if isinstance(first, float) and isinstance(second, float):
        return answer.low is not None and answer.high is not None and answer.low <= second <= answer.high
    return first == second
