"""A model that answers without training, Ray or torch: for tests of the endpoints."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from biomechgpt.answering.answer import Answer, Unlike
from biomechgpt.answering.conformal import COVERAGE
from biomechgpt.answering.gates import Gate
from biomechgpt.answering.status import with_status
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.intent import Intent
from biomechgpt.questions.tasks import AnnotatedTask, NumberTask, load_tasks
from biomechgpt.tokenizer.layout import TokenLayout
from conftest import ROOT
from serve.model import Replica, ServedModel
from serve.schema import ModelSummary

KEY = "key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
SERVED = ServedModel(
    summary=ModelSummary(fingerprint="f" * 64, base="fake", data="synthetic"),
    tasks=load_tasks([str(ROOT / "configs/tasks"), str(ROOT / "configs/tasks_extra")]),
    person_tasks=["impaired", "diagnosis"],
    coverage=COVERAGE,
    max_question_tokens=50,
    frame_rate_hz=30.0,
    layout=TokenLayout(0, 0, (64,)),
    tokenizer="t" * 64,
    max_duration_s=9.0,
    typical_duration_s=12.0,
)


class FakeModel(Replica):
    """Each task's answer is its first label, or 1.

    calls: names of the methods that were called.
    queries: what `answer` was asked.
    intents: {question: what it asks}; any other question is out of scope, unless it names the cadence.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.queries: list[Query] = []
        self.intents: dict[str, Intent] = {}
        self.unlike = Unlike(checked=True, participants=20)
        self.gate = Gate(1.0, "")
        self.served = SERVED

    async def describe(self) -> ServedModel:
        self.calls.append("describe")
        return self.served

    async def tokenize(self, angles_rad: np.ndarray, joint_mask: np.ndarray, provenance: str) -> MotionTokens:
        self.calls.append("tokenize")
        statistics = MovementStatistics(
            len(angles_rad) / SERVED.frame_rate_hz, 4, distance=0.5, rmse_deg=3.0, provenance=provenance
        )
        return MotionTokens([1, 2, 3], statistics=statistics)

    async def answer(self, query: Query) -> Answer:
        self.calls.append("answer")
        self.queries.append(query)
        answer = self._raw(query)
        if query.task is None:
            return replace(answer, unlike=self.unlike)
        known = [motion.statistics for motion in query.motions if motion.statistics is not None]
        return with_status(answer, SERVED.tasks[query.task], self.gate, self.unlike, known, "synthetic")

    def _raw(self, query: Query) -> Answer:
        task = SERVED.tasks.get(query.task or "")
        if not isinstance(task, AnnotatedTask):
            return Answer("Rather slowly.")
        if isinstance(task, NumberTask):
            return Answer(task.answer(1.0), low=0.5, high=1.5, coverage_guaranteed=True)
        labels = [str(label) for label in task.answers(["a", "b"])]
        rest = [0.3 / (len(labels) - 1)] * (len(labels) - 1)
        return Answer(
            task.answer(labels[0]),
            labels=labels,
            probabilities=[0.7, *rest],
            prediction_set=labels[:2],
            selective_risk=0.2,
            coverage_guaranteed=True,
        )

    async def explain(self, angles_rad: Any, joint_mask: Any, queries: Any) -> list[Any]:
        return [await self.explain_tokens(MotionTokens([1]), query) for query in queries]

    async def explain_tokens(self, motion: MotionTokens, query: tuple[str, str]) -> Any:
        self.calls.append("explain_tokens")
        return SimpleNamespace(
            explained_value=0.7,
            seconds=[(0.0, 0.5, 0.2), (0.5, 1.0, -0.4)],
            joints={"knee_angle_r": 0.3, "hip_flexion_l": -0.1},
        )

    async def recognise(self, question: str, tasks: list[str]) -> Intent:
        if question in self.intents:
            return self.intents[question]
        if "cadence" in question and "cadence" in tasks:
            return Intent("task", "cadence")
        return Intent("out_of_scope")

    async def question_lengths(self, questions: list[str]) -> list[int]:
        return [len(question.split()) for question in questions]
