"""Answers to a cohort's questions through Ray Data: from a finished model, or from a new one to calibrate it."""

import logging
import pickle
import time
import zlib
from collections.abc import Mapping, Sequence
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
from biomechgpt.prompts.encoding import MotionTokens, Query, Relation
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import GenerationTask, Tasks
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer
from biomechgpt.tokenizer.tokens import RECONSTRUCTION_ERROR, Tokens

logger = logging.getLogger("biomechgpt")

VERSION = 10
CALIBRATION_VERSION = 3

_TOKENS_BESIDE_WORDS = 5
"""Tokens of a question that are not its words: turn markers, and words of more than one token. A rough figure."""

_REPORT_EVERY_S = 10
"""Seconds between two reports of progress."""


class _AnswerBatch:
    """Ray Data's actor: loads the model once and answers blocks of requests (see `build_requests`)."""

    def __init__(self, model: bytes, method: str, threads: int) -> None:
        torch.set_num_threads(threads)
        network.quiet()
        self.method = method
        self.answerer = Answerer(pickle.loads(zlib.decompress(model)))

    def __call__(self, block: pa.Table) -> pa.Table:
        """A row with the answer for each question of each request."""
        requests = block.to_pylist()
        queries = [query for request in requests for query in _queries(request)]
        if self.method == "weigh":
            answers = [asdict(answer) for answer in self.answerer.answer(queries)]
        else:
            answers = [{"text": text} for text in self.answerer.generate(queries)]
        numbers = [number for request in requests for number in request["number"]]
        schema = pa.schema([("number", pa.int64()), *arrow_schema(Answer)])
        return pa.Table.from_pylist(
            [{"number": number, **answer} for number, answer in zip(numbers, answers, strict=True)], schema
        )


def _queries(request: dict[str, Any]) -> list[Query]:
    """The queries of one request."""
    motions = [MotionTokens(request["tokens"], request["mirrored"])]
    relation: Relation = "single"
    if request["other"]:
        motions.append(MotionTokens(request["other"], request["other_mirrored"]))
        relation = "compare"
    return [
        Query(motions, relation, task, question)
        for task, question in zip(request["task"], request["question"], strict=True)
    ]


def make_answers(
    model: Artifact, questions: Artifact, tokens: Artifact, settings: BatchAnswerSettings, root: str
) -> Artifact:
    """The answers artifact: `answers.parquet`, a row for each question of the settings' splits.

    Raises InputError for tokens of another tokenizer than the model's.
    """
    require_same_tokenizer(model, tokens)

    def build(uri: str) -> dict[str, Any]:
        answers = answer_all(ModelBundle(model.uri).parts, questions, tokens, settings)
        content = answers.to_parquet(None, index=False)
        assert isinstance(content, bytes)
        storage.write_bytes(storage.join(uri, "answers.parquet"), content)
        parsed = answers["label_predicted"].notna() | answers["value_predicted"].notna()
        parsed |= answers["kind"] == "description"
        return {"answers": len(answers), "parsed": round(float(parsed.mean()), 4)}

    # How answers are scored belongs to the model. These settings decide which questions are asked, and how.
    identity = {"splits": settings.splits, "method": settings.method}
    inputs = {"model": model, "questions": questions, "tokens": tokens}
    return artifact.make("answers", VERSION, identity, inputs, build, root)


def make_calibration(
    adapter: Artifact, questions: Artifact, tokens: Artifact, settings: AnswerSettings, root: str
) -> Artifact:
    """The calibration artifact: `calibration.json`, fitted on the uncalibrated answers to validation participants.

    The calibration is empty if a cohort has no validation participants. The artifact's metrics are {task:
    temperature, or amount that intervals are widened by}.
    Raises InputError for tokens of another tokenizer, and for tokens without mirror images with `mirrored`.
    """
    require_same_tokenizer(adapter.input("tokens"), tokens)

    def build(uri: str) -> dict[str, Any]:
        fitted = Calibration()
        if settings.mirrored:
            Tokens(tokens).mirrored([])
        if "validation" in read_questions(questions)["split"]:
            validation = BatchAnswerSettings(
                splits=["validation"], batch_size=settings.batch_size, workers=settings.workers
            )
            parts = uncalibrated(adapter.input("base"), adapter, questions, settings.scoring)
            fitted = fit(answer_all(parts, questions, tokens, validation))
        storage.write_json(storage.join(uri, CALIBRATION), fitted.model_dump(mode="json"))
        return {
            name: round(task.temperature if task.interval_offset is None else task.interval_offset, 3)
            for name, task in fitted.tasks.items()
        }

    inputs = {"adapter": adapter, "questions": questions, "tokens": tokens}
    return artifact.make("calibration", CALIBRATION_VERSION, settings.scoring, inputs, build, root)


def answer_all(
    model: ModelParts, questions: Artifact, tokens: Artifact, settings: BatchAnswerSettings
) -> pd.DataFrame:
    """The answers table of a model that is asked a cohort's questions of the settings' splits, through Ray Data.

    Raises InputError if there are no questions, and for tokens without mirror images if the model reads them.
    """
    cluster.connect()
    tasks, scoring = read_tasks(questions.uri), model.info.scoring
    asked = _select_questions(questions, tasks, settings.splits)
    columns = ["trial", "tokens", RECONSTRUCTION_ERROR]
    trials = Tokens(tokens).table().select(columns).to_pandas().set_index("trial")
    mirrored = Tokens(tokens).mirrored(settings.splits) if scoring.mirrored else {}
    requests = build_requests(asked, trials["tokens"], mirrored, scoring.templates)
    answers = run_actor_pool(model, requests, settings)
    return to_table(asked, answers, tasks, trials[RECONSTRUCTION_ERROR])


def _select_questions(questions: Artifact, tasks: Tasks, splits: Sequence[str]) -> pd.DataFrame:
    """The questions of these splits, numbered."""
    asked = read_questions(questions).to_pandas()
    # Whether a generated movement is the one that was asked for is judged in `evaluation.generation`.
    generated = [name for name, task in tasks.items() if isinstance(task, GenerationTask)]
    asked = asked[asked["split"].isin(splits) & ~asked["task"].isin(generated)]
    if asked.empty:
        raise InputError(f"{questions.uri}: no questions in splits {splits}")
    return asked.assign(number=np.arange(len(asked)))


def build_requests(
    asked: pd.DataFrame, tokens: "pd.Series", mirrored: Mapping[str, Any], templates: int
) -> pd.DataFrame:
    """A row for each movement or pair of movements, with all that is asked about it; rows of like length in a row.

    asked: questions with the columns trial, other, task, question and number.
    tokens: motion tokens of each trial.
    mirrored: {trial: motion tokens of its mirror image}; empty: not used.
    templates: number of templates that each question is asked in.
    Columns: tokens, mirrored, other and other_mirrored (motion tokens or None); task, question, number (lists).
    """
    by_motion = asked.groupby(["trial", "other"], sort=False, dropna=False)
    requests = by_motion[["task", "question", "number"]].agg(list).reset_index()
    others = [None if pd.isna(trial) else trial for trial in requests["other"]]
    requests = requests.assign(
        tokens=requests["trial"].map(tokens),
        mirrored=[mirrored.get(trial) for trial in requests["trial"]],
        other=[tokens[trial] if trial else None for trial in others],
        other_mirrored=[mirrored.get(trial) if trial else None for trial in others],
    )
    # A batch holds rows of similar length, the questions included, so that little of it is padding.
    n_words = requests["question"].map(
        lambda texts: sum(_TOKENS_BESIDE_WORDS + text.count(" ") for text in texts)
    )
    length = requests["tokens"].str.len() + templates * n_words
    return requests.iloc[np.argsort(length, kind="stable")]


def run_actor_pool(model: ModelParts, requests: pd.DataFrame, settings: BatchAnswerSettings) -> pd.DataFrame:
    """The answers to requests: columns `number` and those of `Answer`, in any order."""
    # Ray puts large constructor arguments into its object store, where a restarted actor may not find them.
    packed = zlib.compress(pickle.dumps(model))
    gpu: dict[str, Any] = {"num_gpus": 1} if ray.cluster_resources().get("GPU", 0) else {}
    blocks = (
        ray.data.from_arrow(pa.Table.from_pandas(requests, preserve_index=False))
        .repartition(-(-len(requests) // settings.batch_size))
        .map_batches(
            _AnswerBatch,
            fn_constructor_args=(packed, settings.method, cluster.cpus_for(settings.workers)),
            batch_size=settings.batch_size,
            batch_format="pyarrow",
            # At least half a core is left, so that the operators that feed the actors are always scheduled.
            num_cpus=min(1.0, max(cluster.cpus() - 1, 0.5) / settings.workers),
            compute=ray.data.ActorPoolStrategy(size=settings.workers),
            **gpu,
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
    answers: list[pa.Table] = []
    n_questions, last_report = int(requests["number"].str.len().sum()), time.time()
    for block in blocks:
        answers.append(block)
        if time.time() - last_report > _REPORT_EVERY_S:
            last_report = time.time()
            logger.info("answers: %d of %d questions", sum(map(len, answers)), n_questions)
    return pa.concat_tables(answers).to_pandas()


def to_table(
    asked: pd.DataFrame, answers: pd.DataFrame, tasks: Tasks, reconstruction_error: "pd.Series"
) -> pd.DataFrame:
    """The answers table: each question with its answer, and the reconstruction error of its movement."""
    answered = asked.merge(answers, on="number").drop(columns="number")
    answered = answered.rename(columns={"text": "answer_text"})
    rmse_deg = answered["trial"].map(reconstruction_error).astype(float)
    return with_parsed(answered, tasks).assign(rmse_deg=rmse_deg)


def with_parsed(answered: pd.DataFrame, tasks: Tasks) -> pd.DataFrame:
    """The answers table of question rows that have `answer_text`: each text with the label or number in it."""
    parsed = [tasks[t].parse(a) for t, a in zip(answered["task"], answered["answer_text"], strict=True)]
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
            "label_predicted": pd.Series([p if isinstance(p, str) else None for p in parsed], dtype="object"),
            "value_true": answered["value"].astype(float),
            "value_predicted": [p if isinstance(p, float) else np.nan for p in parsed],
            "source": "model",
            **{name: answered[name] for name in ANSWER_COLUMNS if name in answered},
        }
    )


def read_answers(answers: Artifact) -> pd.DataFrame:
    """The table of an answers artifact."""
    return pd.read_parquet(storage.local_copy(answers.path("answers.parquet")))
