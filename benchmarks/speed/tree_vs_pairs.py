"""Question trees against separate samples: the same questions, the same loss, how much faster a training step.

python benchmarks/speed/tree_vs_pairs.py [--trials 16] [--questions 6] [--tokens 60] [--rounds 5]
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from biomechgpt.language.network import TreeModel, extend_vocabulary, quiet
from biomechgpt.language.settings import TinyModelSettings
from biomechgpt.language.tiny_model import new_model, train_text_tokenizer
from biomechgpt.prompts.encoding import PromptEncoder
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.questions.tasks import load_tasks


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, value in (("trials", 16), ("questions", 6), ("tokens", 60), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    quiet()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    phrasings = [p for task in load_tasks("configs/tasks").values() for p in task.templates]
    tokenizer = train_text_tokenizer(phrasings, 600)
    model = new_model(tokenizer, TinyModelSettings())
    extend_vocabulary(model, tokenizer, rng.normal(size=(512, 64)), "codebook")
    encoder, tree_model = PromptEncoder(tokenizer), TreeModel(model).train()
    trials = []
    for _ in range(options.trials):
        asked = rng.choice(phrasings, options.questions, replace=False)
        trials.append(
            (rng.integers(512, size=options.tokens), [(str(q), "overground walking") for q in asked])
        )
    trees = [encoder.build_tree([tokens], pairs, 1024) for tokens, pairs in trials]
    pairs = [encoder.build_tree([tokens], [pair], 1024) for tokens, some in trials for pair in some]

    def step(samples: list) -> tuple[float, float]:
        started = time.perf_counter()
        model.zero_grad(set_to_none=True)
        total, count = tree_model(**batch_trees(samples, tokenizer.pad_token_id, (1.0, 1.0, 1.0)))["language"]
        (total / count).backward()
        return time.perf_counter() - started, float(total / count)

    step(trees), step(pairs)
    seconds: dict[str, list[float]] = {"tree": [], "pairs": []}
    for _ in range(options.rounds):  # in turn: the machine's speed drifts
        for name, samples in (("tree", trees), ("pairs", pairs)):
            taken, loss = step(samples)
            seconds[name].append(taken)
            print(f"{name:6} {taken:6.2f} s  loss {loss:.6f}", flush=True)
    ratios = [p / t for p, t in zip(seconds["pairs"], seconds["tree"], strict=True)]
    print(
        json.dumps(
            {
                "speedup_of_trees_over_pairs": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
                "questions_a_trial": options.questions,
                "pairs_per_s": round(len(pairs) / statistics.median(seconds["tree"]), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
