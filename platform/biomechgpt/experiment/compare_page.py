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
        heat=_heat_map(paired, main_metrics),
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


def _heat_map(paired: Sequence[Mapping[str, Any]], main_metrics: Mapping[str, str]) -> dict[str, Any] | None:
    """The differences as a map: `tasks`, and `rows` with a variant and a cell for each task; None of one variant.

    A cell has the difference, whether it is `sure` (its interval leaves out zero) and its `strength`, from -1 to 1.
    It is None where the variant does not answer the task.
    """
    by_cell = {(row["variant"], row["task"]): row for row in paired}
    variants = list(dict.fromkeys(row["variant"] for row in paired))
    tasks = [task for task in main_metrics if any(row["task"] == task for row in paired)]
    if len(variants) < 2:
        return None
    known = [abs(row["difference"]) for row in paired if row["difference"] is not None]
    # The largest difference is the darkest. If it is below .1, all are pale.
    largest = max([0.1, *known])

    def cell(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if row is None or row["difference"] is None:
            return None
        low, high = row["difference_ci"] or (-1.0, 1.0)
        strength = round(row["difference"] / largest, 3)
        shown = round(row["difference"], 2) or 0.0  # no "-0.00"
        return {"difference": shown, "sure": low > 0 or high < 0, "strength": strength}

    return {
        "tasks": tasks,
        "rows": [
            {"variant": name, "cells": [cell(by_cell.get((name, task))) for task in tasks]}
            for name in variants
        ],
    }


def _mean_interval(intervals: Sequence[list[float]]) -> list[float] | None:
    """The mean of the lower and of the upper ends; None without any."""
    return [statistics.mean(ends) for ends in zip(*intervals, strict=True)] if intervals else None


def _link(evaluation: str, uri: str) -> str | None:
    """Path from the page to the report of an evaluation; None if there is none, as from a disk to S3."""
    return storage.relative(storage.join(evaluation, "report.html"), uri)
