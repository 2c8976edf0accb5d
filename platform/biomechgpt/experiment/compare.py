"""A comparison: variants of a model, each over several seeds, in the paper's two tables with its results beside.

A seed draws the wording of the questions, the order of training and the adapter anew. Motion tokens stay the same.
Variants differ in settings only, so artifacts that they share are made once.
"""

import logging
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import Settings, override, plain
from biomechgpt.experiment import tracking
from biomechgpt.experiment.compare_page import FILE, comparison_page
from biomechgpt.experiment.pipeline import check, train, with_seed
from biomechgpt.experiment.scores import measure
from biomechgpt.experiment.settings import PipelineSettings
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.questions.tasks import AnnotatedTask, Tasks

logger = logging.getLogger("biomechgpt")

VERSION = 4
TITLES = {
    "f1_weighted": "F1, weighted by support",
    "pearson_r": "Pearson r between answered and measured",
}
"""Titles of tables, where the metric's label is too short. Tasks with the same main metric share a table."""


class Variant(Settings):
    """One variant of the experiment."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """{path of a setting: value}, laid over the experiment's settings."""
    split: Literal["test", "train"] = "test"
    """Split whose participants the variant is evaluated on."""
    baselines: bool = False
    """Whether the baselines become rows of the tables."""
    paper: str | None = None
    """The row of the paper's tables that is shown beside it."""


class CompareSettings(Settings):
    """A comparison of variants over seeds."""

    experiment: PipelineSettings = PipelineSettings()
    """Settings that all variants start from."""
    variants: dict[str, Variant] = Field(min_length=1)
    """{name in the tables: the variant's settings}."""
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], min_length=1)
    """Seeds that each variant is trained with."""
    concurrent: int = Field(1, ge=1, exclude=True)
    """Number of runs at the same time."""
    tracking: TrackingSettings = Field(TrackingSettings(), exclude=True)
    """Where the runs are recorded."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""


def run_compare(settings: CompareSettings) -> Artifact:
    """The comparison artifact: `comparison.html`, `tables.md` and `comparison.json`.

    Raises InputError for wrong variants.
    """
    planned = {
        (name, seed): variant_settings(settings, name, seed)
        for name in settings.variants
        for seed in settings.seeds
    }
    for run_settings in planned.values():
        check(run_settings)

    def build(uri: str) -> dict[str, Any]:
        cluster.connect()
        runs = _run_all(settings, planned)
        rows = _rows(settings, runs)
        text = tables(
            rows, _main_metrics(runs), data=runs[0]["data"], base=runs[0]["base"], seeds=len(settings.seeds)
        )
        paired = _paired_comparisons(settings, runs)
        text += paired_table(paired)
        page = comparison_page(uri, rows, paired, runs, _main_metrics(runs), _intervals(settings, runs))
        storage.write_bytes(storage.join(uri, FILE), page.encode())
        storage.write_bytes(storage.join(uri, "tables.md"), text.encode())
        storage.write_json(
            storage.join(uri, "comparison.json"), {"rows": rows, "paired": paired, "runs": runs}
        )
        storage.write_json(storage.join(uri, tracking.RUNS), [_record(settings, run) for run in runs])
        return {"runs": len(runs), "provenance": runs[0]["data"]}

    comparison = artifact.make("comparison", VERSION, settings, {}, build, settings.root)
    tracking.synchronise(settings.tracking, comparison)
    return comparison


def show_comparison(comparison: Artifact) -> str:
    """The tables of a comparison, in Markdown."""
    return storage.read_bytes(comparison.path("tables.md")).decode()


def variant_settings(settings: CompareSettings, name: str, seed: int) -> PipelineSettings:
    """The experiment's settings of one variant with one seed."""
    variant = settings.variants[name]
    changes = {
        "root": settings.root,
        "answers.splits": [variant.split],
        "evaluation.baselines": variant.baselines,
        "evaluation.seed": seed,
    } | variant.settings
    return with_seed(override(settings.experiment, changes, f"variants.{name}.settings"), seed)


def _run_all(
    settings: CompareSettings, planned: Mapping[tuple[str, int], PipelineSettings]
) -> list[dict[str, Any]]:
    """The results of all runs, `concurrent` at a time."""
    import ray

    # A run is a driver that waits for trainings and answers, so it holds no core.
    run_remote = ray.remote(num_cpus=0, max_retries=0)(_run)
    waiting = list(planned.items())
    running: dict[Any, tuple[str, int]] = {}
    results: dict[tuple[str, int], dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < settings.concurrent:
            key, run_settings = waiting.pop(0)
            running[run_remote.remote(plain(run_settings))] = key
        (ready,), _ = ray.wait(list(running))
        variant, seed = key = running.pop(ready)
        results[key] = {"variant": variant, "seed": seed} | ray.get(ready)
        logger.info("comparison: %s, seed %d (%d of %d)", variant, seed, len(results), len(planned))
    return [results[key] for key in planned]


def _run(values: dict[str, Any]) -> dict[str, Any]:
    """One variant with one seed, in a Ray task."""
    log_to_stdout()
    cluster.connect()
    settings = PipelineSettings.model_validate(values)
    model = train(settings).model
    evaluation = measure(model, settings.answers, settings.evaluation, settings.root)
    metrics = evaluation.read_json("metrics.json")
    return {
        "model": model.uri,
        "evaluation": evaluation.uri,
        "base": model.metrics["base"],
        "data": evaluation.provenance,
        "seconds": metrics["seconds"]["total"],
        "tasks": metrics["tasks"],
    }


def _record(settings: CompareSettings, run: Mapping[str, Any]) -> dict[str, Any]:
    """The MLflow run of a run: all that is known of its evaluation, and its score in each task."""
    from biomechgpt.evaluation.metrics import main_score

    evaluation = artifact.load(run["evaluation"])
    experiment = artifact.load(run["model"]).manifest.get("experiment") or {}
    known = tracking.run_of(evaluation, experiment, None)
    variant = settings.variants[run["variant"]].settings | {"seed": run["seed"], "variant": run["variant"]}
    scores = {task: main_score(by_source["model"])[1] for task, by_source in run["tasks"].items()}
    return {
        **known,
        "name": f"{run['variant']} seed {run['seed']} {evaluation.fingerprint}",
        "params": known["params"] | variant,
        "metrics": known["metrics"] | scores,
        "tags": known["tags"] | {key: run[key] for key in ("model", "evaluation", "base", "data")},
    }


def _main_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{task: its main metric}, of all tasks that any run answered."""
    from biomechgpt.evaluation.metrics import main_score

    return {
        task: main_score(by_source["model"])[0] for run in runs for task, by_source in run["tasks"].items()
    }


def _rows(settings: CompareSettings, runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row: {"paper": the paper's row beside it, "tasks": {task: values of the seeds}}}, in the tables' order."""
    from biomechgpt.evaluation.metrics import main_score

    rows: dict[str, dict[str, Any]] = {}
    for title, variant_name, source, paper_row in _planned_rows(settings):
        values: dict[str, list[float | None]] = {}
        for run in runs:
            if run["variant"] != variant_name:
                continue
            for task, by_source in run["tasks"].items():
                if source in by_source:
                    values.setdefault(task, []).append(main_score(by_source[source])[1])
        rows[title] = {"paper": paper_row, "tasks": values}
    return rows


def _planned_rows(settings: CompareSettings) -> list[tuple[str, str, str, str | None]]:
    """(title, variant, source, row of the paper) of each row: the variants, then the baselines of one of them."""
    from biomechgpt.evaluation.baselines import BASELINES

    plan = [(name, name, "model", variant.paper) for name, variant in settings.variants.items()]
    with_baselines = [name for name, variant in settings.variants.items() if variant.baselines]
    for name in with_baselines[:1]:
        plan += [(baseline.label, name, baseline.name, baseline.paper_row) for baseline in BASELINES.values()]
    return plan


def _intervals(
    settings: CompareSettings, runs: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, list[list[float]]]]:
    """{row: {task: intervals of the main metric, of the seeds that have one}}."""
    from biomechgpt.evaluation.metrics import main_score

    found: dict[str, dict[str, list[list[float]]]] = {}
    for title, variant, source, _ in _planned_rows(settings):
        of_row = found.setdefault(title, {})
        for run in runs:
            for task, by_source in run["tasks"].items() if run["variant"] == variant else ():
                if source in by_source:
                    metric = main_score(by_source[source])[0]
                    if interval := by_source[source].get(f"{metric}_ci"):
                        of_row.setdefault(task, []).append(interval)
    return found


def _paired_comparisons(settings: CompareSettings, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each variant less the first one, in each task that both answered, on the same test participants."""
    from biomechgpt.evaluation import answers_table
    from biomechgpt.evaluation.statistics import MODEL, adjust_p_values, compare

    tested = [name for name, variant in settings.variants.items() if variant.split == "test"]
    if len(tested) < 2:
        return []
    first, *further = tested
    answers: dict[str, list[Any]] = {}
    tasks: dict[str, Tasks] = {}
    for run in runs:
        table, about = answers_table.read(storage.join(run["evaluation"], answers_table.FILE))
        answers.setdefault(run["variant"], []).append(table[table["source"] == MODEL])
        tasks[run["variant"]] = answers_table.tasks_of(about)
    comparisons = []
    for name in further:
        shared = [
            task
            for task in tasks[first].values()
            if task.name in tasks[name] and isinstance(task, AnnotatedTask)
        ]
        for task in shared:
            ours, theirs = (
                [table[table["task"] == task.name] for table in answers[variant]] for variant in (name, first)
            )
            if all(len(rows) for rows in (*ours, *theirs)):
                result = compare(ours, theirs, task, draws=settings.experiment.evaluation.draws)
                comparisons.append({"variant": name, "against": first, "task": task.name, **result})
    adjust_p_values(comparisons)
    return comparisons


def paired_table(paired: Sequence[Mapping[str, Any]]) -> str:
    """Comparisons of variants in Markdown; empty if there are none."""
    if not paired:
        return ""
    from biomechgpt.evaluation.intervals import MIN_PARTICIPANTS

    tested = sum(row["p"] is not None for row in paired)
    lines = [
        f"**Each variant less {paired[0]['against']}**",
        "",
        "Mean over seeds, on the same trials. Intervals: t, by participant. p: sign flips of participants,",
        f"none (-) with fewer than {MIN_PARTICIPANTS}.",
        f"The adjusted p is Holm's, for the {tested} comparisons with a p.",
        "",
        "| variant | task | difference | 95 % interval | p | adjusted p | participants |",
        "|---" * 7 + "|",
    ]
    for row in paired:
        low, high = row["difference_ci"] or (None, None)
        cells = [row["variant"], row["task"].replace("_", " "), _number(row["difference"])]
        cells += [f"{_number(low)} to {_number(high)}"]
        cells += ["-" if row[key] is None else _number(row[key], 4) for key in ("p", "p_holm")]
        lines.append(f"| {' | '.join(cells)} | {row['participants']} |")
    return "\n".join([*lines, ""])


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def tables(
    rows: Mapping[str, Mapping[str, Any]],
    main_metrics: Mapping[str, str],
    *,
    data: str,
    base: str,
    seeds: int,
) -> str:
    """A Markdown table for each main metric: mean (standard deviation) over seeds, beside the paper's result.

    rows: {row: {"paper": row of the paper, "tasks": {task: values of the seeds}}}.
    main_metrics: {task: its main metric}. The paper's tasks come first, in its order, then the others.
    """
    from biomechgpt.evaluation.metrics import METRICS
    from biomechgpt.evaluation.paper import paper

    results = paper()
    paper_order = list(dict.fromkeys(task for paper_row in results.values() for task in paper_row))
    order = [
        *(task for task in paper_order if task in main_metrics),
        *(task for task in main_metrics if task not in paper_order),
    ]
    lines = [
        f"Data: {data}. Language model base: {base}. Mean (standard deviation) of {seeds} seeds, on held-out",
        "participants. The paper's results are of other people and recordings: for scale, not comparable.",
        "",
    ]
    for name, metric in METRICS.items():
        shown = [
            task
            for task in order
            if main_metrics[task] == name and any(task in row["tasks"] for row in rows.values())
        ]
        if metric.is_main and shown:
            title = TITLES.get(name, metric.label[0].upper() + metric.label[1:])
            lines += _table(title, shown, rows, results)
    return "\n".join(lines)


def _table(
    title: str,
    tasks: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[str]:
    head = " | ".join(f"{task.replace('_', ' ')} | paper" for task in tasks)
    lines = [f"**{title}**", "", f"| model | {head} |", "|---" * (1 + 2 * len(tasks)) + "|"]
    for name, row in rows.items():
        if not any(task in row["tasks"] for task in tasks):
            continue
        paper_row = results.get(row["paper"] or "", {})
        cells = (
            f"{mean_and_std(row['tasks'].get(task, []))} | {_paper_cell(paper_row.get(task, []))}"
            for task in tasks
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def mean_and_std(values: Sequence[float | None]) -> str:
    """`0.95 (0.02)`, without the bracket for one value. One undefined seed makes the cell "undefined"."""
    defined = [value for value in values if value is not None]
    if not values:
        return ""
    if len(defined) < len(values):
        return "undefined"
    mean = f"{statistics.mean(defined):.2f}"
    return mean if len(defined) < 2 else f"{mean} ({statistics.stdev(defined):.2f})"


def _paper_cell(values: Sequence[float]) -> str:
    """A result of the paper. values: [mean], [mean, standard deviation], or empty if it has none."""
    if not values:
        return ""
    mean, *std = (f"{value:.2f}" for value in values)
    return mean if not std else f"{mean} ({std[0]})"
