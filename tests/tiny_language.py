"""Tiny language models, trained in this process, and the artifacts they are made from.

The fixtures are in language_fixtures.py.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.batch import make_calibration
from biomechgpt.answering.bundle import ModelBundle, make_model
from biomechgpt.answering.settings import AnswerSettings, ScoringSettings
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import plain
from biomechgpt.language import finetune, network, tiny_model
from biomechgpt.language.families import FAMILIES
from biomechgpt.language.pretrain import check, make_base
from biomechgpt.language.settings import BaseSettings, FinetuneSettings, TinyModelSettings
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.dataset import QuestionsSettings, make_questions
from biomechgpt.questions.tasks import load_tasks
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import MotionVQVAE
from biomechgpt.tokenizer.settings import LossSettings, NetworkSettings
from biomechgpt.tokenizer.tokens import TokensInfo
from conftest import ROOT

CONFIGS = ROOT / "configs"
TASKS = load_tasks(CONFIGS / "tasks")
CODES = 32
WINDOW = 16
# Six layers: in Gemma's pattern five look through the window and one sees everything.
SIZE = TinyModelSettings(
    vocabulary=320, hidden_size=64, intermediate_size=64, layers=6, heads=2, key_value_heads=1, head_dim=32,
    sliding_window=WINDOW,
)  # fmt: skip
PAIRS = [
    ("What is the walking speed?", "1.25 m/s"),
    ("Which assistive device is being used?", "cane"),
    ("Is this person's movement impaired?", "unimpaired"),
]


def codebook_of_groups():
    """Codes of very unlike distances: eight groups, each of its own size."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(8, 24)) * rng.uniform(0.5, 4, size=(8, 1))
    return (np.repeat(groups, CODES // 8, axis=0) + 0.1 * rng.normal(size=(CODES, 24))).astype(np.float32)


def text_tokenizer(family="gemma3"):
    texts = [text for task in TASKS.values() for text in task.templates]
    return tiny_model.train_text_tokenizer(texts, 320, FAMILIES[family])


def new_text_model(tokenizer, family="gemma3"):
    torch.manual_seed(0)
    return tiny_model.new_model(tokenizer, SIZE, FAMILIES[family])


def new_image_model(tokenizer):
    """The form of gemma-3-4b-it: the same language model beside a vision tower."""
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Gemma3Config(
        text_config=tiny_model.new_model(tokenizer, SIZE).config,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=3,
        eos_token_id=[1, 5],
    )
    return Gemma3ForConditionalGeneration(config)


FORMS = {
    "text": (new_text_model, Gemma3ForCausalLM),
    "image": (new_image_model, Gemma3ForConditionalGeneration),
}


def relative(a, b):
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return ((a - b).norm() / b.norm()).item()


def made(kind, root, build, inputs=None):
    """An artifact with what `build` writes into its folder."""
    return artifact.make(kind, 1, {}, inputs or {}, build, str(root), provenance="synthetic")


def artifacts_of(codebook, root, sizes=(CODES,), layout="flat"):
    """Artifacts of 12 trials: {questions, tokens, tokenizer}.

    sizes: how many codes each token of a step chooses from, equally many for each.
    """
    rng = np.random.default_rng(2)
    trials = [
        {
            "trial": f"t{n:02}", "participant": f"p{n // 2}", "split": "test" if n > 9 else "train",
            "tokens": (
                rng.integers(CODES, size=int(rng.integers(8, 40)))
                if len(sizes) == 1
                else rng.integers(sizes[0], size=(int(rng.integers(8, 20)), len(sizes)))
                + np.cumsum([0, *sizes[:-1]])
            ).flatten().tolist(),
            "activity": ["sitting", "FGA: gait with vertical head turns"][n % 2],
            "impaired": ["yes", "no"][n // 2 % 2],
            "walking_speed": round(rng.uniform(0.3, 2), 2),
            "rmse_deg": 3.0,
        }
        for n in range(12)
    ]  # fmt: skip

    columns = {"activity": "text", "impaired": "text", "walking_speed": "number"}

    def write_cohort(uri):
        Path(uri, "trials").mkdir(parents=True)
        rows = pa.Table.from_pylist(trials).drop_columns(["tokens", "rmse_deg"])
        pq.write_table(rows, f"{uri}/trials/0.parquet")
        storage.write_json(
            f"{uri}/cohort.json",
            {
                "annotations": columns, "frame_rate_hz": 30.0, "participants": {"train": 5, "test": 1},
                "trials": len(trials), "hours": 0.1, "quarantined": [],
            },
        )  # fmt: skip
        return {}

    def write_tokens(uri):
        Path(uri, "tokens").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(trials), f"{uri}/tokens/0.parquet")
        info = TokensInfo(
            tokenizer="test", codebook_size=CODES, tokens_per_step=len(sizes), tokens_per_s=7.5, layout=layout
        )
        storage.write_json(f"{uri}/tokens.json", info.model_dump())
        return {}

    def write_tokenizer(uri):
        quantizer = {"kind": "ema" if len(sizes) == 1 else "residual", "codebook_size": sizes[0]}
        settings = NetworkSettings(quantizer=quantizer, code_dim=codebook.shape[1], width=8)
        vqvae = MotionVQVAE(settings, LossSettings())
        books = [vqvae.quantizer] if len(sizes) == 1 else vqvae.quantizer.books
        for book, rows in zip(books, np.split(codebook, len(sizes)), strict=True):
            book.codebook.copy_(torch.from_numpy(rows))
        MotionTokenizer(vqvae, 30.0).save(uri)
        return {}

    tokenizer = made("tokenizer", root, write_tokenizer)
    tokens = made("tokens", root, write_tokens, {"tokenizer": tokenizer})
    cohort = made("cohort", root, write_cohort)
    questions = make_questions(cohort, QuestionsSettings(tasks=str(CONFIGS / "tasks")), str(root))
    return {"questions": questions, "tokens": tokens, "tokenizer": tokenizer}


def base_of(model, tokenizer, folder, artifacts):
    """The base artifact of a checkpoint: what the setting `name: FOLDER` leads to."""
    tiny_model.save(model, tokenizer, folder)
    # As on the hub.
    generation = {"do_sample": True, "top_k": 64, "top_p": 0.95, "cache_implementation": "hybrid",
                  "bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0}  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(generation))
    settings = BaseSettings(name=str(folder), compute_dtype="fp32")
    check(settings)
    root, inputs = artifacts
    return make_base(**inputs, settings=settings, root=str(root))


def settings_of(**values):
    return FinetuneSettings(
        compute_dtype="fp32", batch_size=8, epochs=2, adapter={"rank": 4, "alpha": 8, "dropout": 0}, **values
    )


def training_task_of(base, artifacts, **values):
    inputs = {
        "base": base.uri,
        "questions": artifacts[1]["questions"].uri,
        "tokens": artifacts[1]["tokens"].uri,
    }
    return finetune._Finetuning(**inputs, settings=plain(settings_of(**values)))


LAST = {}


def on_device(batch):
    return {name: value.to(network.device()) for name, value in batch.items()}


def fit_here(training_task, arguments, settings, uri, name):
    """`training.fit` in this process; keeps the trained model in LAST."""
    it = training_task(**arguments)
    it.uri = uri
    torch.manual_seed(0)
    model = it.build_model().to(network.device()).train()
    LAST["frozen"] = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.002, weight_decay=0
    )
    for samples in it.batches():
        total, count = model(**on_device(it.collate(samples)))["language"]
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    assert torch.isfinite(total)
    LAST["model"] = model.eval()
    return it.export(model)


def model_of(base, artifacts, settings):
    """The model artifact of a base, fine-tuned in this process and calibrated on nobody."""
    root, inputs = str(artifacts[0]), {name: artifacts[1][name] for name in ("questions", "tokens")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "fit", fit_here)
        adapter = finetune.make_adapter(base, **inputs, settings=settings, root=root)
    calibration = make_calibration(adapter, **inputs, settings=AnswerSettings(), tasks=TASKS, root=root)
    return make_model(base, adapter, artifacts[1]["tokenizer"], calibration, TASKS, root)


def about(tokens, task, question, history=()):
    """A query about one movement: its motion tokens, or `MotionTokens`."""
    motion = tokens if isinstance(tokens, MotionTokens) else MotionTokens(tokens)
    return Query([motion], "single", task, question, list(history))


def answerer_of(model, tasks=None, calibration=None, **scoring):
    """An answerer of a model artifact with other tasks, another calibration or other scoring settings."""
    parts = ModelBundle(model.uri).parts
    info = parts.info.model_copy(update={"scoring": ScoringSettings(**scoring)})
    given = {"tasks": tasks, "calibration": calibration}
    return Answerer(replace(parts, info=info, **{k: v for k, v in given.items() if v is not None}))
