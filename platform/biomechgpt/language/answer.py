"""Answers: a bundle asked questions about movements, one batch at a time or a whole cohort through Ray Data."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch
from peft import PeftModel
from pydantic import Field

from biomechgpt import artifact, cluster, storage
from biomechgpt.artifact import Artifact
from biomechgpt.dialogue.chat import Encoder, answer_text, question_text
from biomechgpt.dialogue.questions import read_questions, read_tasks
from biomechgpt.language import model as network
from biomechgpt.settings import InputError, Settings
from biomechgpt.tokenizer import read_tokens, require_same_tokenizer

VERSION = 1


class AnswerSettings(Settings):
    """splits: whose questions are asked; batch_size: prompts generated together."""

    splits: list[str] = Field(default_factory=lambda: ["test"])
    batch_size: int = Field(64, ge=1)
    workers: int = Field(1, ge=1, exclude=True)


class Answerer:
    """A loaded bundle. Answers by greedy generation; the same prompt always gets the same answer."""

    def __init__(self, uri: str) -> None:
        folder = storage.local_copy(uri)
        self.bundle = storage.read_json(str(folder / "bundle.json"))
        self.tasks = read_tasks(str(folder))
        self.tokenizer = network.load_tokenizer(folder / "adapter")
        base = network.load_model(folder / "base", self.bundle["quantization"], self.bundle["compute"])
        self.model = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
        self.encoder = Encoder(self.tokenizer)
        self.stop = self.tokenizer.convert_tokens_to_ids("<end_of_turn>")
        longest = [
            task.answer(label) for task in self.tasks.values() for label in (task.labels or [])
        ]  # numbers and open labels are short phrases
        self.max_new_tokens = max(
            [
                16,
                self.bundle["longest_answer"],
                *(len(self.encoder.text(answer_text(text))) for text in longest),
            ]
        )

    @property
    def longest_movement(self) -> int:
        """Motion tokens of a movement that is read whole, whichever task is asked about it."""
        asked = max(
            len(self.encoder.text(question_text(p))) for t in self.tasks.values() for p in t.phrasings
        )
        return self.bundle["max_length"] - asked - self.max_new_tokens - len(self.encoder.prefix([]))

    @torch.inference_mode()
    def generate(self, movements: Sequence[Sequence[int]], questions: Sequence[str]) -> list[str]:
        """One answer a question, about the movement (motion tokens) beside it.

        A movement longer than fine-tuning ever saw loses its end, as it would have there.
        """
        prompts = []
        for tokens, question in zip(movements, questions, strict=True):
            asked = self.encoder.text(question_text(question))
            room = self.bundle["max_length"] - len(asked) - self.max_new_tokens
            prompts.append(np.concatenate([self.encoder.fit(self.encoder.prefix(tokens), room), asked]))
        length = max(len(p) for p in prompts)
        ids = np.full((len(prompts), length), self.tokenizer.pad_token_id, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = prompt
        batch = torch.from_numpy(ids).to(self.model.device)
        made = self.model.generate(
            input_ids=batch,
            attention_mask=(batch != self.tokenizer.pad_token_id).long(),
            do_sample=False,
            top_k=None,
            top_p=None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.stop,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return self.tokenizer.batch_decode(made[:, length:], skip_special_tokens=True)


class _AnswerBatch:
    """Ray Data's actor: loads the bundle once and answers blocks of questions."""

    def __init__(self, uri: str, threads: int) -> None:
        torch.set_num_threads(threads)
        network.quiet()
        self.answerer = Answerer(uri)

    def __call__(self, block: pa.Table) -> pa.Table:
        answers = self.answerer.generate(block["tokens"].to_pylist(), block["question"].to_pylist())
        return block.drop_columns(["tokens"]).append_column("answer_text", pa.array(answers, pa.string()))


def make_answers(
    model: Artifact, questions: Artifact, tokens: Artifact, settings: AnswerSettings, root: str
) -> Artifact:
    """The answers artifact: `answers.parquet`, a row a question asked of the settings' splits.

    Raises InputError for tokens of another tokenizer than the model's.
    """
    require_same_tokenizer(model, tokens)

    def build(uri: str) -> dict[str, Any]:
        cluster.connect()
        asked = read_questions(questions).to_pandas()
        asked = asked[asked["split"].isin(settings.splits)]
        if asked.empty:
            raise InputError(f"{questions.uri}: no questions in splits {settings.splits}")
        movements = read_tokens(tokens).select(["trial", "tokens"]).to_pandas()
        asked = asked.merge(movements, on="trial", how="left")
        # Prompts of alike length together: little is padding.
        asked = asked.iloc[np.argsort(asked["tokens"].str.len(), kind="stable")]
        gpu: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}
        answering = (
            ray.data.from_arrow(pa.Table.from_pandas(asked, preserve_index=False))
            .repartition(-(-len(asked) // settings.batch_size))
            .map_batches(
                _AnswerBatch,
                fn_constructor_args=(model.uri, cluster.cpus_for(settings.workers)),
                batch_size=settings.batch_size,
                batch_format="pyarrow",
                # One core is asked for, so that what feeds the actors always finds room.
                num_cpus=1,
                compute=ray.data.ActorPoolStrategy(size=settings.workers),
                **gpu,
            )
            .iter_batches(batch_size=None, batch_format="pandas")
        )
        parts: list[pd.DataFrame] = []
        said = time.time()
        for part in answering:
            parts.append(part)
            if time.time() - said > 10:
                said = time.time()
                print(f"answers: {sum(map(len, parts))} of {len(asked)} questions", flush=True)
        answered = pd.concat(parts, ignore_index=True)
        tasks = read_tasks(questions.uri)
        answers = with_parsed(answered, tasks)
        local = answers.to_parquet(None, index=False)
        assert isinstance(local, bytes)
        storage.write_bytes(storage.join(uri, "answers.parquet"), local)
        parsed = answers["label_predicted"].notna() | answers["value_predicted"].notna()
        return {"answers": len(answers), "parsed": round(float(parsed.mean()), 4)}

    inputs = {"model": model, "questions": questions, "tokens": tokens}
    return artifact.make("answers", VERSION, settings, inputs, build, root)


def with_parsed(answered: pd.DataFrame, tasks: Any) -> pd.DataFrame:
    """Answers with what they state: question rows plus `answer_text` -> the answers table."""
    stated = [tasks[t].parse(a) for t, a in zip(answered["task"], answered["answer_text"], strict=True)]
    return pd.DataFrame(
        {
            "trial": answered["trial"],
            "participant": answered["participant"],
            "split": answered["split"],
            "task": answered["task"],
            "kind": [tasks[t].kind for t in answered["task"]],
            "question": answered["question"],
            "answer_true": answered["answer"],
            "answer_text": answered["answer_text"],
            "label_true": answered["label"],
            "label_predicted": pd.Series([s if isinstance(s, str) else None for s in stated], dtype="object"),
            "value_true": answered["value"].astype(float),
            "value_predicted": [s if isinstance(s, float) else np.nan for s in stated],
            "source": "model",
        }
    )


def read_answers(answers: Artifact) -> pd.DataFrame:
    return pd.read_parquet(storage.local_copy(answers.path("answers.parquet")))
