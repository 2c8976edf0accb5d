"""How numbers are best written and read: a base fine-tuned on the numeric tasks alone, in each form of answer.

    python benchmarks/studies/number_decoding.py [--base URI --tokens URI]

Forms: `as it is` (1.05 m/s: digits apart, fixed decimals, a unit), `coarse` (a decimal less). Read from the
distribution over all numbers that a task can have: its median, its mean, its likeliest number; and `greedy`, the
likeliest token after token, as in the paper. The last line is JSON: {form: {reading: {task: Pearson r}}}, of
held-out participants.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import ModelParts, uncalibrated
from biomechgpt.answering.library import find_model
from biomechgpt.answering.scores import quantile
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.answering.settings import ScoringSettings
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import log_to_stdout
from biomechgpt.core.settings import load, override
from biomechgpt.experiment.settings import LanguageSettings
from biomechgpt.language import network
from biomechgpt.language.finetune import make_adapter
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.dataset import QuestionsSettings, make_questions, read_questions, read_tasks
from biomechgpt.questions.tasks import NumberTask, load_tasks
from biomechgpt.tokenizer.tokens import Tokens

FORMS: dict[str, Any] = {
    "as it is": lambda task: {},
    "coarse": lambda task: {"decimals": max(task.decimals - 1, 0)},
}


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "tokens"):
        options.add_argument(f"--{name}", help=f"URI of a {name} artifact; by default the demo's")
    options.add_argument("--config", default="configs/language/stand_in_paper.yaml")
    options.add_argument("--epochs", type=float, default=2.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--root", default="results/artifacts")
    return options.parse_args()


def write_tasks(folder: str, form: str) -> None:
    for task in load_tasks("configs/tasks").values():
        if isinstance(task, NumberTask):
            kept = task.model_dump(mode="json", exclude_defaults=True)
            kept |= {"kind": task.kind, **FORMS[form](task)}
            Path(folder, f"{task.name}.yaml").write_text(yaml.safe_dump(kept))


def readings(model: ModelParts, questions: Artifact, tokens: Artifact) -> dict[str, dict[str, float]]:
    """{reading: {task: Pearson r}} over the test split."""
    answerer = Answerer(model)
    movements = Tokens(tokens).codes()
    asked = [q for q in read_questions(questions) if q["split"] == "test"]
    asked.sort(key=lambda q: len(movements[q["trial"]]))
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for at in range(0, len(asked), 16):
        some = asked[at : at + 16]
        prefixes = [answerer.encoder.prefix([movements[q["trial"]].tolist()]) for q in some]
        pairs = [
            [
                CandidateQuery(
                    answerer.encoder.question(q["question"]),
                    answerer.tries[q["task"]],
                    full_distribution=True,
                )
            ]
            for q in some
        ]
        texts = answerer.generate(
            [
                Query([MotionTokens(movements[q["trial"]].tolist())], "single", None, q["question"])
                for q in some
            ]
        )
        for q, (scores,), text in zip(some, score(answerer.model, prefixes, pairs), texts, strict=True):
            numbers = np.asarray(answerer.tries[q["task"]].answers)
            p = scores.probability
            read = {
                "median": quantile(numbers, p, 0.5),
                "mean": float(numbers @ p),
                "likeliest": float(numbers[p.argmax()]),
                "greedy": answerer.tasks[q["task"]].parse(text),
            }
            for name, value in read.items():
                if value is not None:
                    by_task = found.setdefault(name, {}).setdefault(q["task"], [])
                    by_task.append((q["value"], float(value)))
    return {
        name: {task: round(float(np.corrcoef(np.array(pairs).T)[0, 1]), 3) for task, pairs in by_task.items()}
        for name, by_task in found.items()
    }


def _given(options: argparse.Namespace, name: str) -> Artifact:
    uri = getattr(options, name)
    if uri:
        return artifact.load(uri, name)
    return artifact.load(find_model("demo")).input(name)


def main() -> None:
    options = parse()
    network.quiet()
    base, tokens = (_given(options, name) for name in ("base", "tokens"))
    over = {"finetune.epochs": options.epochs, "finetune.training.seed": options.seed}
    settings = override(load(LanguageSettings, options.config), over, "number_forms").finetune
    result = {}
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            write_tasks(folder, form)
            questions = make_questions(
                tokens.input("cohort"), QuestionsSettings(tasks=folder, seed=options.seed), options.root
            )
        adapter = make_adapter(base, questions, tokens, settings, options.root)
        parts = uncalibrated(base, adapter, read_tasks(questions.uri), ScoringSettings())
        result[form] = readings(parts, questions, tokens)
        print(f"{form}: {result[form]}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    log_to_stdout()
    main()
