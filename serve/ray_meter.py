"""Counts with Ray, which exports to Prometheus. Only processes of Ray Serve import it."""

from typing import Any

from ray.serve import metrics as ray_metrics

from serve.metrics import METRICS, Metric


class RayMeter:
    """A `serve.metrics.Meter`. Ray Serve adds the tags application, deployment and replica."""

    def __init__(self) -> None:
        self._counters = {
            name: ray_metrics.Counter(name, metric.description, _tags(metric))
            for name, metric in METRICS.items()
            if metric.kind == "counter"
        }
        self._histograms = {
            name: ray_metrics.Histogram(name, metric.description, list(metric.boundaries), _tags(metric))
            for name, metric in METRICS.items()
            if metric.kind == "histogram"
        }

    def count(self, name: str, tags: dict[str, str]) -> None:
        self._counters[name].inc(1, tags)

    def observe(self, name: str, value: float, tags: dict[str, str]) -> None:
        self._histograms[name].observe(value, tags)


def _tags(metric: Metric) -> Any:
    return metric.tags  # Ray takes any number; its annotation says one
