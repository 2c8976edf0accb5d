"""What QLoRA of Gemma 3 takes: memory of a GPU by part, and time; estimated, and measured where there is a GPU.

python benchmarks/speed/gpu_memory.py [--write docs/results/scale.md]

Parameters are counted on networks of Gemma's published sizes (no weights are needed). Memory: weights as NF4 with
double quantization (the embedding in bf16), what is trained with its AdamW state as DeepSpeed keeps it, activations
of a batch, logits in chunks. Time: 2 operations a parameter and token forwards, 2 backwards (frozen weights have no
gradient), 2 more with gradient checkpointing, at `--utilization` of the GPU's bf16 peak. With a GPU the same step,
DeepSpeed's, runs on a network with random weights, and the last line has both figures. The last line is JSON.
"""

import argparse
import gc
import json
import os
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from biomechgpt.core.settings import load
from biomechgpt.core.training_loop import deepspeed_config
from biomechgpt.core.training_settings import TrainingSettings
from biomechgpt.experiment.settings import LanguageSettings
from biomechgpt.language import network
from biomechgpt.language.families import FAMILIES
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.settings import AdapterSettings
from biomechgpt.prompts.encoding import Branch, PrefixTree
from biomechgpt.prompts.packing import batch_trees

CONFIGS = Path(__file__).parents[2] / "configs/language"
# As published with the weights.
SIZES: dict[str, dict[str, int]] = {
    "270M": {
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "sliding_window": 512,
    },
    "1B": {
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 262144,
        "sliding_window": 512,
    },
    "4B": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "sliding_window": 1024,
    },
}
MOTION_ROWS = 514
NF4_BYTES = (
    0.5 + (1 + 4 / 256) / 64
)  # a value; its block's scale in 8 bits, 256 of those with one of their own
A100_FLOPS = 312e12  # bf16, dense
GPUS_GB = (40, 80)
# The paper's cohort: 27,000 pairs, nine tenths trained on, of 130 motion tokens and some 40 of words; 4 a movement.
PAIRS, MOTION, WORDS, QUESTIONS = 24_300, 130, 40, 4


def empty(size: str) -> Gemma3ForCausalLM:
    """A network without memory for its weights."""
    with torch.device("meta"):
        return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES[size], tie_word_embeddings=True))


def random_model(size: str) -> Gemma3ForCausalLM:
    """A network with random weights in 16 bits, on the GPU where there is one."""
    torch.manual_seed(0)
    with torch.device(network.device()):
        return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES[size], tie_word_embeddings=True)).to(torch.bfloat16)


def linear_layers(model: torch.nn.Module) -> list[torch.nn.Linear]:
    return [
        layer
        for name, layer in model.named_modules()
        if re.fullmatch(FAMILIES["gemma3"].lora_targets, name) and isinstance(layer, torch.nn.Linear)
    ]


def estimate(size: str, file: str, checkpointing: bool, workers: int, utilization: float) -> dict[str, Any]:
    """GB a GPU, and minutes of the paper's run."""
    settings = load(LanguageSettings, CONFIGS / file).finetune
    assert settings.adapter is not None
    model = empty(size)
    layers, config = linear_layers(model), SIZES[size]
    packed = sum(layer.weight.numel() for layer in layers)
    every = sum({id(p): p.numel() for p in model.parameters()}.values())
    trained = sum(settings.adapter.rank * (layer.in_features + layer.out_features) for layer in layers)
    trained += MOTION_ROWS * config["hidden_size"]
    batch = max(1, settings.batch_size // workers)
    tokens = batch * settings.max_length
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    # Kept a token of a layer, in bf16: norms and residuals, attention's parts, the three of the MLP; and of each
    # adapter its input after dropout with its mask.
    attention = (2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"]) * config["head_dim"]
    layer_bytes = 2 * (8 * hidden + 2 * attention + 4 * inner) + 3 * (4 * hidden + attention + 2 * inner)
    n = config["num_hidden_layers"]
    kept = tokens * (2 * hidden * n + layer_bytes if checkpointing else layer_bytes * n)
    rows = min(tokens, network.LOGITS // config["vocab_size"])
    parts = {
        "weights": packed * NF4_BYTES + (every - packed) * 2,
        # bf16 weights and gradients on each; with ZeRO-2 the fp32 copy and AdamW's two moments are shared out.
        "trained": trained * (2 + 2 + 12 / workers),
        "activations": kept,
        "logits": rows * config["vocab_size"] * (2 + 4 + 4),
        "unpacked layer": 2 * max(layer.weight.numel() for layer in layers),
    }
    gb = {name: round(value / 1e9, 2) for name, value in parts.items()}
    work = 4 + 2 * checkpointing
    flops = work * (every - trained) / (A100_FLOPS * utilization * workers)
    pairs_tokens = settings.epochs * PAIRS * (MOTION + WORDS)
    tree_tokens = settings.epochs * PAIRS * (MOTION / QUESTIONS + WORDS)
    return {
        "model": size,
        "batch a GPU": batch,
        "checkpointing": checkpointing,
        "GPUs": workers,
        **gb,
        "GB": round(sum(parts.values()) / 1e9 + 1.5, 1),  # CUDA's context and what lies between blocks
        "minutes, pairs": round(pairs_tokens * flops / 60, 1),
        "minutes, trees": round(tree_tokens * flops / 60, 1),
    }


def alone() -> None:
    """One worker, as DeepSpeed wants to be told."""
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    torch.distributed.init_process_group("nccl", rank=0, world_size=1, store=torch.distributed.HashStore())


def engine_of(folder: str, checkpointing: bool) -> Any:
    """DeepSpeed's engine of QLoRA of the weights in `folder`, as training makes it."""
    import deepspeed

    model = network.load_model(folder, "nf4", "bf16")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    whole = network.TreeModel(with_adapter(model, AdapterSettings(), list(range(MOTION_ROWS)))).train()
    engine, *_ = deepspeed.initialize(
        model=whole,
        optimizer=torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], 2e-4, fused=True),
        config=deepspeed_config(TrainingSettings(precision="bf16", zero_stage=2), 1),
        dist_init_required=False,
    )
    return engine


def batch_of(samples: int, length: int) -> dict[str, torch.Tensor]:
    """Pairs of random tokens on this GPU."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(1000, size=length) for _ in range(samples)]
    trees = [PrefixTree(sample[:-8], [Branch(sample[-8:-2], sample[-2:])]) for sample in ids]
    return {name: value.cuda() for name, value in batch_trees(trees, 0, (1.0, 1.0, 1.0)).items()}


def measure(
    size: str, folder: str, samples: int, length: int, checkpointing: bool
) -> dict[str, float] | None:
    """Of a step of the weights in `folder` on this GPU: GB, seconds, tokens a second, and what share of the GPU's
    peak (an A100's; of a faster GPU it may be more than 1) that is. None: it has too little memory."""
    engine, batch = engine_of(folder, checkpointing), batch_of(samples, length)
    seconds = []
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(6):
            torch.cuda.synchronize()
            began = time.perf_counter()
            total, count = engine(**batch)["language"]
            engine.backward(total / count)
            engine.step()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    except torch.OutOfMemoryError:
        return None
    step = float(np.median(seconds[2:]))
    work = (4 + 2 * checkpointing) * sum({id(p): p.numel() for p in empty(size).parameters()}.values())
    return {
        "GB": round(torch.cuda.max_memory_reserved() / 1e9, 1),
        "GB in use": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "seconds a step": round(step, 3),
        "tokens a second": round(samples * length / step),
        "of an A100's peak": round(work * samples * length / step / A100_FLOPS, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--utilization", type=float, default=0.35, help="of the GPU's peak")
    parser.add_argument("--write", help="a Markdown file that the table is added to")
    options = parser.parse_args()
    network.quiet()
    rows = []
    for size, file in (("1B", "paper_1b.yaml"), ("4B", "paper_4b.yaml")):
        for checkpointing in (False, True):
            rows.append(estimate(size, file, checkpointing, 1, options.utilization))
        rows.append(estimate(size, file, True, 2, options.utilization))
    columns = list(rows[0])
    lines = [columns, ["---:"] * len(columns)]
    lines += [[str(value) for value in row.values()] for row in rows]
    lines = [[*line, fits] for line, fits in zip(lines, ["fits", "---", *map(fitting, rows)], strict=True)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(text)
    if options.write:
        with Path(options.write).open("a") as out:
            out.write(f"\n{text}\n")
    figures: dict[str, Any] = {
        "estimated_gb": {f"{r['model']} x{r['GPUs']} {r['checkpointing']}": r["GB"] for r in rows}
    }
    if torch.cuda.is_available():
        alone()
        figures |= {"gpu": torch.cuda.get_device_name(), "measured": {}}
        for size, batch in (("1B", 6), ("4B", 10)):
            with TemporaryDirectory() as folder:
                random_model(size).save_pretrained(folder)
                for checkpointing in (False, True):
                    gc.collect()
                    found = measure(size, folder, batch, 1024, checkpointing)
                    figures["measured"][f"{size} x1 {checkpointing}"] = found
                    print(size, checkpointing, found, flush=True)
    print(json.dumps(figures))


def fitting(row: dict[str, Any]) -> str:
    fits = [f"{gb} GB" for gb in GPUS_GB if row["GB"] <= 0.95 * gb]
    return ", ".join(fits) or "neither"


if __name__ == "__main__":
    main()
