"""Does a model give away who it was trained on? Membership inference from how sure it is of its answers.

    python benchmarks/studies/membership.py [--model URI] [--people 40]

Two attackers have a recording of each person and the model's probabilities. One knows the true label, and takes its
log-probability; the other takes that of the most probable label. A person's score is the mean over up to 5
recordings. The last line is JSON: for each task the training participants and the other people, and for each
attacker the AUC, the probability that a training participant has the higher score. At .5 nothing is given away.
"""

import argparse
import json

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from biomechgpt.answering.batch import answer_rows, select_questions
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.library import find_model
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.core import artifact

TASKS = ("activity", "impaired", "diagnosis", "assistive_device", "falls_history")
RECORDINGS = 5


def some(rows: pd.DataFrame, people: int, rng: np.random.Generator) -> pd.DataFrame:
    """The rows of so many people of each split, with a few recordings of each."""
    kept = []
    for _, of_split in rows.groupby(rows["split"] == "train"):
        names = rng.permutation(sorted(of_split["participant"].unique()))[:people]
        for _, of_person in of_split[of_split["participant"].isin(names)].groupby("participant"):
            trials = rng.permutation(sorted(of_person["trial"].unique()))[:RECORDINGS]
            kept.append(of_person[of_person["trial"].isin(trials)])
    return pd.concat(kept, ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="URI of a model artifact; the demo's by default")
    parser.add_argument("--people", type=int, default=40, help="most people of each kind for each task")
    options = parser.parse_args()
    model = artifact.load(options.model or find_model("demo"), "model")
    adapter = model.input("adapter")
    questions, tokens = adapter.input("questions"), adapter.input("tokens")
    parts = ModelBundle(model.uri).parts
    every = select_questions(questions, parts.tasks, ["train", "test"])
    rng = np.random.default_rng(0)
    asked = [some(every[every["task"] == task], options.people, rng) for task in TASKS if task in parts.tasks]
    answers = answer_rows(parts, pd.concat(asked, ignore_index=True), tokens, BatchAnswerSettings())
    answers["surest"] = [float(np.log(max(p))) for p in answers["probabilities"]]
    answers["truth"] = [
        float(np.log(max(dict(zip(labels, p, strict=True)).get(true, 0.0), 1e-6)))
        for labels, p, true in zip(
            answers["labels"], answers["probabilities"], answers["label_true"], strict=True
        )
    ]
    result = {}
    for task, rows in answers.groupby("task", sort=False):
        people = rows.groupby("participant").agg({"split": "first", "surest": "mean", "truth": "mean"})
        member = people["split"] == "train"
        result[task] = {
            "training": int(member.sum()),
            "others": int((~member).sum()),
            "auc_with_truth": round(float(roc_auc_score(member, people["truth"])), 2),
            "auc_without": round(float(roc_auc_score(member, people["surest"])), 2),
        }
        print(f"{task}: {result[task]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
