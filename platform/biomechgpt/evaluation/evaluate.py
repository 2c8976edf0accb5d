"""The evaluation artifact: what every source answers to the same questions, its figures, and the page of both."""

from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from biomechgpt.answering.answer import ANSWER_COLUMNS
from biomechgpt.answering.batch import read_answers
from biomechgpt.cohort.parameters import make_facts, read_facts
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import Settings
from biomechgpt.evaluation import answers_table, baselines
from biomechgpt.evaluation.metrics import main_figure
from biomechgpt.evaluation.report import write_report
from biomechgpt.evaluation.statistics import GROUPS
from biomechgpt.language.pretrain import STAND_IN
from biomechgpt.motion.parameters import FACTS, Facts
from biomechgpt.questions.dataset import read_tasks
from biomechgpt.tokenizer import read_tokens

VERSION = 3


class EvaluationSettings(Settings):
    """draws: of the bootstrap over participants; search: settings tried for each XGBoost; baselines: whether others
    are measured beside the model."""

    baselines: bool = True
    draws: int = Field(2000, ge=0)
    search: int = Field(8, ge=0)
    seed: int = 0


def make_evaluation(answers: Artifact, settings: EvaluationSettings, root: str) -> Artifact:
    """The evaluation artifact of answers: `answers.parquet` (`table`), and `metrics.json` and `report.html`, which
    `write_report` makes again from that file alone."""
    model, questions, tokens = (answers.input(name) for name in ("model", "questions", "tokens"))
    tokenizer, cohort = tokens.input("tokenizer"), tokens.input("cohort")
    facts = make_facts(cohort, root)

    def build(uri: str) -> dict[str, Any]:
        cluster.connect()
        tasks = read_tasks(questions.uri)
        asked = read_answers(answers)
        trials = read_tokens(tokens).to_pandas()
        known = read_facts(facts)
        measured = [known.get(trial, {}) for trial in trials["trial"]]
        whole = asked
        searched: dict[str, Any] = {}
        if settings.baselines:
            plain = asked.drop(columns=list(ANSWER_COLUMNS), errors="ignore")
            codes = tokens.read_json("tokens.json")["codes"]
            features = {
                "xgboost": baselines.histograms(trials["tokens"].tolist(), codes),
                "gait": np.array([[of.get(name) for name in FACTS] for of in measured], dtype=float),
                "rocket": baselines.rocket(cohort, trials, settings.seed),
            }
            others, searched = baselines.run(
                trials.drop(columns=["tokens"]),
                plain,
                tasks,
                features,
                draws=settings.search,
                seed=settings.seed,
            )
            whole = pd.concat([asked, others], ignore_index=True)
        trained = [model.input(name) for name in ("base", "adapter", "calibration")]
        steps = {made.kind: made for made in (cohort, tokenizer, tokens, questions, *trained, model, answers)}
        about = {
            "data": tokens.data,
            "stand_in": model.figures["base"] == STAND_IN,
            "model": {"uri": model.uri, "fingerprint": model.fingerprint, "base": model.figures["base"]},
            "tokenizer": tokenizer.figures,
            "tasks": [task.model_dump(mode="json") for task in tasks.values()],
            "searched": searched,
            "seconds": {kind: made.manifest["seconds"] for kind, made in steps.items()},
            "settings": {kind: made.manifest["settings"] for kind, made in steps.items()},
            "made_from": {kind: made.fingerprint for kind, made in steps.items()},
            "made": answers.manifest["made"],
            "draws": settings.draws,
            "seed": settings.seed,
        }
        content = storage.join(uri, answers_table.FILE)
        answers_table.write(content, whole.merge(_people(trials, measured), on="trial", how="left"), about)
        metrics = write_report(content, uri)
        return {name: main_figure(by["model"])[1] for name, by in metrics["tasks"].items() if "model" in by}

    return artifact.make("evaluation", VERSION, settings, {"answers": answers, "facts": facts}, build, root)


def _people(trials: pd.DataFrame, measured: list[Facts]) -> pd.DataFrame:
    """Each trial with what is known of its participant, in columns of `GROUPS`."""
    speed = pd.Series([of.get("speed") for of in measured], trials.index, dtype=float)
    known = trials[["trial", *(name for name in GROUPS if name in trials)]]
    return known.assign(pace=speed.groupby(trials["participant"]).transform("mean"))
