"""Tokenizers side by side: each file of configs/tokenizer/variants trained for as long on one cohort.

Errors are of validation participants (--split test: of test participants), in degrees. F1 is weighted by support.
It is XGBoost's on histograms of tokens, without a search: what a tokenizer keeps of a question, quickly told.
--given-back adds what order and rhythm tell as well: MiniRocket's F1 on the joint angles that tokens give back,
beside that on the angles themselves; as much as whoever reads the tokens can hope for (minutes a variant). --write
puts the tables into a document.

python benchmarks/studies/variants.py --cohort configs/cohort/paper.yaml --steps 800 \\
    --write docs/results/tokenizer_variants.md
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import f1_score

from biomechgpt.cohort import Cohort, CohortSettings, make_cohort
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import load, override
from biomechgpt.evaluation.baselines import BASELINES, Problem
from biomechgpt.evaluation.baselines.minirocket import MiniRocket, fitting_trials
from biomechgpt.evaluation.baselines.xgboost import histograms
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.questions.tasks import Tasks, load_tasks
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.reconstruction import held_out
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings
from biomechgpt.tokenizer.tokens import Tokens, TokensInfo, make_tokens
from biomechgpt.tokenizer.train import make_tokenizer

TASKS = ["activity", "impaired", "diagnosis", "assistive_device"]


def xgboost_f1(
    table: pa.Table, tokens: list[list[int]], info: TokensInfo, tasks: Tasks, split: str
) -> dict[str, float]:
    """Weighted F1 of XGBoost on held-out participants, by task, from the tokens of the table's trials."""
    return scores("xgboost", table, histograms(tokens, info.codebook_size, info.n_posture), tasks, split)


def minirocket_f1(table: pa.Table, movements: list[np.ndarray], tasks: Tasks, split: str) -> dict[str, float]:
    """The same of MiniRocket, from movements (T, 34) of the table's trials."""
    training = [i for i, split in enumerate(table["split"].to_pylist()) if split == "train"]
    extractor = MiniRocket([movements[i] for i in fitting_trials(training)])
    X = np.stack([extractor.features(movement) for movement in movements])
    return scores("minirocket", table, X, tasks, split)


def scores(baseline: str, table: pa.Table, X: np.ndarray, tasks: Tasks, split: str) -> dict[str, float]:
    """Weighted F1 of a baseline on held-out participants, by task, from features (trials, n)."""
    rows, f1_of = table.to_pylist(), {}
    for name, task in tasks.items():
        train, test = (
            [i for i, row in enumerate(rows) if row["split"] == side and task.applies(row)]
            for side in ("train", split)
        )
        truth = np.array([task.truth(row) if task.applies(row) else "" for row in rows])
        participants = [rows[i]["participant"] for i in train]
        problem = Problem("classification", X[train], truth[train], participants, X[test])
        predicted = BASELINES[baseline].fit_predict(problem).values
        f1_of[name] = round(f1_score(truth[test], predicted, average="weighted", zero_division=0), 3)
    return f1_of


def row(figures: dict[str, Any], f1_of: dict[str, float]) -> dict[str, Any]:
    by_joint = figures["rmse_deg_by_joint"]
    weakest = max(by_joint, key=by_joint.get)
    return {
        "bits/s": figures["bits_per_s"],
        "tokens/s": figures["tokens_per_s"],
        "26 tracked": figures["rmse_deg_tracked"],
        "weakest joint": f"{by_joint[weakest]} ({weakest})",
        "34 all": figures["rmse_deg_all"],
        "legs": figures["rmse_deg_legs"],
        "legs, given alone": figures["rmse_deg_legs_alone"],
        "perplexity": f"{figures['perplexity']} of {figures['codes']}",
        **{f"F1 {name}": score for name, score in f1_of.items()},
    }


def markdown(corner: str, rows: dict[str, dict[str, Any]]) -> str:
    """A table of {row: {column: value}}."""
    columns = list(dict.fromkeys(column for values in rows.values() for column in values))
    lines = [[corner, *columns], ["---", *("---:" for _ in columns)]]
    lines += [[name, *(str(values.get(column, "-")) for column in columns)] for name, values in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by(figures: dict[str, dict[str, Any]], name: str) -> str:
    """A figure that has values by joint, activity or diagnosis: a row each, a column a variant."""
    found = {variant: made.get(f"rmse_deg_by_{name}", {}) for variant, made in figures.items()}
    rows = dict.fromkeys(value for values in found.values() for value in values)
    cells = {value: {variant: values.get(value, "-") for variant, values in found.items()} for value in rows}
    return markdown(name, cells)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohort", default="configs/cohort/tiny.yaml")
    parser.add_argument("--variants", default="configs/tokenizer/variants", help="a folder of settings")
    parser.add_argument("--only", nargs="*", help="names of some of them")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--split", default="validation", help="whose errors: validation or test participants")
    parser.add_argument("--given-back", action="store_true", help="MiniRocket on what tokens give back too")
    parser.add_argument("--root", default="results/artifacts")
    parser.add_argument("--write", help="a Markdown file")
    options = parser.parse_args()
    cohort = make_cohort(load(CohortSettings, options.cohort), options.root)
    tasks = load_tasks("configs/tasks", TASKS)
    figures, rows = {}, {}
    for path in sorted(Path(options.variants).glob("*.yaml")):
        if options.only and path.stem not in options.only:
            continue
        settings = override(load(TokenizerSettings, path), {"steps": options.steps}, str(path))
        tokenizer = make_tokenizer(cohort, settings, options.root)
        tokens = make_tokens(cohort, tokenizer, TokensSettings(), options.root)
        trained = MotionTokenizer.load(tokenizer.uri)
        figures[path.stem] = held_out(trained, cohort, options.split)
        table = Tokens(tokens).annotated_table()
        codes, table = table["tokens"].to_pylist(), table.drop_columns(["tokens"])
        found = xgboost_f1(table, codes, Tokens(tokens).info, tasks, options.split)
        rows[path.stem] = row(figures[path.stem], found)
        if options.given_back:
            back = trained.decode([np.asarray(one) for one in codes])
            rocket = minirocket_f1(table, back, tasks, options.split)
            rows[path.stem] |= {f"given back, {name}": f1 for name, f1 in rocket.items()}
    if options.given_back:
        table = Cohort(cohort).table().sort_by("trial")
        angles = [
            row.values.to_numpy().reshape(-1, N_JOINTS).astype(np.float32) for row in table["angles_rad"]
        ]
        own = minirocket_f1(table.drop_columns(["angles_rad"]), angles, tasks, options.split)
        rows["the joint angles"] = {f"given back, {n}": f for n, f in own.items()}
    text = "\n\n".join(
        [
            "# Tokenizers compared",
            f"`python {' '.join(sys.argv)}`, on {os.cpu_count()} cores. Cohort: {cohort.provenance}, "
            f"{cohort.metrics['participants'][options.split]} {options.split} participants. "
            "Errors are the RMSE in degrees. Some variants set 8 joints to zero; in `34 all` their error is all of "
            "these joints' movement. `legs, given alone` has recordings of the legs only. F1 is weighted by "
            "support. It is that of XGBoost on histograms of tokens, without a hyperparameter search; `given back` "
            "is that of MiniRocket on the joint angles that are reconstructed from tokens.",
            markdown("variant", rows),
            *(by(figures, name) for name in ("joint", "activity", "diagnosis")),
        ]
    )
    print(text)
    if options.write:
        Path(options.write).write_text(text + "\n")
    print(json.dumps({name: made["rmse_deg_tracked"] for name, made in figures.items()}))


if __name__ == "__main__":
    log_to_stdout()
    main()
