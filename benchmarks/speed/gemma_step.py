"""A QLoRA step of Gemma 3: ours against PEFT's and torch's own ways, in one run.

python benchmarks/speed/gemma_step.py [--size 270M] [--tokens 900] [--rounds 3]

Random weights of the size's shape, in bf16, with the paper's adapters (rank 32, dropout .1) and 514 trained rows.
A step reads question trees with so many tokens, computes the loss, its gradient and AdamW's update. "All" has
every token in the loss, as in the paper; "answers" has the answers alone. The two ways take turns, since a
machine's speed drifts. Both get the same weights and batches; dropout differs. Unpacking of 4-bit weights is in
neither: on a CPU they are unpacked once, before the first step. peak_gb: the process's largest memory after our
steps, and after PEFT's. The last line is JSON.
"""

import argparse
import copy
import json
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch
from gpu_memory import MOTION_ROWS, SIZES, random_model
from peft.tuners.trainable_tokens import TrainableTokensLayer

from biomechgpt.language import network
from biomechgpt.language.dropout import CheapDropout
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.motion_rows import SplitTokensLayer
from biomechgpt.language.settings import AdapterSettings
from biomechgpt.prompts.encoding import Branch, PrefixTree
from biomechgpt.prompts.packing import batch_trees

WEIGHTS = {"all": (1.0, 1.0, 1.0), "answers": (0.0, 0.0, 1.0)}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def qlora(size: str, split: bool) -> Any:
    """The model of a size in training; split: ours, else PEFT's way."""
    base = random_model(size)
    words = base.config.vocab_size
    base.resize_token_embeddings((words + MOTION_ROWS + 63) // 64 * 64, mean_resizing=False)
    base.set_attn_implementation(network.register_attention())
    torch.manual_seed(0)
    model = with_adapter(base, AdapterSettings(), list(range(words, words + MOTION_ROWS)))
    model = model.to(torch.bfloat16)  # as DeepSpeed does with precision bf16
    if not split:
        for layer in list(model.modules()):
            if type(layer) is SplitTokensLayer:
                layer.__class__ = TrainableTokensLayer
            for name, child in list(layer.named_children()):
                if type(child) is CheapDropout:
                    setattr(layer, name, torch.nn.Dropout(child.p))
    whole = network.TreeModel(model).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), 1e-4, fused=True)
    return whole, optimizer


def tree(words: int, rng: np.random.Generator) -> PrefixTree:
    """A movement of 60 to 140 tokens and five questions with short answers."""
    movement = rng.integers(words + 2, words + MOTION_ROWS, size=int(rng.integers(60, 140)))
    return PrefixTree(
        np.concatenate([[2, 105, 2364, 107, words], movement, [words + 1]]),
        [Branch(rng.integers(300, 9000, size=16), rng.integers(300, 9000, size=5)) for _ in range(5)],
    )


def batch_of(tokens: int, words: int, seed: int, weights: tuple[float, float, float]) -> tuple[Any, int]:
    rng, trees = np.random.default_rng(seed), []
    while sum(map(len, trees)) < tokens:
        trees.append(tree(words, rng))
    batch = {name: value.to(DEVICE) for name, value in batch_trees(trees, 0, weights).items()}
    return batch, sum(map(len, trees))


def step(way: Any, batch: Any) -> tuple[float, float]:
    """(seconds, loss) of a step."""
    whole, optimizer = way
    started = time.perf_counter()
    total, count = whole(**batch)["language"]
    (total / count).backward()
    torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss = float(total / count)  # waits for a GPU
    return time.perf_counter() - started, loss


def peak_gb() -> float:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="270M")
    parser.add_argument("--tokens", type=int, default=900, help="of a step, about")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    network.quiet()
    words = SIZES[options.size]["vocab_size"]
    ours = qlora(options.size, split=True)
    first_s = [step(ours, batch_of(options.tokens, words, seed, WEIGHTS["all"])[0])[0] for seed in (90, 91)]
    peaks = {"ours": peak_gb()}
    plain = qlora(options.size, split=False)
    plain[0].load_state_dict(copy.deepcopy(ours[0].state_dict()))
    rates: dict[str, dict[str, list[float]]] = {part: {"ours": [], "peft": []} for part in WEIGHTS}
    gaps = []
    for seed in range(options.rounds):
        for part, weights in WEIGHTS.items():
            batch, tokens = batch_of(options.tokens, words, seed, weights)
            losses = {}
            for name, way in (("ours", ours), ("peft", plain)):
                seconds, losses[name] = step(way, batch)
                rates[part][name].append(tokens / seconds)
                print(
                    f"{part:8} {name:5} {tokens / seconds:7.1f} tokens/s  loss {losses[name]:.4f}", flush=True
                )
            gaps.append(abs(losses["ours"] - losses["peft"]))
    peaks["peft"] = peak_gb()
    report: dict[str, Any] = {"size": options.size, "device": DEVICE}
    for part, by_way in rates.items():
        middle = {name: statistics.median(values) for name, values in by_way.items()}
        report[f"ratio_{part}"] = round(middle["ours"] / middle["peft"], 2)
        report[f"tokens_per_s_{part}"] = round(middle["ours"], 1)
        report[f"tokens_per_s_{part}_peft"] = round(middle["peft"], 1)
    report["largest_loss_gap"] = round(max(gaps), 3)
    report["first_steps_s"] = [round(value, 1) for value in first_s]
    report["peak_gb"] = {name: round(value, 2) for name, value in peaks.items()}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
