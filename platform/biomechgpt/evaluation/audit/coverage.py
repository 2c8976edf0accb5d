"""How often sets and intervals hold the truth: 100 resplits of new participants into those that they are fitted on
and those that they are measured on, whole participants.

    python -m biomechgpt.evaluation.audit.coverage [--bundle URI] [--scale 0.5] [--resplits 100]

The participants are simulated anew (another seed), so that the bundle saw none of them. Of each task: coverage,
mean over participants and resplits (target .9), of all labels together and of each; labels in a set, or the width
of the interval in the task's unit. The last line is JSON.
"""

import argparse
import json
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.answering.batch import make_answers, read_answers
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.calibration import apply_temperature, fit_labels, fit_numbers, prediction_set
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import load, override
from biomechgpt.evaluation.calibration_metrics import calibration_scores
from biomechgpt.questions.dataset import QuestionsSettings, make_questions, read_tasks
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.settings import TokensSettings
from biomechgpt.tokenizer.tokens import make_tokens


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", help="URI of a model artifact; by default the demo's")
    parser.add_argument("--cohort", default="configs/cohort/paper.yaml")
    parser.add_argument("--scale", type=float, default=0.5, help="of the simulated study")
    parser.add_argument("--seed", type=int, default=1000, help="of the simulated study; not the bundle's")
    parser.add_argument("--resplits", type=int, default=100)
    parser.add_argument("--root", default="results/artifacts")
    options = parser.parse_args()
    uri = options.bundle or storage.read_json("results/demo/metrics.json")["model"]["uri"]
    bundle = artifact.load(uri, "model")
    over = {"simulator.scale": options.scale, "simulator.seed": options.seed}
    cohort = make_cohort(override(load(CohortSettings, options.cohort), over, "conformal"), options.root)
    views = 2 if ModelBundle(bundle.uri).info.scoring.mirrored else 1
    tokens = make_tokens(cohort, bundle.input("tokenizer"), TokensSettings(augmentations=views), options.root)
    tasks = {n: t for n, t in read_tasks(bundle.uri).items() if isinstance(t, PredictionTask)}
    questions = make_questions(tokens.input("cohort"), QuestionsSettings(names=list(tasks)), options.root)
    asked = BatchAnswerSettings(splits=["train", "validation", "test"])
    answers = read_answers(make_answers(bundle, questions, tokens, asked, options.root))
    result = {name: resplit(answers[answers["task"] == name], task, options) for name, task in tasks.items()}
    for name, found in result.items():
        print(f"{name:18}{found}", flush=True)
    print(json.dumps(result))


def resplit(rows: pd.DataFrame, task: PredictionTask, options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    people = np.array(sorted(rows["participant"].unique()))
    if task.kind == "classification":
        raw = [
            apply_temperature(np.asarray(p), 1 / t)
            for p, t in zip(rows["probabilities"], rows["temperature"], strict=True)
        ]
        rows = rows.assign(raw=raw)
    found = []
    for _ in range(options.resplits):
        fitted_on = rows["participant"].isin(rng.permutation(people)[: len(people) // 2])
        found.append(_measured(rows[fitted_on], rows[~fitted_on], task))
    known = [f for f in found if f["coverage_guaranteed"]]
    mean = lambda key: round(float(np.mean([f[key] for f in known])), 3) if known else None  # noqa: E731
    result = {"participants": len(people), "promised": len(known) / len(found), "coverage": mean("coverage")}
    if task.kind == "regression":
        return result | {"width": mean("width")}
    labels = sorted({label for f in known for label in f["coverage_by_label"]})
    of = {n: [f["coverage_by_label"][n] for f in known if n in f["coverage_by_label"]] for n in labels}
    by_label = {n: round(float(np.mean(values)), 3) for n, values in of.items()}
    return result | {"by_label": by_label, "set_size": mean("set_size")}


def _measured(known: pd.DataFrame, new: pd.DataFrame, task: PredictionTask) -> dict[str, Any]:
    who = known["participant"].tolist()
    if task.kind == "regression":
        fitted = fit_numbers(known["low"].tolist(), known["high"].tolist(), known["value_true"].tolist(), who)
        more = fitted.interval_offset or 0.0
        new = new.assign(
            low=new["low"] - more, high=new["high"] + more, coverage_guaranteed=fitted.coverage_guaranteed
        )
        return calibration_scores(new, task, draws=0)
    said = [dict(zip(c, p, strict=True)) for c, p in zip(known["labels"], known["raw"], strict=True)]
    fitted = fit_labels(said, known["label_true"].tolist(), who)
    soft = [apply_temperature(p, fitted.temperature) for p in new["raw"]]
    pairs = zip(new["labels"], soft, strict=True)
    possible = [prediction_set(dict(zip(c, p, strict=True)), fitted) for c, p in pairs]
    new = new.assign(
        probabilities=soft,
        prediction_set=possible,
        temperature=fitted.temperature,
        coverage_guaranteed=fitted.coverage_guaranteed,
    )
    return calibration_scores(new, task, draws=0)


if __name__ == "__main__":
    main()
