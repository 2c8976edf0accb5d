"""The evaluation artifact: answers of the model and the baselines to the same questions, metrics, a report."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.answer import ANSWER_COLUMNS
from biomechgpt.answering.batch import read_answers
from biomechgpt.cohort import Cohort
from biomechgpt.cohort.parameters import make_parameters, read_parameters
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.baselines import BaselineInputs
from biomechgpt.evaluation.baselines.run import run_baselines
from biomechgpt.evaluation.metrics import main_score
from biomechgpt.evaluation.report import write_report
from biomechgpt.evaluation.restraint import restraint
from biomechgpt.evaluation.settings import EvaluationSettings
from biomechgpt.evaluation.statistics import MODEL, SUBGROUPS
from biomechgpt.language.tiny_model import is_stand_in
from biomechgpt.motion.parameters import PARAMETERS, ParameterValues
from biomechgpt.questions.dataset import read_tasks
from biomechgpt.questions.tasks import Tasks
from biomechgpt.tokenizer.tokens import Tokens

VERSION = 10
TRAINED_PARTS = ("base", "adapter", "calibration")
"""Parts of a model that are made from a cohort's tokens."""


def make_evaluation(
    answers: Artifact,
    settings: EvaluationSettings,
    root: str,
    *,
    start: Artifact | None = None,
    adaptations: Sequence[Artifact] = (),
) -> Artifact:
    """The evaluation artifact of a model's answers: `answers.parquet`, `metrics.json`, `report.html` and its
    notebook.

    `write_report` can make metrics and report again from `answers.parquet` alone.

    start: the model that was adapted to the cohort; None: the model is a new one.
    adaptations: artifacts that say whether its parts got better.
    """
    tokens = answers.input("tokens")
    cohort = tokens.input("cohort")
    parameters = make_parameters(cohort, root)

    def build(uri: str) -> dict[str, Any]:
        started = time.time()
        cluster.connect()
        tasks = read_tasks(answers.input("questions").uri)
        table = read_answers(answers)
        held_back = restraint(table)
        # Questions that the annotations rule out have no true answer: nothing else can be computed from them.
        table = table[table["applies_true"]].drop(columns="applies_true").reset_index(drop=True)
        trials = Tokens(tokens).annotated_table().to_pandas()
        parameters_of = read_parameters(parameters)
        measured = [parameters_of.get(trial, {}) for trial in trials["trial"]]
        details: dict[str, Any] = {}
        if settings.baselines:
            baseline_answers, details = _baselines(table, tasks, trials, measured, Tokens(tokens), settings)
            table = pd.concat([table, baseline_answers], ignore_index=True)
        table = table.merge(subgroup_columns(trials, measured), on="trial", how="left")
        origin = _origin(answers, start, adaptations)
        origin["seconds"] |= {
            "parameters": parameters.manifest["seconds"],
            "evaluation": round(time.time() - started, 2),  # without the report, made from this table
        }
        about = origin | {
            "tasks": [task.model_dump(mode="json") for task in tasks.values()],
            "baselines": details,
            "restraint": held_back,
            "note": settings.note,
            "draws": settings.draws,
            "seed": settings.seed,
        }
        content = storage.join(uri, answers_table.FILE)
        answers_table.write(content, table, about)
        metrics = write_report(content, uri)
        return {
            name: main_score(by_source[MODEL])[1]
            for name, by_source in metrics["tasks"].items()
            if MODEL in by_source
        }

    inputs = {"answers": answers, "parameters": parameters}
    inputs |= {f"adaptation of {made.metrics['what']}": made for made in adaptations}
    return artifact.make("evaluation", VERSION, settings, inputs, build, root)


def _baselines(
    table: pd.DataFrame,
    tasks: Tasks,
    trials: pd.DataFrame,
    measured: list[ParameterValues],
    tokens: Tokens,
    settings: EvaluationSettings,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The baselines' answers to the questions of `table`, and details of each. measured: of each trial."""
    inputs = BaselineInputs(
        cohort=tokens.artifact.input("cohort"),
        trials=trials,
        parameters=np.array([[row.get(name) for name in PARAMETERS] for row in measured], dtype=float),
        codebook_size=tokens.info.codebook_size,
        seed=settings.seed,
        mirrored=_mirrored(tokens, trials),
        n_posture=tokens.info.n_posture,
    )
    questions = table.drop(columns=list(ANSWER_COLUMNS), errors="ignore")
    return run_baselines(inputs, questions, tasks, draws=settings.search, seed=settings.seed)


def _mirrored(tokens: Tokens, trials: pd.DataFrame) -> list[list[int]]:
    """The tokens of each trial's mirror image; none if the tokens artifact has none."""
    if tokens.n_views < 2:
        return []
    views = tokens.views(sorted(trials["split"].unique()), 2)
    return [views[trial][1] for trial in trials["trial"]]


def _other_cohorts(answers: Artifact, start: Artifact | None) -> dict[str, Any]:
    """The parts of the model that come from another cohort, and the participants whom these parts may have seen.

    parts: those that were trained or calibrated on another cohort than that of the answers.
    participants: names of participants who were asked about, and who are in the training or validation split there.
    unchecked: whether the cohort of the model that was started from is not there to compare with.
    """
    tokens, model = answers.input("tokens"), answers.input("model")
    cohort = tokens.input("cohort")
    cohorts = {"tokenizer": tokens.input("tokenizer").input("cohort")}
    cohorts |= {part: model.input(part).input("tokens").input("cohort") for part in TRAINED_PARTS}
    unchecked = False
    if start:
        try:
            cohorts["start"] = start.input("tokens").input("cohort")
        except InputError:
            unchecked = True
    parts = [part for part, made in cohorts.items() if made.fingerprint != cohort.fingerprint]
    if not parts:
        return {"parts": [], "participants": [], "unchecked": unchecked}
    others = {cohorts[part].fingerprint: cohorts[part] for part in parts}
    seen = set().union(*(_participants(made, ["train", "validation"]) for made in others.values()))
    asked = _participants(cohort, answers.manifest["settings"]["splits"])
    return {"parts": parts, "participants": sorted(asked & seen), "unchecked": unchecked}


def _participants(cohort: Artifact, splits: Sequence[str]) -> set[str]:
    table = Cohort(cohort).table(["participant", "split"]).to_pandas()
    return set(table.loc[table["split"].isin(list(splits)), "participant"])


def _origin(answers: Artifact, start: Artifact | None, adaptations: Sequence[Artifact]) -> dict[str, Any]:
    """What the answers come from, for the report."""
    model, questions, tokens = (answers.input(name) for name in ("model", "questions", "tokens"))
    tokenizer = tokens.input("tokenizer")
    trained = [model.input(kind) for kind in TRAINED_PARTS]
    steps = [tokens.input("cohort"), tokenizer, tokens, questions, *trained, model, answers]
    return {
        "data": tokens.provenance,
        "stand_in": is_stand_in(model.metrics["base"]),
        "model": {"uri": model.uri, "fingerprint": model.fingerprint, "base": model.metrics["base"]},
        "tokenizer": tokenizer.metrics,
        "seconds": {step.kind: step.manifest["seconds"] for step in steps},
        "settings": {step.kind: step.manifest["settings"] for step in steps},
        "made_from": {step.kind: step.fingerprint for step in steps},
        "made": answers.manifest["made"],
        "other_cohorts": _other_cohorts(answers, start),
        "adaptation": start
        and {
            "start": start.fingerprint,
            "data": start.provenance,
            "decisions": [made.metrics for made in adaptations],
        },
    }


def subgroup_columns(trials: pd.DataFrame, measured: list[ParameterValues]) -> pd.DataFrame:
    """Each trial with the annotations that `SUBGROUPS` divides participants by."""
    speed = pd.Series([row.get("speed") for row in measured], trials.index, dtype=float)
    columns = trials[["trial", *(name for name in SUBGROUPS if name in trials)]]
    return columns.assign(pace=speed.groupby(trials["participant"]).transform("mean"))
