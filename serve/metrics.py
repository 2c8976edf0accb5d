"""Metrics of the server: what is counted, and by which tags.

Ray exports them to Prometheus, each name after `ray_`, a counter with `_total` behind it. Of a request, tags hold
the names of its route, tasks and labels only. Without Ray nothing is counted. `docs/operations.md` says how to read
them; the dashboard and the alert rules of `infra/monitoring` use them.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)


@dataclass(frozen=True)
class Metric:
    """A metric.

    kind: a counter only grows; a histogram counts values up to each boundary.
    description: what it counts.
    tags: names of its tags.
    boundaries: of a histogram.
    """

    kind: Literal["counter", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()


REQUESTS = "biomechgpt_requests"
REQUEST_SECONDS = "biomechgpt_request_seconds"
TASK_SECONDS = "biomechgpt_task_seconds"
BATCH_SIZE = "biomechgpt_batch_size"
ANSWERS = "biomechgpt_answers"
LABELS = "biomechgpt_labels"
RECORDINGS = "biomechgpt_recordings"
LIKELIHOOD = "biomechgpt_likelihood"
SHADOW = "biomechgpt_shadow"

METRICS: dict[str, Metric] = {
    REQUESTS: Metric(
        "counter",
        "Requests by the code of their error, ok without one. too_many and busy are refusals.",
        ("route", "code"),
    ),
    REQUEST_SECONDS: Metric("histogram", "Time of a request, from its first byte on.", ("route",), _SECONDS),
    TASK_SECONDS: Metric("histogram", "Time of the model's answer to a task.", ("task",), _SECONDS),
    BATCH_SIZE: Metric(
        "histogram", "Questions that the model answers together.", (), (1, 2, 4, 8, 12, 16, 24, 32, 64)
    ),
    ANSWERS: Metric(
        "counter",
        "Answers by status. uncertain, unlike and does_not_apply are abstentions.",
        ("task", "status"),
    ),
    LABELS: Metric("counter", "Stated labels of each task: the mix of answers.", ("task", "label")),
    RECORDINGS: Metric(
        "counter", "Recordings that are like the training data, unlike it, or not checked.", ("judged",)
    ),
    LIKELIHOOD: Metric(
        "histogram",
        "How unlikely the model finds a recording: 0 as half of the training data, 1 as 2.5 % of it.",
        (),
        (0.001, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0),  # Ray takes positive ones only
    ),
    SHADOW: Metric(
        "counter",
        "Answers of the shadow model: agrees, differs, failed, or not_asked for want of time.",
        ("task", "agreement"),
    ),
}
"""{name: metric}."""
FREE = "(free)"
"""Stands for the task of a question in free words."""


class Meter(Protocol):
    """Counts. tags: a value for each of the metric's."""

    def count(self, name: str, tags: dict[str, str]) -> None: ...

    def observe(self, name: str, value: float, tags: dict[str, str]) -> None: ...


class _Nothing:
    def count(self, name: str, tags: dict[str, str]) -> None:
        """Count nothing."""

    def observe(self, name: str, value: float, tags: dict[str, str]) -> None:
        """Count nothing."""


_meter: Meter = _Nothing()


def use(meter: Meter) -> Meter:
    """Count with this meter in this process from now on. Returns the one before."""
    global _meter
    before, _meter = _meter, meter
    return before


def count(name: str, **tags: str) -> None:
    """Add 1 to a counter."""
    _meter.count(name, tags)


def observe(name: str, value: float, **tags: str) -> None:
    """Add a value to a histogram."""
    _meter.observe(name, value, tags)
