"""Answers to a cohort's questions, here or through Ray Data: a finished model's, or a new one's to calibrate it."""

import logging
import pickle
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import torch

from biomechgpt.answering.answer import ANSWER_COLUMNS, Answer, arrow_schema
from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import (
    CALIBRATION,
    REFERENCE,
    ModelBundle,
    ModelParts,
    trained_tasks,
    uncalibrated,
    write_reference,
)
from biomechgpt.answering.calibration import (
    Calibration,
    apply_temperature,
    fit,
    fit_min_applies,
)
from biomechgpt.answering.gates import condition_tasks, conditions_of, gate
from biomechgpt.answering.ood import (
    CheckedMovements,
    OodCheck,
    ReferenceMovements,
    fit_ood,
    leave_one_out_distances,
)
from biomechgpt.answering.settings import AnswerSettings, BatchAnswerSettings
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.language import network
from biomechgpt.motion.features import N_FEATURES
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.prompts.encoding import MotionTokens, Query, Relation
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import AnnotatedTask, ClassificationTask, GenerationTask, Tasks
from biomechgpt.tokenizer.motion_tokenizer import require_same_tokenizer
from biomechgpt.tokenizer.tokens import RECONSTRUCTION_ERROR, Tokens

logger = logging.getLogger("biomechgpt")

VERSION = 12
CALIBRATION_VERSION = 8

_TOKENS_BESIDE_WORDS = 5
"""Tokens of a question that are not its words: turn markers, and words of more than one token. A rough figure."""

_TRIAL = ["trial", "participant", "split"]

_SAMPLE = 200
"""Training trials whose log-likelihood gives its scale."""

_REPORT_EVERY_S = 10
"""Seconds between two reports of progress."""


class _AnswerBatch:
    """Loads the model once and answers blocks of requests (see `build_requests`), here or as an actor of Ray Data.

    model: the model, or its compressed pickle.
    """

    def __init__(self, model: ModelParts | bytes, method: str, threads: int) -> None:
        torch.set_num_threads(threads)
        network.quiet()
        self.method = method
        parts = pickle.loads(zlib.decompress(model)) if isinstance(model, bytes) else model  # noqa: S301 by the driver
        self.answerer = Answerer(parts)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A row with the answer for each question of each request."""
        requests = block.to_pylist()
        queries = [query for request in requests for query in _queries(request)]
        if self.method == "weigh":
            only_status = [not applies for request in requests for applies in request["applies"]]
            scored = self.answerer.answer(queries, only_status)
            answers = [asdict(answer) for answer in scored]
        else:
            answers = [{"text": text} for text in self.answerer.generate(queries)]
        numbers = [number for request in requests for number in request["number"]]
        schema = pa.schema([("number", pa.int64()), *arrow_schema(Answer)])
        return pa.Table.from_pylist(
            [{"number": number, **answer} for number, answer in zip(numbers, answers, strict=True)], schema
        )


def _queries(request: dict[str, Any]) -> list[Query]:
    """The queries of one request."""
    motions = [_motion(request, "")]
    relation: Relation = "single"
    if request["other_tokens"]:
        motions.append(_motion(request, "other_"))
        relation = "compare"
    return [
        Query(motions, relation, task, question)
        for task, question in zip(request["task"], request["question"], strict=True)
    ]


def _motion(request: dict[str, Any], prefix: str) -> MotionTokens:
    """A movement of a request. prefix: of its columns."""
    statistics = request[f"{prefix}statistics"]
    return MotionTokens(
        request[f"{prefix}tokens"],
        request[f"{prefix}views"],
        None if statistics is None else _statistics(statistics),
    )


def _statistics(row: Mapping[str, Any]) -> MovementStatistics:
    """The statistics of `movement_statistics`, as they were before a table held them."""
    return MovementStatistics(**{**row, "phases": tuple(row["phases"])})


def make_answers(
    model: Artifact,
    questions: Artifact,
    tokens: Artifact,
    settings: BatchAnswerSettings,
    root: str,
    tasks: Sequence[str] | None = None,
) -> Artifact:
    """The answers artifact: `answers.parquet`, a row for each question of the settings' splits.

    tasks: those that are asked; None: all that there are questions of.
    Raises InputError for tokens of another tokenizer than the model's.
    """
    require_same_tokenizer(model, tokens)

    def build(uri: str) -> dict[str, Any]:
        answers = answer_all(ModelBundle(model.uri).parts, questions, tokens, settings, tasks)
        content = answers.to_parquet(None, index=False)
        assert isinstance(content, bytes)
        storage.write_bytes(storage.join(uri, "answers.parquet"), content)
        parsed = answers["label_predicted"].notna() | answers["value_predicted"].notna()
        parsed |= answers["kind"] == "description"
        parsed = parsed[answers["applies_true"]]
        return {"answers": len(parsed), "parsed": round(float(parsed.mean()), 4)}

    # How answers are scored belongs to the model. These settings decide which questions are asked, and how.
    identity: dict[str, Any] = {"splits": settings.splits, "method": settings.method}
    if tasks is not None:
        identity["tasks"] = sorted(tasks)
    inputs = {"model": model, "questions": questions, "tokens": tokens}
    return artifact.make("answers", VERSION, identity, inputs, build, root)


def make_calibration(
    adapter: Artifact,
    questions: Artifact,
    tokens: Artifact,
    settings: AnswerSettings,
    tasks: Tasks,
    root: str,
) -> Artifact:
    """The calibration artifact: `calibration.json`, fitted on the uncalibrated answers to validation participants.

    The calibration is empty if a cohort has no validation participants. The artifact's metrics are {task:
    temperature, or amount that intervals are widened by}.
    tasks: full definitions of the trained tasks. They say when a question applies.
    Raises InputError for a trained task that is missing, for tokens of another tokenizer, and for tokens with
    fewer views than answers are averaged over.
    """
    require_same_tokenizer(adapter.input("tokens"), tokens)
    trained = adapter.input("questions").manifest["settings"]["tasks"]
    definitions = {task.name: task for task in trained_tasks(trained, tasks, adapter.uri)}

    def build(uri: str) -> dict[str, Any]:
        fitted = Calibration()
        Tokens(tokens).views([], settings.views)
        if "validation" in read_questions(questions)["split"]:
            validation = BatchAnswerSettings(
                splits=["validation"], batch_size=settings.batch_size, workers=settings.workers
            )
            parts = uncalibrated(adapter.input("base"), adapter, definitions, settings.scoring)
            asked = select_questions(questions, parts.tasks, ["validation"])
            sample = _sample(select_questions(questions, parts.tasks, ["train"]), parts.tasks)
            ruled_out = inapplicable_questions(tokens, parts.tasks, ["validation"])
            about_conditions = _condition_questions(ruled_out, parts.tasks)
            everything = pd.concat([asked, sample, about_conditions], ignore_index=True)
            answers = answer_rows(parts, everything, tokens, validation)
            n_asked, n_with_sample = len(asked), len(asked) + len(sample)
            statistics = Tokens(tokens).statistics().to_pandas()
            reference, ood = _fit_ood(statistics, answers[:n_with_sample])
            write_reference(storage.join(uri, REFERENCE), reference)
            fitted = fit(answers[:n_asked]).model_copy(update={"provenance": tokens.provenance, "ood": ood})
            gates = _fit_gates(ruled_out, answers[n_with_sample:], parts.tasks, fitted, statistics)
            fitted = fitted.model_copy(update={"min_applies": gates})
        storage.write_json(storage.join(uri, CALIBRATION), fitted.model_dump(mode="json"))
        return {
            name: round(task.temperature if task.interval_offset is None else task.interval_offset, 3)
            for name, task in fitted.tasks.items()
        }

    inputs = {"adapter": adapter, "questions": questions, "tokens": tokens}
    identity = {
        "scoring": settings.scoring.model_dump(mode="json"),
        "conditions": [
            task.model_dump(mode="json", include={"name", "answer_when", "needs"})
            for task in definitions.values()
        ],
    }
    return artifact.make("calibration", CALIBRATION_VERSION, identity, inputs, build, root)


def answer_all(
    model: ModelParts,
    questions: Artifact,
    tokens: Artifact,
    settings: BatchAnswerSettings,
    only: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The answers table of a model that is asked a cohort's questions of the settings' splits.

    only: tasks that are asked; None: all.
    Raises InputError if there are no questions, and for tokens with fewer views than the model averages over.
    """
    asked = select_questions(questions, read_tasks(questions.uri), settings.splits)
    ruled_out = (
        inapplicable_questions(tokens, model.tasks, settings.splits) if settings.method == "weigh" else []
    )
    if len(ruled_out):
        asked = pd.concat([asked, ruled_out], ignore_index=True)
    if only is not None:
        asked = asked[asked["task"].isin(only)].reset_index(drop=True)
    return answer_rows(model, asked, tokens, settings)


def answer_rows(
    model: ModelParts, asked: pd.DataFrame, tokens: Artifact, settings: BatchAnswerSettings
) -> pd.DataFrame:
    """The answers table of question rows, as `select_questions` returns them."""
    cluster.connect()
    scoring, splits = model.info.scoring, list(asked["split"].unique())
    asked = asked.assign(number=np.arange(len(asked)))
    columns = ["trial", RECONSTRUCTION_ERROR]
    trials = Tokens(tokens).table().select(columns).to_pandas().set_index("trial")
    views = Tokens(tokens).views(splits, scoring.views)
    statistics = movement_statistics(Tokens(tokens).statistics().to_pandas(), splits, model.reference)
    requests = build_requests(asked, views, scoring.templates, statistics)
    answers = run_batches(model, requests, settings)
    return to_table(asked, answers, model.tasks, trials[RECONSTRUCTION_ERROR])


def movement_statistics(
    table: pd.DataFrame, splits: Sequence[str], reference: ReferenceMovements | None
) -> dict[str, dict[str, Any]]:
    """{trial of these splits: the fields of its `MovementStatistics`}. table: `Tokens.statistics`.

    Training trials have none.
    """
    names = [field.name for field in fields(MovementStatistics) if field.name in table]
    rows = table[table["split"].isin(splits) & table["steps"].notna()].astype({"steps": int})
    distances: list[float | None] = [None] * len(rows)
    if reference is not None and len(rows):
        distances = [reference.distance(np.asarray(features)) for features in rows["features"]]
    return {
        trial: {**row, "distance": distance}
        for trial, row, distance in zip(rows["trial"], rows[names].to_dict("records"), distances, strict=True)
    }


def inapplicable_questions(tokens: Artifact, tasks: Tasks, splits: Sequence[str]) -> pd.DataFrame:
    """The questions about trials of these splits whose annotations rule them out: one for each task and trial."""
    trials = Tokens(tokens).annotated_table().drop_columns("tokens").to_pandas()
    trials = trials[trials["split"].isin(splits)].astype(object)
    rows = trials.where(trials.notna(), None).to_dict("records")
    questions = [
        {
            **{name: row[name] for name in _TRIAL},
            "task": task.name,
            "question": task.templates[0],
        }
        for task in tasks.values()
        if isinstance(task, AnnotatedTask) and task.n_movements == 1 and task.answer_conditions
        for row in rows
        if task.is_ruled_out(row)
    ]
    table = pd.DataFrame(questions, columns=[*_TRIAL, "task", "question"])
    return table.assign(other=None, answer=None, label=None, value=np.nan, applies=False)


def _sample(questions: pd.DataFrame, tasks: Tasks) -> pd.DataFrame:
    """One question about each of at most _SAMPLE training trials, spread over all participants.

    The log-likelihood of a movement's tokens does not depend on the question; labels are the quickest to score.
    """
    labels = [name for name, task in tasks.items() if isinstance(task, ClassificationTask)]
    first = questions[questions["task"].isin(labels) & questions["other"].isna()].drop_duplicates("trial")
    number = first.groupby("participant").cumcount()
    return first.iloc[np.argsort(number.to_numpy(), kind="stable")[:_SAMPLE]]


def _fit_ood(statistics: pd.DataFrame, answers: pd.DataFrame) -> tuple[ReferenceMovements, OodCheck | None]:
    """The reference movements and the check. statistics: `Tokens.statistics`. answers: about single movements."""
    single = answers[answers["log_likelihood"].notna() & answers["other"].isna()]
    statistics = statistics.assign(
        log_likelihood=statistics["trial"].map(
            single.drop_duplicates("trial").set_index("trial")["log_likelihood"]
        )
    )
    train, validation = (statistics[statistics["split"] == split] for split in ("train", "validation"))
    features = {
        split: np.stack(rows["features"].to_list()) if len(rows) else np.empty((0, N_FEATURES))
        for split, rows in (("train", train), ("validation", validation))
    }
    reference = ReferenceMovements.of(features["train"], train["participant"].tolist())
    distances = {
        "train": leave_one_out_distances(features["train"], train["participant"].tolist()),
        "validation": np.array([reference.distance(row) for row in features["validation"]], dtype=float),
    }
    checked = [
        CheckedMovements(
            rows["participant"].tolist(),
            {
                "distance": distances[split],
                "rmse_deg": rows[RECONSTRUCTION_ERROR].to_numpy(dtype=float),
                "log_likelihood": rows["log_likelihood"].to_numpy(dtype=float),
            },
            rows["duration_s"].to_numpy(dtype=float),
        )
        for split, rows in (("train", train), ("validation", validation))
    ]
    return reference, fit_ood(*checked)


def _condition_questions(ruled_out: pd.DataFrame, tasks: Tasks) -> pd.DataFrame:
    """The questions whose answers weigh the conditions of other questions, once for each trial.

    ruled_out: `inapplicable_questions`.
    """
    asked = [
        {**dict(zip(_TRIAL, trial, strict=True)), "task": task, "question": tasks[task].templates[0]}
        for *trial, name in ruled_out[[*_TRIAL, "task"]].itertuples(index=False)
        for task in condition_tasks(conditions_of(name, tasks))
    ]
    table = pd.DataFrame(asked, columns=[*_TRIAL, "task", "question"]).drop_duplicates(ignore_index=True)
    return table.assign(other=None, answer=None, label=None, value=np.nan, applies=True)


def _fit_gates(
    ruled_out: pd.DataFrame,
    of_conditions: pd.DataFrame,
    tasks: Tasks,
    fitted: Calibration,
    table: pd.DataFrame,
) -> dict[str, float]:
    """{task: threshold of the probability that it applies}, from validation trials that it does not apply to.

    ruled_out: `inapplicable_questions`. of_conditions: the uncalibrated answers to `_condition_questions`.
    table: `Tokens.statistics`.
    """
    movements: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in of_conditions.itertuples():
        temperature = fitted.of_task(row.task).temperature
        probabilities = apply_temperature(np.asarray(row.probabilities), temperature)
        movements[row.trial][row.task] = dict(zip(row.labels, probabilities.tolist(), strict=True))
    statistics = movement_statistics(table, ["validation"], None)
    applies = [
        gate(
            tasks,
            row.task,
            conditions_of(row.task, tasks),
            [movements[row.trial]],
            [_statistics(statistics[row.trial])] if row.trial in statistics else [],
            threshold=0.0,
        ).applies
        for row in ruled_out.itertuples()
    ]
    weighed = ruled_out.assign(applies=applies).dropna(subset=["applies"])
    return {
        str(task): fit_min_applies(rows["applies"].tolist(), rows["participant"].tolist())
        for task, rows in weighed.groupby("task")
    }


def select_questions(questions: Artifact, tasks: Tasks, splits: Sequence[str]) -> pd.DataFrame:
    """The questions of these splits."""
    asked = read_questions(questions).to_pandas()
    # Whether a generated movement is the one that was asked for is judged in `evaluation.generation`.
    generated = [name for name, task in tasks.items() if isinstance(task, GenerationTask)]
    asked = asked[asked["split"].isin(splits) & ~asked["task"].isin(generated)]
    if asked.empty:
        raise InputError(f"{questions.uri}: no questions in splits {splits}")
    return asked.assign(applies=True)


def build_requests(
    asked: pd.DataFrame,
    views: Mapping[str, Sequence[Sequence[int]]],
    templates: int,
    statistics: Mapping[str, Any],
) -> pd.DataFrame:
    """A row for each movement or pair of movements, with all that is asked about it; rows of like length in a row.

    asked: questions with the columns trial, other, task, question, number and applies.
    views: {trial: motion tokens of each of its views}, its own first.
    templates: number of templates that each question is asked in.
    statistics: {trial: fields of its MovementStatistics}.
    Columns: tokens, views (the others) and statistics, the same with `other_` (None for a single movement); task,
    question, number and applies (lists).
    """
    by_motion = asked.groupby(["trial", "other"], sort=False, dropna=False)
    requests = by_motion[["task", "question", "number", "applies"]].agg(list).reset_index()
    others = [None if pd.isna(trial) else trial for trial in requests["other"]]
    requests = requests.assign(
        tokens=[views[trial][0] for trial in requests["trial"]],
        views=[views[trial][1:] for trial in requests["trial"]],
        statistics=[statistics.get(trial) for trial in requests["trial"]],
        other_tokens=[views[trial][0] if trial else None for trial in others],
        other_views=[views[trial][1:] if trial else None for trial in others],
        other_statistics=[statistics.get(trial) if trial else None for trial in others],
    )
    # A batch holds rows of similar length, the questions included, so that little of it is padding.
    n_words = requests["question"].map(
        lambda texts: sum(_TOKENS_BESIDE_WORDS + text.count(" ") for text in texts)
    )
    length = requests["tokens"].str.len() + templates * n_words
    return requests.iloc[np.argsort(length, kind="stable")]


def run_batches(model: ModelParts, requests: pd.DataFrame, settings: BatchAnswerSettings) -> pd.DataFrame:
    """The answers to requests: columns `number` and those of `Answer`, in any order.

    One worker on one's own machine is this process, if no other work holds a core: another process would first load
    all libraries again, for 12 s.
    """
    table, size = pa.Table.from_pandas(requests, preserve_index=False), settings.batch_size
    batches = [table.slice(start, size) for start in range(0, len(table), size)]
    is_alone = cluster.is_own() and cluster.is_idle() and not cluster.gpu_of_actor()
    answer = _here if settings.workers == 1 and is_alone else _on_actors
    answers: list[pa.Table] = []
    n_questions, last_report = int(requests["number"].str.len().sum()), time.time()
    for block in answer(model, batches, settings):
        answers.append(block)
        if time.time() - last_report > _REPORT_EVERY_S:
            last_report = time.time()
            logger.info("answers: %d of %d questions", sum(map(len, answers)), n_questions)
    return pa.concat_tables(answers).to_pandas()


def _here(model: ModelParts, batches: list[pa.Table], settings: BatchAnswerSettings) -> Iterator[pa.Table]:
    yield from map(_AnswerBatch(model, settings.method, cluster.cpus_for(1)), batches)


def _on_actors(
    model: ModelParts, batches: list[pa.Table], settings: BatchAnswerSettings
) -> Iterator[pa.Table]:
    """The same in Ray Data's actors, each with one GPU where there are any."""
    # Ray puts large constructor arguments into its object store, where a restarted actor may not find them.
    packed = zlib.compress(pickle.dumps(model))
    yield from (
        # A block is a batch. Ray's `repartition` would need a whole core beside the actors, which one node of one
        # core never has.
        ray.data.from_arrow(batches)
        .map_batches(
            _AnswerBatch,
            fn_constructor_args=(packed, settings.method, cluster.cpus_for(settings.workers)),
            batch_size=None,
            batch_format="pyarrow",
            # At least half a core is left, so that the operators that feed the actors are always scheduled.
            num_cpus=min(1.0, max(cluster.cpus() - 1, 0.5) / settings.workers),
            compute=ray.data.ActorPoolStrategy(size=settings.workers),
            **cluster.gpu_of_actor(),
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )


def to_table(
    asked: pd.DataFrame, answers: pd.DataFrame, tasks: Tasks, reconstruction_error: "pd.Series"
) -> pd.DataFrame:
    """The answers table: each question with its answer, and the reconstruction error of its movement."""
    asked = asked.rename(columns={"applies": "applies_true"})  # the answers have the model's own probability
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
            "applies_true": answered.get("applies_true", True),
            **{name: answered[name] for name in ANSWER_COLUMNS if name in answered},
        }
    )


def read_answers(answers: Artifact) -> pd.DataFrame:
    """The table of an answers artifact."""
    return pd.read_parquet(artifact.local_copy(answers.path("answers.parquet")))
