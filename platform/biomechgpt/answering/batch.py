"""Answers to a cohort's questions through Ray Data: of a finished model, and of a new one to calibrate it."""

import pickle
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch

from biomechgpt.answering.answer import ANSWER_COLUMNS, Answer, arrow_schema
from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import CALIBRATION, ModelBundle, ModelParts, uncalibrated
from biomechgpt.answering.calibration import Calibration, fit
from biomechgpt.answering.settings import AnswerSettings, BatchAnswerSettings
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.language import network
from biomechgpt.prompts.encoding import Mirrored, Motion, Movement
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import GenerationTask
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer
from biomechgpt.tokenizer.tokens import RECONSTRUCTION_ERROR, Tokens

VERSION = 10
CALIBRATION_VERSION = 2

_SPOKEN = 5
"""About how many tokens of a question are not its words."""


class _AnswerBatch:
    """Ray Data's actor: loads the model once and answers blocks of trials with their questions."""

    def __init__(self, model: bytes, method: str, threads: int) -> None:
        torch.set_num_threads(threads)
        network.quiet()
        self.method = method
        self.answerer = Answerer(pickle.loads(zlib.decompress(model)))

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = block.to_pylist()
        motions: list[Motion] = []
        for row in rows:
            movement = _movement(row["tokens"], row["image"])
            motions.append(
                [movement, _movement(row["other"], row["other_image"])] if row["other"] else movement
            )
        asked_of = [motion for motion, row in zip(motions, rows, strict=True) for _ in row["task"]]
        questions = [question for row in rows for question in row["question"]]
        if self.method == "weigh":
            tasks = [task for row in rows for task in row["task"]]
            made = self.answerer.answer(list(zip(asked_of, tasks, questions, strict=True)))
            answers = [asdict(answer) for answer in made]
        else:
            answers = [{"text": text} for text in self.answerer.generate(asked_of, questions)]
        asked = [number for row in rows for number in row["number"]]
        schema = pa.schema([("number", pa.int64()), *arrow_schema(Answer)])
        return pa.Table.from_pylist(
            [{"number": number, **answer} for number, answer in zip(asked, answers, strict=True)], schema
        )


def _movement(tokens: Sequence[int], image: Sequence[int] | None) -> Movement:
    return tokens if image is None else Mirrored(tokens, image)


def make_answers(
    model: Artifact, questions: Artifact, tokens: Artifact, settings: BatchAnswerSettings, root: str
) -> Artifact:
    """The answers artifact: `answers.parquet`, a row a question asked of the settings' splits.

    Raises InputError for tokens of another tokenizer than the model's.
    """
    require_same_tokenizer(model, tokens)

    def build(uri: str) -> dict[str, Any]:
        answers = answer_all(ModelBundle(model.uri).parts, questions, tokens, settings)
        local = answers.to_parquet(None, index=False)
        assert isinstance(local, bytes)
        storage.write_bytes(storage.join(uri, "answers.parquet"), local)
        parsed = answers["label_predicted"].notna() | answers["value_predicted"].notna()
        parsed |= answers["kind"] == "description"
        return {"answers": len(answers), "parsed": round(float(parsed.mean()), 4)}

    # How answers are scored is the model's: only which questions are asked, and how, is decided here.
    content = {"splits": settings.splits, "method": settings.method}
    inputs = {"model": model, "questions": questions, "tokens": tokens}
    return artifact.make("answers", VERSION, content, inputs, build, root)


def make_calibration(
    adapter: Artifact, questions: Artifact, tokens: Artifact, settings: AnswerSettings, root: str
) -> Artifact:
    """The calibration artifact: `calibration.json`, fitted on the uncalibrated answers to validation participants.

    The calibration is empty where a cohort has no validation participants. The artifact's figures are
    {task: temperature, or amount that intervals are widened by}.
    Raises InputError for tokens of another tokenizer, and for tokens without mirror images with `mirrored`.
    """
    require_same_tokenizer(adapter.input("tokens"), tokens)

    def build(uri: str) -> dict[str, Any]:
        fitted = Calibration()
        if settings.mirrored:
            Tokens(tokens).mirrored([])
        if "validation" in read_questions(questions)["split"]:
            asked = BatchAnswerSettings(
                splits=["validation"], batch_size=settings.batch_size, workers=settings.workers
            )
            parts = uncalibrated(adapter.input("base"), adapter, questions, settings.scoring)
            fitted = fit(answer_all(parts, questions, tokens, asked))
        storage.write_json(storage.join(uri, CALIBRATION), fitted.model_dump(mode="json"))
        return {
            task: round(
                of_task.temperature if of_task.interval_offset is None else of_task.interval_offset, 3
            )
            for task, of_task in fitted.tasks.items()
        }

    inputs = {"adapter": adapter, "questions": questions, "tokens": tokens}
    return artifact.make("calibration", CALIBRATION_VERSION, settings.scoring, inputs, build, root)


def answer_all(
    model: ModelParts, questions: Artifact, tokens: Artifact, settings: BatchAnswerSettings
) -> pd.DataFrame:
    """The answers table of a model asked a cohort's questions of the settings' splits, through Ray Data.

    InputError where there are no questions, or tokens without mirror images for a model that reads them.
    """
    cluster.connect()
    tasks = read_tasks(questions.uri)
    asked = read_questions(questions).to_pandas()
    # Whether a movement is what was asked for is judged elsewhere.
    made = [name for name, task in tasks.items() if isinstance(task, GenerationTask)]
    asked = asked[asked["split"].isin(settings.splits) & ~asked["task"].isin(made)]
    if asked.empty:
        raise InputError(f"{questions.uri}: no questions in splits {settings.splits}")
    asked = asked.assign(number=np.arange(len(asked)))
    by_motion = asked.groupby(["trial", "other"], sort=False, dropna=False)
    together = by_motion[["task", "question", "number"]].agg(list).reset_index()
    trials = (
        Tokens(tokens)
        .table()
        .select(["trial", "tokens", RECONSTRUCTION_ERROR])
        .to_pandas()
        .set_index("trial")
    )
    movements, errors = trials["tokens"], trials[RECONSTRUCTION_ERROR]
    scoring = model.info.scoring
    images = Tokens(tokens).mirrored(settings.splits) if scoring.mirrored else {}
    others = [None if pd.isna(trial) else trial for trial in together["other"]]
    together = together.assign(
        tokens=together["trial"].map(movements),
        image=[images.get(trial) for trial in together["trial"]],
        other=[movements[trial] if trial else None for trial in others],
        other_image=[images.get(trial) if trial else None for trial in others],
    )
    # Movements that are of alike length with what is asked of them together: little is padding.
    asked_words = together["question"].map(lambda questions: sum(_SPOKEN + q.count(" ") for q in questions))
    length = together["tokens"].str.len() + scoring.templates * asked_words
    together = together.iloc[np.argsort(length, kind="stable")]
    # Ray puts large constructor arguments into its object store, where a restarted actor may not find them.
    packed = zlib.compress(pickle.dumps(model))
    gpu: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}
    answering = (
        ray.data.from_arrow(pa.Table.from_pandas(together, preserve_index=False))
        .repartition(-(-len(together) // settings.batch_size))
        .map_batches(
            _AnswerBatch,
            fn_constructor_args=(packed, settings.method, cluster.cpus_for(settings.workers)),
            batch_size=settings.batch_size,
            batch_format="pyarrow",
            # Half a core at least is left, so that what feeds the actors always finds room.
            num_cpus=min(1.0, max(cluster.cpus() - 1, 0.5) / settings.workers),
            compute=ray.data.ActorPoolStrategy(size=settings.workers),
            **gpu,
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
    parts: list[pa.Table] = []
    said = time.time()
    for part in answering:
        parts.append(part)
        if time.time() - said > 10:
            said = time.time()
            print(f"answers: {sum(map(len, parts))} of {len(asked)} questions", flush=True)
    answered = asked.merge(pa.concat_tables(parts).to_pandas(), on="number").drop(columns="number")
    answered = answered.rename(columns={"text": "answer_text"})
    return with_parsed(answered, tasks).assign(rmse_deg=answered["trial"].map(errors).astype(float))


def with_parsed(answered: pd.DataFrame, tasks: Any) -> pd.DataFrame:
    """Answers with what they state: question rows plus `answer_text` -> the answers table."""
    stated = [tasks[t].parse(a) for t, a in zip(answered["task"], answered["answer_text"], strict=True)]
    return pd.DataFrame(
        {
            "trial": answered["trial"],
            "other": answered["other"],
            "participant": answered["participant"],
            "split": answered["split"],
            "task": answered["task"],
            "kind": [tasks[t].answer_kind for t in answered["task"]],
            "question": answered["question"],
            "answer_true": answered["answer"],
            "answer_text": answered["answer_text"],
            "label_true": answered["label"],
            "label_predicted": pd.Series([s if isinstance(s, str) else None for s in stated], dtype="object"),
            "value_true": answered["value"].astype(float),
            "value_predicted": [s if isinstance(s, float) else np.nan for s in stated],
            "source": "model",
            **{name: answered[name] for name in ANSWER_COLUMNS if name in answered},
        }
    )


def read_answers(answers: Artifact) -> pd.DataFrame:
    return pd.read_parquet(storage.local_copy(answers.path("answers.parquet")))
