"""The report: a self-contained page, its notebook and metrics.json, from an evaluation's answers.parquet alone."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import pandas as pd
import yaml

from biomechgpt.answering.conformal import COVERAGE
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation import answers_table, figures, overview
from biomechgpt.evaluation import notebook as notebooks
from biomechgpt.evaluation.baselines import BASELINES
from biomechgpt.evaluation.intervals import MIN_PARTICIPANTS
from biomechgpt.evaluation.metrics import METRICS, main_score, metrics_of
from biomechgpt.evaluation.paper import paper
from biomechgpt.evaluation.statistics import MODEL, compute_metrics, sources
from biomechgpt.motion import plots
from biomechgpt.questions.tasks import Tasks

PAPER_ROWS = ("4B, all tasks", "1B, all tasks", "XGBoost")
"""Rows of the paper's tables that are shown beside ours."""


def write_report(
    answers: str, folder: str, *, codebook: str | None = None, seconds: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Write `folder`/report.html, report.ipynb and metrics.json; returns the content of the latter.

    A copy of the answers is written beside them, so that the folder can be moved, copied and sent.

    answers: URI of an evaluation's answers.parquet.
    codebook: link to the codebook page, relative to `folder`.
    seconds: times of steps that end after the answers table is written.
    Raises InputError if the folder has an answers.parquet that is no evaluation's.
    """
    rows, about = answers_table.read(answers)
    about["seconds"] = _with_total({**about["seconds"], **(seconds or {})})
    _copy_answers(answers, storage.join(folder, answers_table.FILE))
    metrics = compute_metrics(rows, about)
    metrics["model"] = metrics["model"] | {"path": _path_of_model(answers, metrics["model"]["uri"], folder)}
    tasks = answers_table.tasks_of(about)
    kinds = {task.name: task.answer_kind for task in tasks.values()}
    comments = overview.set_comments(metrics, rows)
    asked = int(rows.loc[rows["source"] == MODEL, "participant"].nunique())
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
        sentences=overview.sentences(metrics, about, asked),
        forest_rows=overview.forest(metrics),
        not_for=overview.not_for(metrics, about, comments),
        comments=comments,
        fairness=overview.fairness(metrics),
        glossary=overview.glossary(),
        units=overview.units(tasks),
        title=overview.title,
        full_name=overview.full_name,
        duration=overview.duration,
        label_words={task.name: getattr(task, "labels", None) or {} for task in tasks.values()},
        data_card=_path_beside(answers, about, "cohort", "data_card.html", folder),
        **_drawings_once(answers, rows, tasks, metrics, about),
        paper=paper(),
        paper_rows=PAPER_ROWS,
        tripod=yaml.safe_load(resources.files("biomechgpt.evaluation").joinpath("tripod.yaml").read_text()),
        conversation=_conversation(rows),
        settings=yaml.safe_dump(about["settings"], sort_keys=False),
        codebook=codebook,
        notebook=notebooks.FILE,
        main={name: main_score(by_source[MODEL])[0] for name, by_source in metrics["tasks"].items()},
    )
    storage.write_json(storage.join(folder, "metrics.json"), metrics)
    storage.write_bytes(storage.join(folder, notebooks.FILE), notebooks.notebook())
    storage.write_bytes(storage.join(folder, "report.html"), page.encode())
    return metrics


_drawn: dict[str, dict[str, Any]] = {}
"""The figures of the answers that this process drew last, by the checksum of their table."""


def _drawings_once(answers: str, *of: Any) -> dict[str, Any]:
    """`_drawings`. An experiment writes two reports of one table: the evaluation's own and that in its results."""
    checksum = storage.sha256(answers)
    if checksum not in _drawn:
        _drawn.clear()
        _drawn[checksum] = _drawings(*of)
    return _drawn[checksum]


def _drawings(
    rows: pd.DataFrame, tasks: Tasks, metrics: dict[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of the report: each an `<svg>` element with its text for readers who do not see it."""
    rows_of = dict(tuple(rows.groupby("task", sort=False)))
    rmse_deg = about["tokenizer"].get("rmse_deg_by_joint")
    with plots.style():
        return {
            "task_plots": {
                name: (
                    plots.svg(figures.task_figure(tasks[name], rows_of[name])),
                    figures.task_text(tasks[name], rows_of[name]),
                )
                for name in metrics["tasks"]
            },
            "participant_plots": {
                name: (plots.svg(figure), figures.participant_text(tasks[name], rows_of[name]))
                for name in metrics["tasks"]
                if (figure := figures.participant_figure(tasks[name], rows_of[name])) is not None
            },
            "calibration_plots": {
                name: (
                    plots.svg(figures.calibration_figure(name, calibration)),
                    figures.calibration_text(calibration),
                )
                for name, calibration in figures.drawn_calibrations(metrics).items()
            },
            "joints": (plots.svg(figures.joint_figure(rmse_deg)), figures.joint_text(rmse_deg))
            if rmse_deg
            else None,
        }


def _copy_answers(answers: str, copy: str) -> None:
    """Copy an answers table, unless it is there already. Raises InputError if another kind of table is there."""
    if storage.absolute(answers) == storage.absolute(copy):
        return
    if storage.exists(copy) and not answers_table.is_one(copy):
        raise InputError(
            f"{copy}: expected an evaluation's table or no file, found another table: name another folder (output)"
        )
    storage.write_bytes(copy, storage.read_bytes(answers))


def _path_of_model(answers: str, uri: str, folder: str) -> str | None:
    """Path of the model relative to `folder`; None if there is none, as between a local folder and S3.

    answers: URI of the answers. The artifacts may have been moved together since these were written.
    uri: where the model was then.
    """
    root = storage.beside(answers, "../../..")
    return storage.relative(artifact.find(uri, root), folder)


def _path_beside(answers: str, about: Mapping[str, Any], kind: str, file: str, folder: str) -> str | None:
    """Path relative to `folder` of a file of an artifact that the answers come from; None if it is not there.

    answers: URI of the answers, in an artifact's folder beside those of the others.
    """
    fingerprint = about["made_from"].get(kind)
    uri = storage.join(storage.beside(answers, "../../.."), kind, fingerprint or "", file)
    return storage.relative(uri, folder) if fingerprint and storage.exists(uri) else None


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
