"""All figures of an evaluation, from its answers table alone: scores, trust, comparisons, subgroups.

Comparisons are paired: two sources, or two variants, on the same trials, with the same draws of whole participants.
p is of the bootstrap, two-sided; `p_holm` is adjusted for all comparisons of its table (Holm, Scand J Stat 1979; 6:
65-70).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from biomechgpt.evaluation.answers_table import tasks_of
from biomechgpt.evaluation.calibration_metrics import trust
from biomechgpt.evaluation.metrics import drawn, main_figure, score
from biomechgpt.questions.tasks import Task

SOURCES = {
    "model": "Model",
    "xgboost": "XGBoost, tokens",
    "rocket": "MiniRocket, angles",
    "gait": "linear, gait",
    "majority": "commonest",
    "chance": "chance",
}
"""Who answers, and what they are called."""
RIVALS = ("xgboost", "rocket", "gait")
"""Baselines that the model is compared with."""

GROUPS: dict[str, tuple[tuple[float, str], ...]] = {
    "age": ((40, "below 40"), (65, "40 to 64"), (np.inf, "65 and older")),
    "sex": (),
    "pace": ((0.4, "below 0.4 m/s"), (0.8, "0.4 to 0.8 m/s"), (1.2, "0.8 to 1.2 m/s"), (np.inf, "faster")),
    "assistive_device": (),
    "diagnosis": (),
    "site": (),
}  # fmt: skip
"""Columns about participants by which figures are told apart; numbers below each edge have a name. Pace is the mean
measured speed of a participant's walks, whose edges part household from limited and full community walking (Perry
et al., Stroke 1995; 26: 982-989)."""


def measure(table: pd.DataFrame, about: dict[str, Any]) -> dict[str, Any]:
    """metrics.json: {"data", "model", "tokenizer", "seconds", "tasks": {task: {source: scores}}, "comparisons",
    "subgroups"}; see `metrics`, `trust`, `compare` and `subgroups`."""
    tasks = tasks_of(about)
    how = {"draws": about["draws"], "seed": about["seed"]}
    scored: dict[str, Any] = {}
    comparisons, groups = [], []
    for name, task in tasks.items():
        rows = table[table["task"] == name]
        if rows.empty:
            continue
        by = dict(tuple(rows.groupby("source", sort=False)))
        scored[name] = {source: score(by[source], task, **how) for source in SOURCES if source in by}
        scored[name].get("xgboost", {}).update(about["searched"].get(name, {}))
        if "model" not in by:
            continue
        if trusted := trust(by["model"], task, **how):
            scored[name]["model"]["trust"] = trusted
        for rival in RIVALS:
            if rival in by:
                pair = compare([by["model"]], [by[rival]], task, **how)
                comparisons.append({"task": name, "against": rival, **pair})
        groups += [{"task": name, **group} for group in subgroups(by["model"], task, **how)]
    adjust(comparisons)
    kept = {name: about[name] for name in ("data", "model", "tokenizer", "seconds")}
    return {**kept, "tasks": scored, "comparisons": comparisons, "subgroups": groups}


def compare(
    ours: Sequence[pd.DataFrame],
    theirs: Sequence[pd.DataFrame],
    task: Task,
    *,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """A task's main figure of ours less theirs, each a table or one a seed, whose mean is meant.

    Returns {"figure", "difference", "difference_ci", "p", "n", "participants"}; None where it is undefined.
    Raises ValueError where the tables are not of the same questions.
    """
    asked = {
        tuple(sorted(zip(rows["trial"], rows["other"].fillna(""), strict=True))) for rows in (*ours, *theirs)
    }
    if len(asked) != 1:
        raise ValueError(f"{task.name}: expected answers to the same questions")
    values = [[main_figure(score(rows, task, draws=0)) for rows in side] for side in (ours, theirs)]
    found: dict[str, Any] = {
        "figure": values[0][0][0],
        "difference": None,
        "difference_ci": None,
        "p": None,
        "n": len(ours[0]),
        "participants": int(ours[0]["participant"].nunique()),
    }
    if any(value is None for side in values for _, value in side):
        return found
    means = [float(np.mean([value for _, value in side])) for side in values]
    found["difference"] = means[0] - means[1]
    if found["participants"] < 2 or not draws:
        return found
    sides = [
        np.mean([drawn(rows, task, draws=draws, seed=seed) for rows in side], axis=0)
        for side in (ours, theirs)
    ]
    apart = sides[0] - sides[1]
    apart = apart[np.isfinite(apart)]
    if len(apart) * 2 > draws:
        found["difference_ci"] = [float(edge) for edge in np.percentile(apart, [2.5, 97.5])]
        tail = min((apart <= 0).sum(), (apart >= 0).sum()) + 1
        found["p"] = float(min(1.0, 2 * tail / (len(apart) + 1)))
    return found


def holm(p: Sequence[float]) -> list[float]:
    """p values adjusted for one another."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted.tolist()


def adjust(comparisons: list[dict[str, Any]]) -> None:
    """Give each of `compare`'s results its `p_holm` among all of them."""
    known = [one for one in comparisons if one["p"] is not None]
    for one in comparisons:
        one["p_holm"] = None
    for one, p in zip(known, holm([one["p"] for one in known]), strict=True):
        one["p_holm"] = p


def subgroups(rows: pd.DataFrame, task: Task, *, draws: int = 500, seed: int = 0) -> Iterator[dict[str, Any]]:
    """A task's main figure among participants of each group: {"by", "group", "n", "participants", "figure",
    "value", "value_ci"}. A column in which all are alike, or that is the task's own, tells nothing apart."""
    for by, edges in GROUPS.items():
        if by not in rows or by in task.annotation_columns:
            continue
        known = rows[rows[by].notna()]
        names = known[by].map(lambda value, edges=edges: _named(value, edges))
        if names.nunique() < 2:
            continue
        order = [name for _, name in edges] or sorted(names.unique())
        for group in [name for name in order if (names == name).any()]:
            mine = known[names == group]
            scores = score(mine, task, draws=draws, seed=seed)
            figure, value = main_figure(scores)
            yield {
                "by": by,
                "group": group,
                "n": len(mine),
                "participants": int(mine["participant"].nunique()),
                "figure": figure,
                "value": value,
                "value_ci": scores.get(f"{figure}_ci"),
            }


def _named(value: Any, edges: Sequence[tuple[float, str]]) -> str:
    return next(name for edge, name in edges if value < edge) if edges else str(value)
