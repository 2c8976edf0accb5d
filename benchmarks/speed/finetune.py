"""Fine-tuning's speed: question trees against TRL's SFTTrainer with packing, and against a plain padded loop.

python benchmarks/speed/finetune.py [--size 1B] [--trials 48] [--questions 1 2 4 6 8]
    [--chart docs/results/finetune_speed.png]

One 4-bit QLoRA model (the stand-in's size, or Gemma's with random weights; rank 32, mixed precision) from the same
start, the same question-answer pairs, as many pairs a step, the same optimizer and rate, one epoch each. TRL packs
pairs into rows of 1024 tokens by best fit, which keeps them apart by their positions, and reads a step's rows
one by one or, on a GPU, also together: the faster counts. The motion tokens' rows stay as they are there, since its
loss takes no trained rows of PEFT's, which is less work. Seconds are of whole training steps but the first two, as
the median step. loss_gap: how much higher, in nats a token, our loss of held-out pairs is after the epoch than the
better of the others'. The last line is JSON; ratios are for 6 questions a trial, the paper's mean is about 4.
"""

import argparse
import copy
import gc
import json
import statistics
import time
import warnings
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from gpu_memory import SIZES, random_model

from biomechgpt.language import network
from biomechgpt.language.batches import plan_batches
from biomechgpt.language.finetune import with_adapter
from biomechgpt.language.settings import AdapterSettings, TinyModelSettings
from biomechgpt.language.tiny_model import new_model, save, train_text_tokenizer
from biomechgpt.prompts.encoding import PrefixTree, PromptEncoder, motion_vocabulary
from biomechgpt.prompts.packing import batch_trees
from biomechgpt.questions.tasks import LabelTask, load_tasks

CODES, ROOM, RATE = 512, 1024, 1e-3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EVERYTHING = (1.0, 1.0, 1.0)


def start(folder: str, size: str | None) -> Any:
    """The tokenizer of a base that is written into `folder`; its size: one of `SIZES`, or the stand-in's."""
    tasks = load_tasks("configs/tasks").values()
    words = [text for task in tasks for text in (*task.templates, *(getattr(task, "labels", None) or ()))]
    tokenizer = train_text_tokenizer(words, 1024)
    model = random_model(size) if size else new_model(tokenizer, TinyModelSettings())
    codebook = np.random.default_rng(0).normal(size=(CODES, 64))
    network.extend_vocabulary(model, tokenizer, codebook, "codebook")
    save(model, tokenizer, folder)
    return tokenizer


def qlora(folder: str, tokenizer: Any, rows: bool, compute: Literal["fp32", "bf16"]) -> Any:
    """rows: whether the motion tokens' rows are trained."""
    torch.manual_seed(0)
    ids = tokenizer.convert_tokens_to_ids(motion_vocabulary(CODES)) if rows else []
    return with_adapter(network.load_model(folder, "nf4", compute), AdapterSettings(), ids)


def build_trees(
    encoder: PromptEncoder, trials: int, questions: int, tokens: int, rng: np.random.Generator
) -> list[PrefixTree]:
    """Trials whose answers follow from their movement: which of the codes are in it."""
    tasks = [
        task for task in load_tasks("configs/tasks").values() if isinstance(task, LabelTask) and task.labels
    ]
    trees = []
    for _ in range(trials):
        kind = int(rng.integers(2))
        length = int(rng.integers(tokens // 2, tokens * 3 // 2))
        movement = rng.integers(kind * CODES // 2, (kind + 1) * CODES // 2, size=length)
        asked = [tasks[i] for i in rng.integers(len(tasks), size=questions)]
        pairs = [(str(rng.choice(task.templates)), tuple(task.labels)[kind]) for task in asked]
        trees.append(encoder.build_tree([movement.tolist()], pairs, ROOM))
    return trees


def pairs_of(trees: list[PrefixTree]) -> list[PrefixTree]:
    return [PrefixTree(tree.prefix, [branch]) for tree in trees for branch in tree.branches]


def now() -> float:
    """Seconds, once the GPU has done what it was told."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), RATE, fused=True)


def ours(model: Any, trees: list[PrefixTree], batch: int) -> dict[str, Any]:
    """batch: pairs a step."""
    whole, optimizer = network.TreeModel(model).train(), optimizer_of(model)
    size = max(1, batch // len(trees[0].branches))
    seconds, inside, whole_s, tokens = [], 0.0, 0.0, 0
    for some in plan_batches([len(tree) for tree in trees], size, 1.0, seed=0):
        began = now()
        batched = {k: v.to(DEVICE) for k, v in batch_trees([trees[i] for i in some], 0, EVERYTHING).items()}
        entered = now()
        with torch.autocast(DEVICE, torch.bfloat16):
            total, count = whole(**batched)["language"]
        (total / count).backward()
        inside += now() - entered
        _update(model, optimizer)
        took = now() - began
        whole_s += took
        seconds.append(took / sum(len(trees[i].branches) for i in some))
        tokens += sum(len(trees[i]) for i in some)
    pairs = sum(len(tree.branches) for tree in trees)
    taken = statistics.median(seconds[2:]) * pairs
    return {
        "pairs_per_s": pairs / taken,
        "tokens_per_s": tokens / taken,
        "outside_model": 1 - inside / whole_s,
    }


def padded(model: Any, trees: list[PrefixTree], batch: int) -> dict[str, Any]:
    """As the peers do: shuffled pairs, padded to the longest, transformers' own loss."""
    model.train()
    optimizer, samples = optimizer_of(model), [_ids(pair) for pair in pairs_of(trees)]
    order = np.random.default_rng(0).permutation(len(samples))
    seconds = []
    for at in range(0, len(order), batch):
        began = now()
        some = [samples[i] for i in order[at : at + batch]]
        ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True).to(DEVICE)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in some], batch_first=True).to(
            DEVICE
        )
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = model(
                input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), use_cache=False
            ).loss
        loss.backward()
        _update(model, optimizer)
        seconds.append((now() - began) / len(some))
    return {"pairs_per_s": 1 / statistics.median(seconds[2:])}


def trl(
    model: Any, tokenizer: Any, trees: list[PrefixTree], batch: int, together: bool = False
) -> dict[str, Any]:
    """together: a step's rows are read at once."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    samples = [_ids(pair).tolist() for pair in pairs_of(trees)]
    order = np.random.default_rng(0).permutation(len(samples))
    dataset = Dataset.from_dict({"input_ids": [samples[i] for i in order]})
    rows = max(1, round(batch * statistics.mean(map(len, samples)) / ROOM))  # rows that hold a step's pairs
    began: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            began.append(now())

    with TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            packing=True,
            packing_strategy="bfd",
            max_length=ROOM,
            # Rows that are read together become one, of whose tokens each attends to more.
            per_device_train_batch_size=rows if together else 1,
            gradient_accumulation_steps=1 if together else rows,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            bf16=True,
            use_cpu=DEVICE == "cpu",
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            seed=0,
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        packed = len(trainer.train_dataset)
        trainer.train()
        began.append(now())
    steps = np.diff(began)
    a_step = len(samples) / packed * rows
    return {"pairs_per_s": a_step / float(np.median(steps[2:] if len(steps) > 4 else steps))}


def _update(model: Any, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _ids(pair: PrefixTree) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([pair.prefix, *pair.branches[0]]))


@torch.inference_mode()
def loss_of(model: Any, trees: list[PrefixTree]) -> float:
    """Nats a token over separate pairs."""
    whole = network.TreeModel(model).eval()
    batch = {k: v.to(DEVICE) for k, v in batch_trees(pairs_of(trees), 0, EVERYTHING).items()}
    total, count = whole(**batch)["language"]
    return float(total / count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, help="of Gemma; the stand-in's where not given")
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--questions", type=int, nargs="*", default=[1, 2, 4, 6, 8], help="of each trial")
    parser.add_argument("--tokens", type=int, default=130, help="motion tokens a trial, on average")
    parser.add_argument("--batch", type=int, default=24, help="question-answer pairs a step, about")
    parser.add_argument("--chart", help="where to draw the ratios against questions a trial")
    options = parser.parse_args()
    network.quiet()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    figures: dict[int, dict[str, Any]] = {}
    with TemporaryDirectory() as folder:
        tokenizer = start(folder, options.size)
        encoder = PromptEncoder(tokenizer)
        for questions in options.questions:
            rng = np.random.default_rng(questions)
            trials = max(options.trials, 5 * options.batch // questions)  # five steps or more
            trees = build_trees(encoder, trials, questions, options.tokens, rng)
            held_out = build_trees(encoder, 8, questions, options.tokens, rng)
            made, losses = {}, {}
            trls = {"trl": partial(trl, tokenizer=tokenizer)}
            if DEVICE == "cuda":
                trls["trl, rows together"] = partial(trl, tokenizer=tokenizer, together=True)
            for name, way in {"ours": ours, "padded": padded, **trls}.items():
                model = qlora(folder, tokenizer, name not in trls, "bf16" if options.size else "fp32")
                made[name] = way(model, trees=copy.deepcopy(trees), batch=options.batch)
                losses[name] = loss_of(model, held_out)
                del model
                gc.collect()
            best = max(trls, key=lambda name: made[name]["pairs_per_s"])
            figures[questions] = {
                "ratio_vs_trl": made["ours"]["pairs_per_s"] / made[best]["pairs_per_s"],
                "ratio_vs_padded": made["ours"]["pairs_per_s"] / made["padded"]["pairs_per_s"],
                "loss_gap": losses["ours"] - min(losses[name] for name in losses if name != "ours"),
                **made["ours"],
            }
            said = {name: round(value, 3) for name, value in figures[questions].items()}
            print(f"{questions} questions a trial: {said}, losses {losses}", flush=True)
    if options.chart:
        draw(options.chart, figures)
    told = figures[6 if 6 in figures else max(figures)]
    print(
        json.dumps(
            {
                "size": options.size or "stand-in",
                "pairs_per_s_ratio_vs_trl": round(told["ratio_vs_trl"], 2),
                "pairs_per_s_ratio_vs_padded": round(told["ratio_vs_padded"], 2),
                "loss_gap": round(told["loss_gap"], 4),
                "pairs_per_s": round(told["pairs_per_s"], 1),
                "tokens_per_s": round(told["tokens_per_s"]),
                "share_outside_model": round(told["outside_model"], 3),
                "ratios_vs_trl_by_questions": {q: round(f["ratio_vs_trl"], 2) for q, f in figures.items()},
            }
        )
    )


def draw(path: str, figures: dict[int, dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    for name, label in (("ratio_vs_trl", "TRL, packed"), ("ratio_vs_padded", "a padded loop")):
        axes.plot(list(figures), [made[name] for made in figures.values()], "o-", label=f"over {label}")
    axes.axhline(1, color="0.7", linewidth=1)
    axes.set(
        xlabel="questions a trial", ylabel="times as many pairs a second", title="Question trees", ylim=0
    )
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
