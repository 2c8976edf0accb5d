"""A comparison: variants of a model, each over several seeds, in the paper's two tables with its columns beside.

Seeds redraw phrasings and adapters over the same motion tokens. Variants differ in settings only, so whatever
they share is made once.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import ray
from pydantic import Field

from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import Settings, override, plain
from biomechgpt.evaluation import answers_table, paper
from biomechgpt.evaluation import statistics as measures
from biomechgpt.evaluation.metrics import main_figure
from biomechgpt.experiment import tracking
from biomechgpt.experiment.pipeline import PipelineSettings, check, measure, train, with_seed
from biomechgpt.experiment.tracking import TrackingSettings
from biomechgpt.questions.tasks import AnnotatedTask, Tasks

VERSION = 1
F1_TASKS = ("activity", "impaired", "diagnosis", "assistive_device", "falls_history")
R_TASKS = ("cadence", "walking_speed", "tug_time", "fsst_time")
"""The columns of the paper's tables, in their order."""


class Variant(Settings):
    """settings: {path: value} laid over the experiment's; split: on whose participants it is measured;
    baselines: others become rows of the tables; paper: the row of the paper's tables beside it.
    """

    settings: dict[str, Any] = Field(default_factory=dict)
    split: Literal["test", "train"] = "test"
    baselines: bool = False
    paper: str | None = None


class CompareSettings(Settings):
    """variants: {name, as the tables call it: what is different}."""

    experiment: PipelineSettings = PipelineSettings()
    variants: dict[str, Variant] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], min_length=1)
    concurrent: int = Field(1, ge=1, exclude=True, description="runs at a time")
    tracking: TrackingSettings = Field(TrackingSettings(), exclude=True)
    root: str = Field("results/artifacts", exclude=True)


def run_compare(settings: CompareSettings) -> Artifact:
    """The comparison artifact: `tables.md` and `comparison.json`. Raises InputError for wrong variants."""
    planned = {
        (name, seed): _settings(settings, name, seed) for name in settings.variants for seed in settings.seeds
    }
    for one in planned.values():
        check(one)

    def build(uri: str) -> dict[str, Any]:
        cluster.connect()
        runs = _all(settings, planned)
        for run in runs:
            _track(settings, run)
        rows = _rows(settings, runs)
        text = tables(rows, data=runs[0]["data"], base=runs[0]["base"], seeds=len(settings.seeds))
        paired = _paired(settings, runs)
        text += pairs_table(paired)
        storage.write_bytes(storage.join(uri, "tables.md"), text.encode())
        storage.write_json(
            storage.join(uri, "comparison.json"), {"rows": rows, "paired": paired, "runs": runs}
        )
        return {"runs": len(runs), "data": runs[0]["data"]}

    made = artifact.make("comparison", VERSION, settings, {}, build, settings.root)
    print("\n" + storage.read_bytes(made.path("tables.md")).decode())
    return made


def _settings(settings: CompareSettings, name: str, seed: int) -> PipelineSettings:
    variant = settings.variants[name]
    over = {
        "root": settings.root,
        "answers.splits": [variant.split],
        "evaluation.baselines": variant.baselines,
        "evaluation.seed": seed,
    }
    return with_seed(
        override(settings.experiment, over | variant.settings, f"variants.{name}.settings"), seed
    )


def _all(
    settings: CompareSettings, planned: Mapping[tuple[str, int], PipelineSettings]
) -> list[dict[str, Any]]:
    """Every run's result, `concurrent` at a time."""
    waiting = list(planned.items())
    running: dict[Any, tuple[str, int]] = {}
    done: dict[tuple[str, int], dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < settings.concurrent:
            key, one = waiting.pop(0)
            running[_run.remote(plain(one))] = key
        (ready,), _ = ray.wait(list(running))
        key = running.pop(ready)
        done[key] = {"variant": key[0], "seed": key[1]} | ray.get(ready)
        print(f"comparison: {key[0]}, seed {key[1]} ({len(done)} of {len(planned)})", flush=True)
    return [done[key] for key in planned]


@ray.remote(num_cpus=0, max_retries=0)
def _run(values: dict[str, Any]) -> dict[str, Any]:
    """One variant with one seed: a driver that holds no core while the trainings it asks for run."""
    cluster.connect()
    settings = PipelineSettings.model_validate(values)
    model = train(settings).model
    evaluation = measure(model, settings.answers, settings.evaluation, settings.root)
    return {
        "model": model.uri,
        "evaluation": evaluation.uri,
        "base": model.figures["base"],
        "data": evaluation.data,
        "tasks": evaluation.read_json("metrics.json")["tasks"],
    }


def _track(settings: CompareSettings, run: dict[str, Any]) -> None:
    tracking.record(
        settings.tracking,
        f"{run['variant']} seed {run['seed']} {run['evaluation'].rsplit('/', 1)[-1]}",
        params=settings.variants[run["variant"]].settings | {"seed": run["seed"]},
        metrics={task: main_figure(by["model"])[1] for task, by in run["tasks"].items()},
        tags={key: run[key] for key in ("model", "evaluation", "base", "data")},
    )


def _rows(settings: CompareSettings, runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row: {"paper": its row in the paper, "tasks": {task: the seeds' figures}}}, in the tables' order."""
    wanted = [(name, name, "model", v.paper) for name, v in settings.variants.items()]
    for name, variant in settings.variants.items():
        if variant.baselines:
            theirs = {"xgboost": "XGBoost", "chance": "chance"}
            wanted += [
                (measures.SOURCES[s], name, s, theirs.get(s)) for s in measures.SOURCES if s != "model"
            ]
            break
    rows: dict[str, dict[str, Any]] = {}
    for title, variant_name, source, beside in wanted:
        figures: dict[str, list[float | None]] = {}
        for run in [r for r in runs if r["variant"] == variant_name]:
            for task, by in run["tasks"].items():
                if source in by:
                    figures.setdefault(task, []).append(main_figure(by[source])[1])
        rows[title] = {"paper": beside, "tasks": figures}
    return rows


def _paired(settings: CompareSettings, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every other variant less the first, in each task of both, over seeds, on the same test participants."""
    first, *others = [name for name, variant in settings.variants.items() if variant.split == "test"] or [""]
    said: dict[str, list[pd.DataFrame]] = {}
    asked: dict[str, Tasks] = {}
    for run in runs if others else ():
        answers, about = answers_table.read(storage.join(run["evaluation"], answers_table.FILE))
        said.setdefault(run["variant"], []).append(answers[answers["source"] == "model"])
        asked[run["variant"]] = answers_table.tasks_of(about)
    found = []
    for name in others:
        for task in [t for n, t in asked[first].items() if n in asked[name] and isinstance(t, AnnotatedTask)]:
            ours, theirs = ([rows[rows["task"] == task.name] for rows in said[s]] for s in (name, first))
            if all(len(rows) for rows in (*ours, *theirs)):
                pair = measures.compare(ours, theirs, task, draws=settings.experiment.evaluation.draws)
                found.append({"variant": name, "against": first, "task": task.name, **pair})
    measures.adjust(found)
    return found


def pairs_table(paired: Sequence[Mapping[str, Any]]) -> str:
    """Comparisons of variants in Markdown; nothing where there are none."""
    if not paired:
        return ""
    lines = [
        f"**Each variant less {paired[0]['against']}**",
        "",
        "Mean over seeds, on the same trials; intervals and p by bootstrap over participants, p adjusted by Holm's",
        f"method for these {len(paired)} comparisons.",
        "",
        "| variant | task | difference | 95 % interval | p | p, adjusted | participants |",
        "|---" * 7 + "|",
    ]
    for one in paired:
        low, high = one["difference_ci"] or (None, None)
        cells = [one["variant"], one["task"].replace("_", " "), _number(one["difference"])]
        cells += [f"{_number(low)} to {_number(high)}", _number(one["p"], 3), _number(one["p_holm"], 3)]
        lines.append(f"| {' | '.join(cells)} | {one['participants']} |")
    return "\n".join([*lines, ""])


def _number(value: float | None, digits: int = 2) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def tables(rows: Mapping[str, Mapping[str, Any]], *, data: str, base: str, seeds: int) -> str:
    """The paper's two tables in Markdown: ours, mean (std) over seeds, and the paper's beside."""
    beside = paper()

    def table(tasks: tuple[str, ...], title: str) -> list[str]:
        shown = [t for t in tasks if any(t in row["tasks"] for row in rows.values())]
        if not shown:
            return []
        head = " | ".join(f"{t.replace('_', ' ')} | paper" for t in shown)
        lines = [f"**{title}**", "", f"| model | {head} |", "|---" * (1 + 2 * len(shown)) + "|"]
        for name, row in rows.items():
            theirs = beside.get(row["paper"] or "", {})
            cells = " | ".join(
                f"{_cell(row['tasks'].get(t, []))} | {_cell(theirs.get(t, []), True)}" for t in shown
            )
            if any(t in row["tasks"] for t in shown):
                lines.append(f"| {name} | {cells} |")
        return [*lines, ""]

    return "\n".join(
        [
            f"Data: {data}. Language base: {base}. Mean (standard deviation) of {seeds} seeds, by held-out",
            "participants. The paper's figures are of other people and recordings: not comparable, for scale.",
            "",
            *table(F1_TASKS, "F1, weighted by support"),
            *table(R_TASKS, "Pearson r between answered and measured"),
        ]
    )


def _cell(figures: Sequence[float | None], summarised: bool = False) -> str:
    """`.95 (.02)`; `summarised`: figures are [mean, std] already. An undefined figure of any seed is named."""
    if not figures:
        return ""
    if any(f is None for f in figures):
        return "undefined"
    known = [f for f in figures if f is not None]
    if summarised:
        mean, std = known[0], known[1] if len(known) > 1 else None
    else:
        mean, std = statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None
    return f"{mean:.2f}" + ("" if std is None else f" ({std:.2f})")
