"""How hard the simulated cohort is: XGBoost on its token histograms beside the paper's on real people.

    python benchmarks/studies/simulator_difficulty.py [--cohort configs/cohort/paper.yaml] [--search 8]

Scores are weighted F1, or Pearson r where the paper gives none for XGBoost: of the held-out participants, and
cross-validated over those trained on (r squared for numbers). Two participants are tested on falls: that figure
says nothing, the cross-validated one does.
"""

import argparse
import json

import numpy as np

from biomechgpt.answering.batch import with_parsed
from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core import cluster, settings
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.evaluation.baselines import BASELINES, BaselineInputs
from biomechgpt.evaluation.baselines.run import run_baselines
from biomechgpt.evaluation.metrics import main_score, score
from biomechgpt.questions.dataset import QuestionsSettings, make_questions, read_questions, read_tasks
from biomechgpt.tokenizer.settings import TokenizerSettings, TokensSettings
from biomechgpt.tokenizer.tokens import Tokens, make_tokens
from biomechgpt.tokenizer.train import make_tokenizer

PAPER = {
    "activity": 0.91,
    "impaired": 0.86,
    "diagnosis": 0.68,
    "assistive_device": 0.69,
    "falls_history": 0.69,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohort", default="configs/cohort/paper.yaml")
    parser.add_argument("--tokenizer", default="configs/tokenizer/demo.yaml")
    parser.add_argument("--search", type=int, default=8)
    parser.add_argument("--root", default="results/artifacts")
    options = parser.parse_args()
    cluster.connect()
    cohort = make_cohort(settings.load(CohortSettings, options.cohort), options.root)
    tokenizer = make_tokenizer(cohort, settings.load(TokenizerSettings, options.tokenizer), options.root)
    tokens = make_tokens(cohort, tokenizer, TokensSettings(), options.root)
    questions = make_questions(cohort, QuestionsSettings(), options.root)
    tasks = read_tasks(questions.uri)
    rows = read_questions(questions).to_pandas()
    rows = rows[rows["split"] == "test"].reset_index(drop=True)
    asked = with_parsed(rows.assign(answer_text=""), tasks)
    codes = Tokens(tokens).info.codebook_size
    trials = Tokens(tokens).annotated_table().to_pandas()
    inputs = BaselineInputs(cohort, trials, np.empty((len(trials), 0)), codes, seed=0)
    xgboost = {"xgboost": BASELINES["xgboost"]}
    table, details = run_baselines(inputs, asked, tasks, draws=options.search, seed=0, baselines=xgboost)
    found, validated = {}, {}
    for name, task in tasks.items():
        if name not in details or "xgboost" not in details[name]:
            continue  # no baseline answers this kind of task, or there are no training trials
        mine = table[(table["task"] == name) & (table["source"] == "xgboost")]
        scores = score(mine, task, draws=0, seed=0)
        measure, found[name] = main_score(scores)
        validated[name] = details[name]["xgboost"].get("cross_validated")
        paper = f"{PAPER[name]:.2f} in the paper" if name in PAPER else ""
        print(
            f"{name:18s} {measure} {_shown(found[name])} over {scores['participants']} participants, "
            f"{scores['n']} trials, cross-validated {_shown(validated[name])}  {paper}"
        )
    rmse = tokenizer.metrics["rmse_deg_tracked"]
    print(json.dumps({"xgboost": found, "cross_validated": validated, "rmse_deg": rmse}))


def _shown(value: float | None) -> str:
    """A score of three digits; a dash where too few participants leave it undefined."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    log_to_stdout()
    main()
