"""The report's figures, from an answers table and its metrics. The report and its notebook draw with them.

Draws inside `plots.style()`. Knows nothing about files.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from biomechgpt.evaluation.calibration_metrics import ANSWERED_SHARES
from biomechgpt.evaluation.metrics import METRICS, compute_scores, confusion
from biomechgpt.evaluation.overview import title
from biomechgpt.evaluation.statistics import MODEL
from biomechgpt.motion import plots
from biomechgpt.motion.parameters import PARAMETERS
from biomechgpt.motion.skeleton import anatomical_name
from biomechgpt.questions.tasks import Task


def task_figure(task: Task, rows: pd.DataFrame) -> Figure:
    """The model's answers to a task against the truth. rows: of an answers table, of this task."""
    answers = rows[rows["source"] == MODEL]
    kind = answers["kind"].iloc[0]
    if kind == "description":
        return _statement_figure(task, answers)
    return _scatter_figure(task, answers) if kind == "regression" else _confusion_figure(task, answers)


def task_text(task: Task, rows: pd.DataFrame) -> str:
    """What `task_figure` shows, for readers who do not see it."""
    answers = rows[rows["source"] == MODEL]
    kind = answers["kind"].iloc[0]
    if kind == "description":
        by_parameter = _statements(answers)
        shares = (
            f"{PARAMETERS[name].label} {100 * of['agreement']:.0f} %" for name, of in by_parameter.items()
        )
        return f"Bars: share of statements within tolerance. {', '.join(shares)}."
    if kind == "regression":
        x, _y = _numbers(answers)
        if not len(x):
            return "No answer has a number."
        bias, low, high = _limits(answers)
        unit = _unit(task, " ")
        limits = f", limits of agreement {low:.2g} to {high:.2g}{unit}" if np.isfinite(low) else ""
        return (
            f"Two plots of {len(x)} answers. Answered against measured numbers, from {x.min():.3g} to "
            f"{x.max():.3g}{unit} measured; and their differences: mean {bias:.2g}{unit}{limits}."
        )
    counts, labels, columns = confusion(answers["label_true"].tolist(), answers["label_predicted"].tolist())
    parts = [
        f"{label}: " + ", ".join(f"{counts[i, j]} answered {columns[j]}" for j in np.flatnonzero(counts[i]))
        for i, label in enumerate(labels)
    ]
    return f"Confusion matrix of {int(counts.sum())} answers, by annotated label. {'; '.join(parts)}."


def participant_figure(task: Task, rows: pd.DataFrame) -> Figure | None:
    """Errors of the model by participant, smallest first; None for a task without right and wrong answers.

    Labels: the share of wrong answers. Numbers: the mean absolute error, and from the smallest to the largest.
    """
    errors = _errors(rows)
    if errors is None:
        return None
    by_participant = errors.groupby(level=0).agg(["mean", "min", "max"]).sort_values("mean", kind="stable")
    figure = Figure(figsize=(5.6, 1.9))
    axes = figure.add_subplot()
    place = np.arange(1, len(by_participant) + 1)
    if rows["kind"].iloc[0] == "regression":
        axes.vlines(place, by_participant["min"], by_participant["max"], color=plots.BAND, linewidth=3)
        axes.set_ylabel(f"absolute error{_unit(task, ', ')}")
    else:
        axes.set_ylabel("share wrong")
        axes.set_ylim(-0.05, 1.05)
    axes.scatter(place, by_participant["mean"], s=14, color=plots.RIGHT, linewidths=0, zorder=2)
    axes.set(xlabel="participants, smallest error first", title=title(task.name))
    axes.set_xlim(0, len(by_participant) + 1)
    return figure


def participant_text(task: Task, rows: pd.DataFrame) -> str:
    """What `participant_figure` shows, for readers who do not see it."""
    errors = _errors(rows)
    assert errors is not None
    means = errors.groupby(level=0).mean()
    if rows["kind"].iloc[0] == "regression":
        unit = _unit(task, " ")
        return (
            f"Mean absolute error of {len(means)} participants: from {means.min():.2g} to {means.max():.2g}{unit}, "
            f"median {means.median():.2g}{unit}."
        )
    return (
        f"Share of wrong answers of {len(means)} participants: from {100 * means.min():.0f} to "
        f"{100 * means.max():.0f} %, median {100 * means.median():.0f} %. All answers are right for "
        f"{int((means == 0).sum())} of them, and all are wrong for {int((means == 1).sum())}."
    )


def _unit(task: Task, before: str) -> str:
    """The unit of a task's answers, after this text; empty for an answer without a unit."""
    return before + task.answer_unit if task.answer_unit else ""


def _errors(rows: pd.DataFrame) -> pd.Series | None:
    """Error of each of the model's answers, by participant; None for descriptions, and without any number."""
    answers = rows[rows["source"] == MODEL]
    if answers["kind"].iloc[0] == "regression":
        errors = (answers["value_predicted"] - answers["value_true"]).abs()
    elif answers["kind"].iloc[0] == "classification":
        errors = (answers["label_true"] != answers["label_predicted"]).astype(float)
    else:
        return None
    errors.index = pd.Index(answers["participant"])
    errors = errors.dropna()
    return errors if len(errors) else None


def _statements(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """{parameter: how often its statements are within tolerance}."""
    texts = rows["answer_true"].tolist(), rows["answer_text"].tolist()
    by_parameter: dict[str, dict[str, float]] = compute_scores(
        "description", *texts, rows["participant"].tolist(), draws=0
    )["by_parameter"]
    return by_parameter


def _statement_figure(task: Task, rows: pd.DataFrame) -> Figure:
    """Bars: how many of a description's statements are within tolerance, for each parameter."""
    by_parameter = _statements(rows)
    names = list(reversed(by_parameter))
    figure = Figure(figsize=(4.2, 0.9 + 0.22 * max(len(names), 1)))
    axes = figure.add_subplot()
    axes.barh(
        [PARAMETERS[name].label for name in names],
        [by_parameter[name]["agreement"] for name in names],
        color=plots.RIGHT,
    )
    axes.set(xlim=(0, 1), xlabel="share within tolerance", title=title(task.name))
    axes.tick_params(axis="y", labelsize=8)
    return figure


def _confusion_figure(task: Task, rows: pd.DataFrame) -> Figure:
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
    axes.set(xlabel="answered", ylabel="annotated", title=title(task.name))
    return figure


def _numbers(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Measured and answered numbers of the answers that have one."""
    x, y = rows["value_true"].to_numpy(float), rows["value_predicted"].to_numpy(float)
    return x[np.isfinite(y)], y[np.isfinite(y)]


def _limits(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Mean difference of answered and measured numbers, and the limits of agreement of a new participant's answer.

    They are those of the table of numbers. NaN with one participant.
    """
    x, y = _numbers(rows)
    answered = np.isfinite(rows["value_predicted"].to_numpy(float))
    who = rows.loc[answered, "participant"].astype("category").cat.codes.to_numpy(int)
    low, high = (METRICS[name].function(x, y, who) for name in ("limits_low", "limits_high"))
    return float((y - x).mean()), low, high


def _scatter_figure(task: Task, rows: pd.DataFrame) -> Figure:
    """Answered against measured numbers with the identity (dashed) and the regression line; a Bland-Altman plot."""
    x, y = _numbers(rows)
    unit = _unit(task, ", ")
    figure = Figure(figsize=(6.2, 3.0))
    axes, differences = figure.subplots(1, 2)
    axes.scatter(x, y, s=12, alpha=0.6, color=plots.RIGHT, linewidths=0)
    if len(x):
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        axes.plot(ends, ends, color="#999", linewidth=1, linestyle="--")
    if len(x) > 2 and np.ptp(x) > 0:
        slope, intercept = np.polyfit(x, y, 1)
        span = np.array([x.min(), x.max()])
        axes.plot(span, slope * span + intercept, color=plots.LEFT, linewidth=1.5)
    axes.set(xlabel=f"measured{unit}", ylabel=f"answered{unit}", title=title(task.name))
    differences.scatter((x + y) / 2, y - x, s=12, alpha=0.6, color=plots.RIGHT, linewidths=0)
    differences.axhline(0, color="#999", linewidth=1, linestyle="--")
    if len(x):
        bias, low, high = _limits(rows)
        differences.axhline(bias, color=plots.LEFT, linewidth=1.5)
        for limit in (low, high):
            differences.axhline(limit, color=plots.LEFT, linewidth=1, linestyle=":")
    differences.set(
        xlabel=f"mean of both{unit}", ylabel=f"answered less measured{unit}", title="Bland-Altman"
    )
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
    left.set(
        xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xlabel="confidence", ylabel="accuracy", title=title(task)
    )
    left.legend(fontsize=7, frameon=False)
    right.plot(ANSWERED_SHARES, calibration["risk"], color=plots.RIGHT, marker=".")
    right.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered, most confident first", ylabel="error rate")
    figure.set_layout_engine("tight")
    return figure


def calibration_text(calibration: dict[str, Any]) -> str:
    """What `calibration_figure` shows, for readers who do not see it."""
    risk = [value for value in calibration["risk"] if value is not None]
    ends = (
        f" Error rate: {risk[0]:.2f} for the most confident answers, {risk[-1]:.2f} for all." if risk else ""
    )
    return (
        f"Accuracy over confidence: mean gap {calibration['ece_before']:.3f} before and {calibration['ece']:.3f} "
        f"after calibration.{ends}"
    )


def joint_text(rmse: dict[str, float]) -> str:
    """What `joint_figure` shows, for readers who do not see it."""
    return (
        "Bars, in degrees. " + ", ".join(f"{anatomical_name(name)} {rmse[name]:.1f}" for name in rmse) + "."
    )


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
