"""The page of a comparison: a forest plot of all tasks, paired differences, cost, and links to the reports.

Knows nothing about training.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from biomechgpt.core import storage

FILE = "comparison.html"
COLORS = ("#2b6cb0", "#c05621", "#2f7d4f", "#7b3fa0", "#a3264a", "#4a5568", "#0b7285", "#8a6d00")
"""Colours of the lines of a row, in turn."""


def comparison_page(
    uri: str,
    rows: Mapping[str, Mapping[str, Any]],
    paired: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
    main_metrics: Mapping[str, str],
    intervals: Mapping[str, Mapping[str, Sequence[list[float]]]],
) -> str:
    """The page in HTML.

    uri: folder of the page, where links start.
    rows: {variant or baseline: {"tasks": {task: values of the seeds}}}.
    runs: of each variant and seed: variant, seed, evaluation (URI), seconds, data, base.
    main_metrics: {task: its main metric}.
    intervals: {variant or baseline: {task: intervals of the seeds that have one}}.
    """
    from biomechgpt.evaluation import overview
    from biomechgpt.evaluation.metrics import METRICS
    from biomechgpt.evaluation.report import render
    from biomechgpt.language.tiny_model import is_stand_in

    drawn = []
    for task, metric in main_metrics.items():
        lines = []
        for number, (name, row) in enumerate(rows.items()):
            values = [value for value in row["tasks"].get(task, []) if value is not None]
            if task in row["tasks"]:
                mean = statistics.mean(values) if values else None
                dots = values if len(values) > 1 else []
                interval = _mean_interval(intervals.get(name, {}).get(task, []))
                lines.append(overview.line(name, f"v{number % len(COLORS)}", mean, interval, dots))
        drawn.append(overview.row(overview.title(task), METRICS[metric].label, lines))
    return render(
        "comparison.html.j2",
        rows=drawn,
        paired=paired,
        runs=[{"seconds": None, **run, "report": _link(run["evaluation"], uri)} for run in runs],
        seeds=len({run["seed"] for run in runs}),
        data=runs[0]["data"],
        base=runs[0]["base"],
        stand_in=is_stand_in(runs[0]["base"]),
        colors=COLORS,
        registry=METRICS,
        title=overview.title,
        duration=overview.duration,
    )


def _mean_interval(intervals: Sequence[list[float]]) -> list[float] | None:
    """The mean of the lower and of the upper ends; None without any."""
    return [statistics.mean(ends) for ends in zip(*intervals, strict=True)] if intervals else None


def _link(evaluation: str, uri: str) -> str | None:
    """Path from the page to the report of an evaluation; None if there is none, as from a disk to S3."""
    return storage.relative(storage.join(evaluation, "report.html"), uri)
