"""The report: one self-contained page and metrics.json, from an evaluation's answers.parquet alone."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from biomechgpt.answering.conformal import COVERAGE
from biomechgpt.core import storage
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.baselines import BASELINES
from biomechgpt.evaluation.calibration_metrics import ANSWERED_SHARES
from biomechgpt.evaluation.intervals import MIN_PARTICIPANTS
from biomechgpt.evaluation.metrics import METRICS, compute_scores, confusion, main_score, metrics_of
from biomechgpt.evaluation.paper import paper
from biomechgpt.evaluation.statistics import MODEL, compute_metrics, sources
from biomechgpt.motion import plots
from biomechgpt.motion.parameters import PARAMETERS
from biomechgpt.motion.skeleton import anatomical_name

PAPER_ROWS = ("4B, all tasks", "1B, all tasks", "XGBoost")
"""Rows of the paper's tables that are shown beside ours."""


def write_report(
    answers: str, folder: str, *, codebook: str | None = None, seconds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Write `folder`/report.html and `folder`/metrics.json; returns the content of the latter.

    answers: URI of an evaluation's answers.parquet.
    codebook: link to the codebook page, relative to `folder`.
    seconds: times of steps that end after the answers table is written.
    """
    rows, about = answers_table.read(answers)
    about["seconds"] = _with_total({**about["seconds"], **(seconds or {})})
    metrics = compute_metrics(rows, about)
    kinds = {task.name: task.answer_kind for task in answers_table.tasks_of(about).values()}
    with plots.style():
        task_plots = {name: _task_plot(name, answers) for name, answers in rows.groupby("task", sort=False)}
        calibration_plots = {
            name: _calibration_plot(name, by_source[MODEL]["calibration"])
            for name, by_source in metrics["tasks"].items()
            if "bins" in by_source.get(MODEL, {}).get("calibration", {})
        }
        joints = _joint_plot(about["tokenizer"].get("rmse_deg_by_joint") or {})
    page = render(
        "report.html.j2",
        about=about,
        other_cohorts=about.get("other_cohorts"),
        few={
            name: by_source[MODEL]["participants"]
            for name, by_source in metrics["tasks"].items()
            if by_source[MODEL]["participants"] < MIN_PARTICIPANTS
        },
        metrics=metrics,
        coverage=COVERAGE,
        kinds=kinds,
        sources=[
            source
            for source in sources()
            if any(source in by_source for by_source in metrics["tasks"].values())
        ],
        labels=sources(),
        baselines=BASELINES,
        registry=METRICS,
        metrics_of=metrics_of,
        task_plots=task_plots,
        calibration_plots=calibration_plots,
        joints=joints,
        paper=paper(),
        paper_rows=PAPER_ROWS,
        tripod=yaml.safe_load(resources.files("biomechgpt.evaluation").joinpath("tripod.yaml").read_text()),
        conversation=_conversation(rows),
        settings=yaml.safe_dump(about["settings"], sort_keys=False),
        codebook=codebook,
        main={name: main_score(by_source[MODEL])[0] for name, by_source in metrics["tasks"].items()},
    )
    storage.write_json(storage.join(folder, "metrics.json"), metrics)
    storage.write_bytes(storage.join(folder, "report.html"), page.encode())
    return metrics


def render(template: str, **values: Any) -> str:
    """A page from one of this package's templates. values: the variables of the template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biomechgpt.evaluation", "."), autoescape=True, trim_blocks=True
    )
    return environment.get_template(template).render(plots=plots, **values)


def summary(metrics: dict[str, Any]) -> str:
    """The main metrics as a small table of text: the model beside the baselines."""
    tokenizer = metrics["tokenizer"]
    headings = "".join(f"{source[:12]:>13}" for source in sources())
    lines = [
        f"data: {metrics['data']}; tokenizer: {tokenizer['rmse_deg_tracked']} degrees RMSE over tracked joints, "
        f"perplexity {tokenizer['perplexity']}",
        f"{'task':18}{'metric':13}{headings}{'trials':>8}{'people':>8}",
    ]
    for task, by_source in metrics["tasks"].items():
        name, _ = main_score(by_source[MODEL])
        values = [by_source[source][name] if source in by_source else None for source in sources()]
        cells = "".join(f"{'-' if value is None else f'{value:.2f}':>13}" for value in values)
        counts = by_source[MODEL]
        failed = f"  failed: {counts['failed']}" if counts.get("failed") else ""
        lines.append(f"{task:18}{name:13}{cells}{counts['n']:>8}{counts['participants']:>8}{failed}")
    smallest = min((by[MODEL]["participants"] for by in metrics["tasks"].values()), default=MIN_PARTICIPANTS)
    if smallest < MIN_PARTICIPANTS:
        lines[0] += (
            f"; too few test participants in some tasks ({smallest}): no p values, intervals say little"
        )
    return "\n".join(lines)


def _task_plot(task: str, rows: pd.DataFrame) -> str:
    """The model's answers to a task against the truth."""
    answers = rows[rows["source"] == MODEL]
    kind = answers["kind"].iloc[0]
    if kind == "description":
        return _statement_plot(task, answers)
    return _scatter_plot(task, answers) if kind == "regression" else _confusion_plot(task, answers)


def _statement_plot(task: str, rows: pd.DataFrame) -> str:
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
    return plots.svg(figure)


def _confusion_plot(task: str, rows: pd.DataFrame) -> str:
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
    return plots.svg(figure)


def _scatter_plot(task: str, rows: pd.DataFrame) -> str:
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
    return plots.svg(figure)


def _calibration_plot(task: str, calibration: dict[str, Any]) -> str:
    """Reliability diagram before and after calibration, and the risk curve."""
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
    return plots.svg(figure)


def _joint_plot(rmse: dict[str, float]) -> str:
    """Reconstruction error of each joint; empty text if none was measured. rmse: {joint: degrees}."""
    if not rmse:
        return ""
    names = list(reversed(rmse))
    figure = Figure(figsize=(6.2, 0.3 + 0.19 * len(names)))
    axes = figure.add_subplot()
    axes.barh([anatomical_name(name) for name in names], [rmse[name] for name in names], color=plots.RIGHT)
    axes.set(xlabel="RMSE in degrees, held-out participants")
    axes.tick_params(axis="y", labelsize=8)
    return plots.svg(figure)


def _with_total(seconds: dict[str, float]) -> dict[str, float]:
    """The seconds of each step and of all of them."""
    return {**seconds, "total": round(sum(seconds.values()), 2)}


def _conversation(answers: pd.DataFrame) -> dict[str, Any]:
    """The model's answers to all questions about one trial: the first by name of those with the most questions."""
    rows = answers[answers["source"] == MODEL]
    counts = rows["trial"].value_counts()
    trial = min(counts[counts == counts.max()].index)
    about_trial = rows[rows["trial"] == trial]
    columns = ["task", "question", "answer_text", "answer_true"]
    return {
        "participant": about_trial["participant"].iloc[0],
        "turns": about_trial[columns].to_dict("records"),
    }
