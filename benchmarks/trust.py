"""How far a model's answers can be trusted.

    python benchmarks/trust.py [--model URI] [--recordings FOLDER]

Prints what it measures, and one line of JSON at the end:

inapplicable_answered: {task: share of the test questions that do not apply and are answered anyway}.
strange_refused: share of movements that nobody makes that are refused.
recordings_refused: share of the recordings in FOLDER that are refused; null without a folder.
familiar_refused: share of the model's own test movements that are refused.
questions_right: share of held-out free questions that reach the right task, label or reply.
questions_wrong_unflagged: share of them that get another task's answer without a warning.
out_of_scope_refused: share of held-out questions out of scope that are refused.
risk_violations: share of resplits of the test answers whose error rate is above the stated level.
coverage_applicable: share of the answered test questions whose set or interval holds the truth, by participant.

The held-out questions (benchmarks/questions/held_out.yaml) were written by people who had not read the classifier.
Nothing was fitted or tuned on them. When they have been used for that, they belong into development.yaml.
FOLDER: recordings of other people than the model's. `benchmarks/real.py` measures whether the others are answered
right.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.batch import make_answers, read_answers
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.library import find_model
from biomechgpt.answering.risk import fit_risk_thresholds
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError
from biomechgpt.evaluation.restraint import restraint
from biomechgpt.motion.skeleton import HIGH_RAD, LOW_RAD, N_JOINTS
from biomechgpt.prompts.encoding import Query
from biomechgpt.questions.intent import Intent, IntentClassifier
from biomechgpt.questions.tasks import ClassificationTask, PredictionTask, Tasks, askable
from biomechgpt.recordings import readers
from biomechgpt.recordings.load import prepare
from biomechgpt.recordings.quality import QualitySettings
from biomechgpt.recordings.readers import ReaderSettings
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

QUESTIONS = Path(__file__).parent / "questions/held_out.yaml"
RESPLITS = 60
COPIES = 20
"""Movements of each kind that nobody makes."""


def strange_movements(rng: np.random.Generator, rate_hz: float) -> dict[str, list[np.ndarray]]:
    """{kind: movements (T, 34) that nobody makes}, each of 6 to 12 s."""

    def one(kind: str) -> np.ndarray:
        time_s = np.arange(int(rng.uniform(6, 12) * rate_hz))[:, None] / rate_hz
        phase = rng.uniform(0, 2 * np.pi, N_JOINTS)
        amplitude = rng.uniform(0.05, 0.5, N_JOINTS) * (HIGH_RAD - LOW_RAD) / 2
        if kind == "sines":
            angles = amplitude * np.sin(2 * np.pi * rng.uniform(0.2, 3, N_JOINTS) * time_s + phase)
        elif kind == "sines of one frequency":
            angles = 0.5 * amplitude * np.sin(2 * np.pi * rng.uniform(0.4, 1.2) * time_s + phase)
        elif kind == "sway":
            degrees = rng.uniform(0.3, 2)
            angles = np.radians(degrees) * np.sin(
                2 * np.pi * rng.uniform(0.1, 0.5, N_JOINTS) * time_s + phase
            )
        elif kind == "shaking":
            angles = np.radians(rng.uniform(2, 10)) * np.sin(2 * np.pi * rng.uniform(4, 8) * time_s + phase)
        elif kind == "zeros":
            angles = np.zeros((len(time_s), N_JOINTS))
        else:
            angles = rng.uniform(LOW_RAD, HIGH_RAD, (len(time_s), N_JOINTS))
        return angles.astype(np.float32)

    kinds = ("sines", "sines of one frequency", "sway", "shaking", "zeros", "noise")
    return {kind: [one(kind) for _ in range(COPIES)] for kind in kinds}


def read_recordings(folder: str, rate_hz: float) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """{file: angles (T, 34) and joint mask (34,)}; None for a file that the readers refuse."""
    found: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() not in readers.SUFFIXES or path.name == "annotations.csv":
            continue
        try:
            recording = readers.parse(path.name, path.read_bytes(), ReaderSettings(missing_joints="neutral"))
            angles, _, _ = prepare(path.name, recording, QualitySettings(), rate_hz)
            found[str(path)] = angles, recording.joint_mask
        except InputError:
            found[str(path)] = None
    return found


def refused(
    answerer: Answerer, tokenizer: MotionTokenizer, movements: list[tuple[np.ndarray, np.ndarray]]
) -> list[bool]:
    """Whether each movement is called unlike the training data."""
    task = next(name for name, task in answerer.tasks.items() if isinstance(task, PredictionTask))
    question = answerer.tasks[task].templates[0]
    result = []
    for first in range(0, len(movements), 8):
        batch = movements[first : first + 8]
        motions = answerer.analyse(tokenizer, [angles for angles, _ in batch], [mask for _, mask in batch])
        answers = answerer.score_candidates([Query([motion], "single", task, question) for motion in motions])
        result += [answer.status == "unlike" for answer in answers]
    return result


def measure_strange(answerer: Answerer, tokenizer: MotionTokenizer) -> float:
    """Share of strange movements that are refused."""
    rate_hz, everything = tokenizer.frame_rate_hz, np.ones(N_JOINTS, dtype=bool)
    results: list[bool] = []
    for kind, movements in strange_movements(np.random.default_rng(0), rate_hz).items():
        judged = refused(answerer, tokenizer, [(angles, everything) for angles in movements])
        print(f"{kind}: {np.mean(judged):.3f} of {len(judged)} refused")
        results += judged
    return float(np.mean(results))


def measure_recordings(answerer: Answerer, tokenizer: MotionTokenizer, folder: str) -> float:
    """Share of the recordings in a folder that the readers or the model refuse."""
    recordings = read_recordings(folder, tokenizer.frame_rate_hz)
    readable = {path: movement for path, movement in recordings.items() if movement is not None}
    judged = refused(answerer, tokenizer, list(readable.values()))
    for path, is_refused in zip(readable, judged, strict=True):
        print(f"{path}: {'refused' if is_refused else 'answered'}")
    print(f"{len(recordings)} recordings, {len(recordings) - len(readable)} of them refused by the readers")
    return float(np.mean([*judged, *[True] * (len(recordings) - len(readable))]))


def has_label(tasks: Tasks, task: str, label: str | None, words: str) -> bool:
    """Whether a label is the one that the list names by its words."""
    definition = tasks[task]
    spoken = (definition.labels or {}) if isinstance(definition, ClassificationTask) else {}
    synonyms = getattr(definition, "synonyms", {}).get(label, [])
    names = [str(label), spoken.get(str(label), ""), *map(str, synonyms)]
    return any(
        name and (name.casefold() in words.casefold() or words.casefold() in name.casefold())
        for name in names
    )


def names_of(tasks: Tasks, task: str | None) -> set[str]:
    """A task's name, and those of the quantity that it measures or stands beside."""
    definition = tasks.get(str(task))
    return {str(task), str(getattr(definition, "quantity", "")), str(getattr(definition, "measured_as", ""))}


META = {"list": "list", "why": "why", "sure": "confidence"}


def is_right(intent: Intent, expect: dict[str, Any], tasks: Tasks) -> bool:
    """Whether a question was understood as the list expects."""
    (kind, value), *_ = expect.items()
    if kind in ("task", "follow_up"):
        names = value if isinstance(value, list) else [value]
        return intent.kind in ("task", "label") and bool(names_of(tasks, intent.task) & set(names))
    if kind == "yes_no":
        return (
            intent.kind == "label"
            and intent.task == value["task"]
            and has_label(tasks, intent.task, intent.label, value["label"])
        )
    if kind == "unknown_label":
        return intent.kind == "unknown_label"
    if kind == "meta":
        return intent.kind == META[value]
    return intent.kind in ("out_of_scope", "unclear", "unknown_label")


def read_questions(
    classifier: IntentClassifier, tasks: Tasks, questions: Path
) -> tuple[dict[str, list[bool]], list[bool]]:
    """How a list of questions is understood.

    {kind of question: for each, whether it is understood}; for each question, whether it would get a wrong answer
    without a warning.
    """
    outcomes: dict[str, list[bool]] = {}
    wrong_unflagged = []
    for entry in yaml.safe_load(questions.read_text("utf-8"))["questions"]:
        (kind,) = entry["expect"]
        intent = classifier.recognise(entry["text"], list(askable(tasks, 1)))
        right = is_right(intent, entry["expect"], tasks)
        outcomes.setdefault(kind, []).append(right)
        wrong_unflagged.append(not right and intent.kind in ("task", "label") and not intent.assumed)
    return outcomes, wrong_unflagged


def measure_questions(tasks: Tasks, labels: dict[str, list[str]]) -> dict[str, float]:
    """questions_right, questions_wrong_unflagged and out_of_scope_refused on the held-out list."""
    outcomes, wrong_unflagged = read_questions(IntentClassifier(tasks, labels), tasks, QUESTIONS)
    for kind, values in outcomes.items():
        print(f"questions, {kind}: {np.mean(values):.3f} of {len(values)} right")
    return {
        "questions_right": float(np.mean(answerable(outcomes))),
        "questions_wrong_unflagged": float(np.mean(wrong_unflagged)),
        "out_of_scope_refused": float(np.mean(outcomes["out_of_scope"])),
    }


def answerable(outcomes: dict[str, list[bool]]) -> list[bool]:
    """The outcomes of the questions that have an answer."""
    return [
        v for kind, values in outcomes.items() if kind not in ("out_of_scope", "not_known") for v in values
    ]


def own_answers(model: artifact.Artifact) -> pd.DataFrame:
    """The model's answers to its own cohort's test questions, those that do not apply included."""
    root = str(Path(model.uri).parents[1])
    settings = BatchAnswerSettings()
    return read_answers(make_answers(model, model.input("questions"), model.input("tokens"), settings, root))


def covers(rows: pd.DataFrame) -> np.ndarray:
    """Whether each answer's set or interval holds the truth."""
    return np.array(
        [
            row.label_true in row.prediction_set
            if row.kind == "classification"
            else row.low <= row.value_true <= row.high
            for row in rows.itertuples()
        ]
    )


def measure_coverage(answers: pd.DataFrame) -> float:
    """Coverage of the questions that apply and are answered: each participant counts once."""
    rows = answers[
        answers["applies_true"]
        & (answers["status"] == "answered")
        & answers["kind"].isin(["classification", "regression"])
    ]
    inside = pd.Series(covers(rows), index=rows.index)
    for task, values in inside.groupby(rows["task"]):
        by_participant = values.groupby(rows["participant"]).mean()
        print(f"coverage, {task}: {by_participant.mean():.3f} of {len(by_participant)} participants")
    return float(inside.groupby(rows["participant"]).mean().mean())


def measure_risk(answers: pd.DataFrame) -> float:
    """Share of the fits whose answers are wrong more often than their level says.

    The test participants are split in halves, RESPLITS times. Thresholds are fitted on one half for every level.
    The answers that they give are counted in the other half. Only fits that give answers count.
    """
    violated, fits = [], 0
    for task, rows in answers[answers["kind"].eq("classification") & answers["applies_true"]].groupby("task"):
        confidence = np.array([p[0] for p in rows["probabilities"]])
        right = (rows["label_true"] == rows["label_predicted"]).to_numpy(dtype=float)
        who = rows["participant"].to_numpy(dtype=str)
        of_task = []
        for seed in range(RESPLITS):
            people = np.random.default_rng(seed).permutation(np.unique(who))
            fitted_on = np.isin(who, people[: len(people) // 2])
            for level, threshold in fit_risk_thresholds(
                confidence[fitted_on].tolist(), right[fitted_on].tolist(), who[fitted_on].tolist()
            ):
                given = ~fitted_on & (confidence >= threshold)
                if given.any():
                    wrong = pd.Series(1 - right[given]).groupby(who[given]).mean()
                    of_task.append(bool(wrong.mean() > level))
        fits += len(of_task)
        violated += of_task
        print(
            f"risk, {task}: {np.mean(of_task) if of_task else float('nan'):.3f} of {len(of_task)} fits violated"
        )
    return float(np.mean(violated)) if fits else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="URI of a model artifact; the demo's by default")
    parser.add_argument("--recordings", help="folder of recordings of other people")
    options = parser.parse_args()
    model = artifact.load(options.model or find_model("demo"), "model")
    bundle = ModelBundle(model.uri)
    answers = own_answers(model)
    kept_back = restraint(answers)
    answered_anyway = {
        task: row["answered_anyway"]
        for task, row in kept_back["tasks"].items()
        if row["answered_anyway"] is not None
    }
    withheld = {task: row["withheld"] for task, row in kept_back["tasks"].items() if row["withheld"]}
    print(f"questions that apply and are taken not to: {withheld}")
    answerer = Answerer.load(model.uri)
    tokenizer, folder = MotionTokenizer.load(bundle.motion_tokenizer), options.recordings
    result = {
        "inapplicable_answered": answered_anyway,
        "strange_refused": measure_strange(answerer, tokenizer),
        "recordings_refused": measure_recordings(answerer, tokenizer, folder) if folder else None,
        "familiar_refused": kept_back["unlike"].get("refused"),
        **measure_questions(bundle.tasks, bundle.info.labels),
        "risk_violations": measure_risk(answers),
        "coverage_applicable": measure_coverage(answers),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
