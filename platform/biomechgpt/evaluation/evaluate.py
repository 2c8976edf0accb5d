"""The evaluation artifact: every source's predictions on the same trials, and their scores."""

from typing import Any

import pandas as pd
from pydantic import Field

from biomechgpt import artifact, cluster, storage
from biomechgpt.artifact import Artifact
from biomechgpt.dialogue.questions import read_tasks
from biomechgpt.evaluation import baselines
from biomechgpt.evaluation.metrics import main_figure, score
from biomechgpt.evaluation.trust import trust
from biomechgpt.language.answer import WEIGHED, read_answers
from biomechgpt.settings import Settings
from biomechgpt.tokenizer import read_tokens

VERSION = 2
SOURCES = ("model", "xgboost", "chance")


class EvaluationSettings(Settings):
    """draws: of the bootstrap over participants; search: settings tried for each XGBoost; baselines: whether
    XGBoost and chance are measured too."""

    baselines: bool = True
    draws: int = Field(500, ge=0)
    search: int = Field(8, ge=0)
    seed: int = 0


def make_evaluation(
    answers: Artifact,
    questions: Artifact,
    tokens: Artifact,
    tokenizer: Artifact,
    settings: EvaluationSettings,
    root: str,
) -> Artifact:
    """The evaluation artifact: `predictions.parquet` and `metrics.json` (data, tokenizer, tasks)."""

    def build(uri: str) -> dict[str, Any]:
        cluster.connect()
        tasks = read_tasks(questions.uri)
        asked = read_answers(answers)
        trials = read_tokens(tokens).to_pandas()
        codes = tokens.read_json("tokens.json")["codes"]
        table: pd.DataFrame = asked
        found: dict[str, Any] = {}
        if settings.baselines:
            plain = asked.drop(columns=list(WEIGHED), errors="ignore")
            others, found = baselines.run(
                trials, plain, tasks, codes, draws=settings.search, seed=settings.seed
            )
            table = pd.concat([asked, others], ignore_index=True)
        content = table.to_parquet(None, index=False)
        assert isinstance(content, bytes)
        storage.write_bytes(storage.join(uri, "predictions.parquet"), content)
        scored: dict[str, Any] = {}
        for name, task in tasks.items():
            rows = table[table["task"] == name]
            if rows.empty:
                continue
            scored[name] = {
                source: score(rows[rows["source"] == source], task, draws=settings.draws, seed=settings.seed)
                for source in SOURCES
                if (rows["source"] == source).any()
            }
            said = rows[rows["source"] == "model"]
            if trusted := trust(said, task, draws=settings.draws, seed=settings.seed):
                scored[name]["model"]["trust"] = trusted
            if name in found and "xgboost" in scored[name]:
                scored[name]["xgboost"] |= found[name]
        metrics = {"data": tokens.data, "tokenizer": tokenizer.figures, "tasks": scored}
        storage.write_json(storage.join(uri, "metrics.json"), metrics)
        return {name: main_figure(by["model"])[1] for name, by in scored.items() if "model" in by}

    inputs = {"answers": answers, "questions": questions, "tokens": tokens, "tokenizer": tokenizer}
    return artifact.make("evaluation", VERSION, settings, inputs, build, root)


def read_predictions(evaluation: Artifact) -> pd.DataFrame:
    """The answers table of all sources."""
    return pd.read_parquet(storage.local_copy(evaluation.path("predictions.parquet")))
