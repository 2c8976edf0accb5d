"""All statistics of an evaluation, from its answers table alone: scores, calibration, comparisons, subgroups.

Comparisons are paired: two sources, or two variants, on the same trials. p is two-sided: the answers of both are
exchanged for some participants, in all ways or in many random ones (sign flips). If neither is better, each
exchange is as likely as the observed tables. There is no p with few participants. `p_holm` is adjusted for all
comparisons of its table that have a p (Holm, Scand J Stat 1979; 6: 65-70).
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.evaluation.answers_table import tasks_of
from biomechgpt.evaluation.baselines import BASELINES
from biomechgpt.evaluation.calibration_metrics import calibration_scores
from biomechgpt.evaluation.intervals import MIN_PARTICIPANTS, sign_flip_p, t_interval
from biomechgpt.evaluation.metrics import METRICS, ParticipantSums, main_metric, main_score, score
from biomechgpt.evaluation.restraint import NO_RESTRAINT
from biomechgpt.questions.tasks import Task

MODEL = "model"
"""The `source` of the language model's rows."""

REFERENCES = tuple(name for name, baseline in BASELINES.items() if not baseline.is_competitor)
"""Baselines that a result has to exceed: they ignore the movement, or its labels."""

SUBGROUPS: dict[str, tuple[tuple[float, str], ...]] = {
    "age": ((40, "below 40"), (65, "40 to 64"), (np.inf, "65 and older")),
    "sex": (),
    "pace": ((0.4, "below 0.4 m/s"), (0.8, "0.4 to 0.8 m/s"), (1.2, "0.8 to 1.2 m/s"), (np.inf, "faster")),
    "assistive_device": (),
    "diagnosis": (),
    "site": (),
}  # fmt: skip
"""Columns that divide participants into subgroups. A number belongs to the first name whose upper edge is above it.

Pace is the mean measured speed of a participant's walks. Its edges separate household, limited community and full
community walking (Perry et al., Stroke 1995; 26: 982-989).
"""


def sources() -> dict[str, str]:
    """{source: the heading of its column}: the model, then the baselines."""
    return {MODEL: "Model"} | {name: baseline.label for name, baseline in BASELINES.items()}


def competitors() -> list[str]:
    """Baselines that the model is tested against."""
    return [name for name, baseline in BASELINES.items() if baseline.is_competitor]


def compute_metrics(table: pd.DataFrame, about: dict[str, Any]) -> dict[str, Any]:
    """The content of metrics.json.

    data, model, tokenizer, seconds: as in `about`, the metadata of the answers table.
    tasks: {task: {source: scores}}, see `metrics.score`; the model's have a key `calibration`, see
        `calibration_scores`.
    comparisons: the model against each competitor in each task, see `compare` and `adjust_p_values`.
    subgroups: see `subgroups`.
    """
    options = {"draws": about["draws"], "seed": about["seed"]}
    scores: dict[str, Any] = {}
    comparisons, groups = [], []
    for name, task in tasks_of(about).items():
        rows = table[table["task"] == name]
        if rows.empty:
            continue
        by_source = dict(tuple(rows.groupby("source", sort=False)))
        scores[name] = {
            source: score(by_source[source], task, **options) for source in sources() if source in by_source
        }
        if MODEL in scores[name]:
            scores[name][MODEL]["failed"] = reason_of_failure(scores[name])
        for source, details in about["baselines"].get(name, {}).items():
            scores[name].get(source, {}).update(details)
        if MODEL not in by_source:
            continue
        answers = by_source[MODEL]
        if calibration := calibration_scores(answers, task, **options):
            scores[name][MODEL]["calibration"] = calibration
        for competitor in competitors():
            if competitor in by_source:
                comparison = compare([answers], [by_source[competitor]], task, **options)
                comparisons.append({"task": name, "against": competitor, **comparison})
        groups += [{"task": name, **group} for group in subgroups(answers, task, **options)]
    adjust_p_values(comparisons)
    origin = {key: about[key] for key in ("data", "model", "tokenizer", "seconds")}
    origin["restraint"] = about.get("restraint", NO_RESTRAINT)
    return {**origin, "tasks": scores, "comparisons": comparisons, "subgroups": groups}


def reason_of_failure(by_source: dict[str, Any]) -> str | None:
    """Why a task counts as failed; None if it does not, or if nothing can be said.

    The rule: the main score, or the lower end of its interval, is not above the best reference (majority, chance)
    in this task; for a correlation without a reference, not above 0. A reference that ignores the movement has no
    correlation, which counts as 0.
    """
    metric, value = main_score(by_source[MODEL])
    if value is None:
        return None
    references = {name: by_source[name].get(metric) for name in REFERENCES if name in by_source}
    known = {name: score or 0.0 for name, score in references.items()}
    if METRICS[metric].bounds == (-1.0, 1.0):
        known["no correlation"] = 0.0
    if not known:
        return None
    best = max(known, key=lambda name: known[name])
    interval = by_source[MODEL].get(f"{metric}_ci")
    low = value if interval is None else interval[0]
    if value <= known[best]:
        return f"not above {best} ({known[best]:.2f})"
    return f"interval reaches {best} ({known[best]:.2f})" if low <= known[best] else None


def compare(
    ours: Sequence[pd.DataFrame],
    theirs: Sequence[pd.DataFrame],
    task: Task,
    *,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """A task's main metric of ours less theirs, tested with sign flips of participants.

    ours, theirs: a table for each seed. The mean over the seeds counts.
    draws: sign flips, where there are too many to try all. 0: no interval and no p.
    Returns {"metric", "difference", "difference_ci", "p", "no_p", "n", "participants"}; None if undefined. "no_p"
    is the reason why there is no p.
    Raises ValueError if the tables answer different questions.
    """
    questions = {
        tuple(sorted(zip(rows["trial"], rows["other"].fillna(""), strict=True))) for rows in (*ours, *theirs)
    }
    if len(questions) != 1:
        raise ValueError(f"{task.name}: expected answers to the same questions")
    result: dict[str, Any] = {
        "metric": main_metric(task.answer_kind).name,
        "difference": None,
        "difference_ci": None,
        "p": None,
        "no_p": None,
        "n": len(ours[0]),
        "participants": int(ours[0]["participant"].nunique()),
    }
    # Both sides of each seed, so that their answers can be exchanged for some participants.
    pairs = [
        ParticipantSums([our_rows, their_rows], task)
        for our_rows, their_rows in zip(ours, theirs, strict=False)
    ]
    if len(ours) != len(theirs):
        pairs = [ParticipantSums([our_rows, their_rows], task) for our_rows in ours for their_rows in theirs]
    n = result["participants"]

    def difference(exchanged: np.ndarray, included: np.ndarray) -> np.ndarray:
        kept, moved = (1 - exchanged) * included, exchanged * included
        sides = np.stack([kept, moved], axis=1), np.stack([moved, kept], axis=1)
        return np.asarray(np.mean([pair.values(sides[0]) - pair.values(sides[1]) for pair in pairs], axis=0))

    observed = float(difference(np.zeros((1, n)), np.ones((1, n)))[0])
    if not math.isfinite(observed):
        result["no_p"] = "the score is undefined"
        return result
    result["difference"] = observed
    if not draws:
        return result
    result["difference_ci"] = t_interval(observed, difference(np.zeros((n, n)), 1 - np.eye(n)))
    result["p"] = sign_flip_p(lambda exchanged: difference(exchanged, np.ones(n)), n, draws, seed)
    if n < MIN_PARTICIPANTS:
        result["no_p"] = f"fewer than {MIN_PARTICIPANTS} participants"
    elif result["p"] is None:
        result["no_p"] = "the score is undefined for some exchange"
    return result


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for one another by Holm's method."""
    order = np.argsort(p, kind="stable")
    # The smallest p is multiplied by the number of tests, the next by one less, and so on. The running maximum
    # keeps their order: an adjusted p is at least as large as the one before it.
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def adjust_p_values(comparisons: list[dict[str, Any]]) -> None:
    """Give each result of `compare` its `p_holm` among all of them; None if it has no p."""
    tested = [comparison for comparison in comparisons if comparison["p"] is not None]
    for comparison in comparisons:
        comparison["p_holm"] = None
    for comparison, p in zip(tested, holm([c["p"] for c in tested]), strict=True):
        comparison["p_holm"] = p


def subgroups(rows: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> Iterator[dict[str, Any]]:
    """A task's main metric in each subgroup: {"by", "group", "n", "participants", "metric", "value", "value_ci"}.

    A column is skipped if all participants are in one group, or if it is what the task asks for.
    """
    for column, edges in SUBGROUPS.items():
        if column not in rows or column in task.annotation_columns:
            continue
        annotated = rows[rows[column].notna()]
        names = annotated[column].map(lambda value, edges=edges: _group_name(value, edges))
        if names.nunique() < 2:
            continue
        order = [name for _, name in edges] or sorted(names.unique())
        for group in [name for name in order if (names == name).any()]:
            members = annotated[names == group]
            scores = score(members, task, draws=draws, seed=seed)
            metric, value = main_score(scores)
            yield {
                "by": column,
                "group": group,
                "n": len(members),
                "participants": int(members["participant"].nunique()),
                "metric": metric,
                "value": value,
                "value_ci": scores.get(f"{metric}_ci"),
            }


def _group_name(value: Any, edges: Sequence[tuple[float, str]]) -> str:
    return next(name for edge, name in edges if value < edge) if edges else str(value)
