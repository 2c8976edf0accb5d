"""The report: one self-contained page and metrics.json, from an evaluation's answers.parquet alone."""

from importlib import resources
from typing import Any

import jinja2
import matplotlib
import numpy as np
import pandas as pd
import yaml

from biomechgpt.core import storage
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.calibration_metrics import SHARES
from biomechgpt.evaluation.metrics import MAIN, confusion, description, main_figure
from biomechgpt.evaluation.statistics import SOURCES, measure
from biomechgpt.motion import plots
from biomechgpt.motion.parameters import FACTS

matplotlib.use("svg")
import matplotlib.pyplot as plt


def write_report(answers: str, folder: str, *, codebook: str | None = None) -> dict[str, Any]:
    """Write `folder`/report.html and `folder`/metrics.json; returns the latter's content (`measure`).

    answers: URI of an evaluation's answers.parquet. codebook: where the codebook's page is, as a link in `folder`.
    """
    rows, about = answers_table.read(answers)
    metrics = measure(rows, about)
    with plots.style():
        drawn = {name: _plot(name, of_task) for name, of_task in rows.groupby("task", sort=False)}
        trusted = {
            name: _reliability(name, by["model"]["trust"])
            for name, by in metrics["tasks"].items()
            if "bins" in by.get("model", {}).get("trust", {})
        }
        joints = _joints(about["tokenizer"].get("rmse_deg_by_joint") or {})
    page = render(
        "report.html.j2",
        about=about,
        metrics=metrics,
        sources=SOURCES,
        plots=drawn,
        joints=joints,
        trusted=trusted,
        paper=paper(),
        tripod=yaml.safe_load(resources.files("biomechgpt.evaluation").joinpath("tripod.yaml").read_text()),
        conversation=_conversation(rows),
        settings=yaml.safe_dump(about["settings"], sort_keys=False),
        codebook=codebook,
        main={name: main_figure(by["model"])[0] for name, by in metrics["tasks"].items()},
        called=MAIN,
    )
    storage.write_json(storage.join(folder, "metrics.json"), metrics)
    storage.write_bytes(storage.join(folder, "report.html"), page.encode())
    return metrics


def render(template: str, **values: Any) -> str:
    """A page from one of this room's templates."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biomechgpt.evaluation", "."), autoescape=True, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def paper() -> dict[str, dict[str, list[float]]]:
    """The paper's results: {row of its tables: {task: [mean, std of three runs]}}; both its tables."""
    text = resources.files("biomechgpt.evaluation").joinpath("paper.yaml").read_text()
    return yaml.safe_load(text)["rows"]


def summary(metrics: dict[str, Any]) -> str:
    """The main figures as a small table of text: model beside baselines."""
    lines = [
        f"data: {metrics['data']}; tokenizer: {metrics['tokenizer']['rmse_deg_tracked']} degrees RMSE over "
        f"tracked joints, perplexity {metrics['tokenizer']['perplexity']}",
        f"{'task':18}{'figure':13}{''.join(f'{s:>10}' for s in SOURCES)}{'n':>7}{'people':>8}",
    ]
    for name, by in metrics["tasks"].items():
        key, _ = main_figure(by["model"])
        values = [by[s][key] if s in by else None for s in SOURCES]
        cells = "".join(f"{'-' if v is None else f'{v:.2f}':>10}" for v in values)
        lines.append(f"{name:18}{key:13}{cells}{by['model']['n']:>7}{by['model']['participants']:>8}")
    return "\n".join(lines)


def _svg(figure: Any) -> str:
    text = plots.svg(figure)
    plt.close(figure)
    return text


def _plot(task: str, rows: pd.DataFrame) -> str:
    model = rows[rows["source"] == "model"]
    kind = model["kind"].iloc[0]
    if kind == "description":
        return _facts(task, model)
    return _scatter(task, model) if kind == "regression" else _matrix(task, model)


def _facts(task: str, rows: pd.DataFrame) -> str:
    texts = rows["answer_true"].tolist(), rows["answer_text"].tolist()
    by_fact = description(*texts, rows["participant"].tolist(), draws=0)["by_fact"]
    names = list(reversed(by_fact))
    figure, axes = plt.subplots(figsize=(3.6, 0.9 + 0.22 * max(len(names), 1)))
    axes.barh([FACTS[n].says for n in names], [by_fact[n]["agreement"] for n in names], color="#2b6cb0")
    axes.set(xlim=(0, 1), xlabel="share within tolerance of what was measured", title=task)
    axes.tick_params(axis="y", labelsize=8)
    return _svg(figure)


def _matrix(task: str, rows: pd.DataFrame) -> str:
    counts, labels, columns = confusion(rows["label_true"].tolist(), rows["label_predicted"].tolist())
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(1.8 + 0.55 * len(columns), 1.3 + 0.42 * len(labels)))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i in range(len(labels)):
        for j in range(len(columns)):
            if counts[i, j]:
                axes.text(
                    j,
                    i,
                    counts[i, j],
                    ha="center",
                    va="center",
                    color="white" if share[i, j] > 0.55 else "#222",
                )
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="answered", ylabel="annotated", title=task)
    return _svg(figure)


def _scatter(task: str, rows: pd.DataFrame) -> str:
    x, y = rows["value_true"].to_numpy(float), rows["value_predicted"].to_numpy(float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    figure, axes = plt.subplots(figsize=(3.4, 3.2))
    axes.scatter(x, y, s=12, alpha=0.6, color="#2b6cb0", linewidths=0)
    if len(x):
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
        axes.plot(ends, ends, color="#999", linewidth=1, linestyle="--")
        if len(x) > 2 and np.ptp(x) > 0:
            slope, intercept = np.polyfit(x, y, 1)
            span = np.array([x.min(), x.max()])
            axes.plot(span, slope * span + intercept, color="#c05621", linewidth=1.5)
    axes.set(xlabel="measured", ylabel="answered", title=task)
    return _svg(figure)


def _reliability(task: str, trusted: dict[str, Any]) -> str:
    figure, (left, right) = plt.subplots(1, 2, figsize=(5.6, 2.7))
    left.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    for bins, color, label in (("bins_before", "#c05621", "before"), ("bins", "#2b6cb0", "calibrated")):
        points = [(b["confidence"], b["accuracy"], b["n"]) for b in trusted[bins]]
        x, y, n = (np.array(column) for column in zip(*points, strict=True))
        left.plot(x, y, color=color, linewidth=1, alpha=0.7, label=label)
        left.scatter(x, y, s=6 + 60 * n / n.sum(), color=color, linewidths=0)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share right", title=task)
    left.legend(fontsize=7, frameon=False)
    right.plot(SHARES, trusted["risk"], color="#2b6cb0", marker=".")
    right.set(xlim=(0, 1), ylim=(0, None), xlabel="share answered, surest first", ylabel="share wrong")
    figure.set_layout_engine("tight")
    return _svg(figure)


def _joints(rmse: dict[str, float]) -> str:
    if not rmse:
        return ""
    names = list(reversed(rmse))
    figure, axes = plt.subplots(figsize=(6.2, 0.3 + 0.19 * len(names)))
    axes.barh(names, [rmse[name] for name in names], color="#2b6cb0")
    axes.set(xlabel="RMSE, degrees, held-out participants")
    axes.tick_params(axis="y", labelsize=8)
    return _svg(figure)


def _conversation(answers: pd.DataFrame) -> dict[str, Any]:
    """All questions about one test trial: the first of those that were asked most."""
    rows = answers[answers["source"] == "model"]
    counts = rows["trial"].value_counts()
    trial = min(counts[counts == counts.max()].index)
    chosen = rows[rows["trial"] == trial]
    columns = ["task", "question", "answer_text", "answer_true"]
    return {"participant": chosen["participant"].iloc[0], "turns": chosen[columns].to_dict("records")}
