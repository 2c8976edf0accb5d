"""The report's figures, from an answers table and its metrics. The report and its notebook draw with them.

Draws inside `plots.style()`. Knows nothing about files.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from biomechgpt.evaluation.calibration_metrics import ANSWERED_SHARES
from biomechgpt.evaluation.metrics import compute_scores, confusion
from biomechgpt.evaluation.statistics import MODEL
from biomechgpt.motion import plots
from biomechgpt.motion.parameters import PARAMETERS
from biomechgpt.motion.skeleton import anatomical_name


def task_figure(task: str, rows: pd.DataFrame) -> Figure:
    """The model's answers to a task against the truth. rows: of an answers table, of this task."""
    answers = rows[rows["source"] == MODEL]
    kind = answers["kind"].iloc[0]
    if kind == "description":
        return _statement_figure(task, answers)
    return _scatter_figure(task, answers) if kind == "regression" else _confusion_figure(task, answers)


def _statement_figure(task: str, rows: pd.DataFrame) -> Figure:
    """Bars: how many of a description's statements are within tolerance, for each parameter."""
    texts = rows["answer_true"].tolist(), rows["answer_text"].tolist()
    scores = compute_scores("description", *texts, rows["participant"].tolist(), draws=0)
    by_parameter = scores["by_parameter"]
    names = list(reversed(by_parameter))
    figure = Figure(figsize=(3.6, 0.9 + 0.22 * max(len(names), 1)))
    axes = figure.add_subplot()
    axes.barh(
        [PARAMETERS[name].label for name in names],
        [by_parameter[name]["agreement"] for name in names],
        color=plots.RIGHT,
    )
    axes.set(xlim=(0, 1), xlabel="share within tolerance of the measurement", title=task)
    axes.tick_params(axis="y", labelsize=8)
    return figure


def _confusion_figure(task: str, rows: pd.DataFrame) -> Figure:
    """Confusion matrix. The colour is the share of a label's trials, the number is their count."""
    counts, labels, columns = confusion(rows["label_true"].tolist(), rows["label_predicted"].tolist())
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(1.8 + 0.55 * len(columns), 1.3 + 0.42 * len(labels)))
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i, j in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[i, j] > 0.55 else "#222"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answered", ylabel="annotated", title=task)
    return figure


def _scatter_figure(task: str, rows: pd.DataFrame) -> Figure:
    """Answered against measured numbers, with the identity (dashed) and the regression line."""
    x, y = rows["value_true"].to_numpy(float), rows["value_predicted"].to_numpy(float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    figure = Figure(figsize=(3.4, 3.2))
    axes = figure.add_subplot()
    axes.scatter(x, y, s=12, alpha=0.6, color=plots.RIGHT, linewidths=0)
    if len(x):
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        axes.plot(ends, ends, color="#999", linewidth=1, linestyle="--")
    if len(x) > 2 and np.ptp(x) > 0:
        slope, intercept = np.polyfit(x, y, 1)
        span = np.array([x.min(), x.max()])
        axes.plot(span, slope * span + intercept, color=plots.LEFT, linewidth=1.5)
    axes.set(xlabel="measured", ylabel="answered", title=task)
    return figure


def calibration_figure(task: str, calibration: dict[str, Any]) -> Figure:
    """Reliability diagram before and after calibration, and the risk curve.

    calibration: a task's entry of `compute_metrics`, with `bins`.
    """
    figure = Figure(figsize=(5.6, 2.7))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    for bins, color, label in (("bins_before", plots.LEFT, "before"), ("bins", plots.RIGHT, "calibrated")):
        points = [(b["confidence"], b["accuracy"], b["n"]) for b in calibration[bins]]
        x, y, n = (np.array(column) for column in zip(*points, strict=True))
        left.plot(x, y, color=color, linewidth=1, alpha=0.7, label=label)
        left.scatter(x, y, s=6 + 60 * n / n.sum(), color=color, linewidths=0)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=task)
    left.legend(fontsize=7, frameon=False)
    right.plot(ANSWERED_SHARES, calibration["risk"], color=plots.RIGHT, marker=".")
    right.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered, most confident first", ylabel="error rate")
    figure.set_layout_engine("tight")
    return figure


def joint_figure(rmse: dict[str, float]) -> Figure:
    """Reconstruction error of each joint. rmse: {joint: degrees}."""
    names = list(reversed(rmse))
    figure = Figure(figsize=(6.2, 0.3 + 0.19 * len(names)))
    axes = figure.add_subplot()
    axes.barh([anatomical_name(name) for name in names], [rmse[name] for name in names], color=plots.RIGHT)
    axes.set(xlabel="RMSE in degrees, held-out participants")
    axes.tick_params(axis="y", labelsize=8)
    return figure


def drawn_calibrations(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{task: calibration of the model's answers} of the tasks that have a `calibration_figure`.

    metrics: of `compute_metrics`.
    """
    found = {
        name: by_source.get(MODEL, {}).get("calibration") for name, by_source in metrics["tasks"].items()
    }
    return {name: calibration for name, calibration in found.items() if calibration and "bins" in calibration}
