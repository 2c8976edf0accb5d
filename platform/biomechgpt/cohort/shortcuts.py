"""Shortcuts: whether anything beside the movement tells the labels of a cohort.

A shallow decision tree tries to tell each label from one group of features that should not tell it: the length of
the recording, the level of noise, the mean angles of badly tracked joints, the first and last frame, the place in
the files, the identifiers. Beside them stands the same tree on gait parameters, which may tell it. A model that
finds a shortcut has good scores here and none on other people. Knows nothing about how a cohort was made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biomechgpt.motion.parameters import measure_parameters
from biomechgpt.motion.skeleton import TRACKED
from biomechgpt.motion.trial import Trial

MEASURED = "gait parameters"
"""The group that the others are compared with."""


def _gait_parameters(t: Trial) -> np.ndarray:
    values = measure_parameters(t.angles_rad, t.pelvis, t.frame_rate_hz, t.joint_mask)
    return np.array(
        [np.nan if value is None else value for name, value in values.items() if name != "duration"]
    )


def _distal(t: Trial) -> np.ndarray:
    means = np.where(t.joint_mask, np.median(t.angles_rad, axis=0), np.nan)
    return np.asarray(means[~TRACKED])


def _noise(t: Trial) -> np.ndarray:
    """Of each joint, the level of its second differences in the calmest tenth of the frames."""
    if len(t.angles_rad) < 10:
        return np.full(len(TRACKED), np.nan)
    levels = np.percentile(np.abs(np.diff(t.angles_rad, 2, axis=0)), 10, axis=0)
    return np.asarray(np.where(t.joint_mask, levels, np.nan))


def _ends(t: Trial) -> np.ndarray:
    return np.concatenate([np.where(t.joint_mask, t.angles_rad[k], np.nan) for k in (0, -1)])


def _identifiers(t: Trial) -> np.ndarray:
    """The first characters of the trial's and the participant's names, as numbers."""
    return np.array(
        [int.from_bytes(name.encode()[:6].ljust(6, b"\0"), "big") for name in (t.trial, t.participant)], float
    )


GROUPS: dict[str, Callable[[Trial], np.ndarray]] = {
    MEASURED: _gait_parameters,
    "length": lambda t: np.array([float(len(t.angles_rad))]),
    "noise": _noise,
    "distal joints": _distal,
    "first and last frame": _ends,
    "identifiers": _identifiers,
}
"""{group: the features of a trial}. `place in the files` is added where all trials are known."""
PLACE = "place in the files"


@dataclass
class Clues:
    """One trial: its features in each group, and its labels.

    participant: their name.
    features: {group: its features}.
    labels: {annotation: text or number}.
    """

    participant: str
    features: dict[str, np.ndarray]
    labels: dict[str, Any]


def clues(t: Trial, columns: Sequence[str]) -> Clues:
    """The features of a trial by group, and its values in these annotation columns."""
    labels = {name: t.annotations[name] for name in columns if t.annotations.get(name) is not None}
    return Clues(t.participant, {name: measure(t) for name, measure in GROUPS.items()}, labels)


_DEPTH = 3
_FOLDS = 5
_FEWEST_PEOPLE = 20
"""With fewer participants than this, a tree's score says nothing."""


def find_shortcuts(trials: Sequence[Clues], columns: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """{annotation: {group: score of its tree}}, on participants that the tree was not fitted on.

    trials: in the order of the files.
    columns: {annotation: "text" | "number"}. The score of a text is F1 weighted by support, and `most frequent` is
        that of the most frequent label. The score of a number is Pearson's r, 0 for a constant.
    Annotations of fewer than 20 participants are left out.
    """
    table = {}
    for name, kind in columns.items():
        rows = [k for k, trial in enumerate(trials) if name in trial.labels]
        people = [trials[k].participant for k in rows]
        values = np.array([trials[k].labels[name] for k in rows], dtype=object if kind == "text" else float)
        if len(set(people)) < _FEWEST_PEOPLE or len(set(values)) < 2:
            continue
        groups = {group: np.stack([trials[k].features[group] for k in rows]) for group in GROUPS}
        groups[PLACE] = np.array(rows, dtype=float)[:, None]
        table[name] = {group: round(_score(x, values, people, kind), 3) for group, x in groups.items()}
        if kind == "text":
            table[name]["most frequent"] = round(_most_frequent(values), 3)
    return table


def _score(features: np.ndarray, values: np.ndarray, people: list[str], kind: str) -> float:
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    tree = {"text": DecisionTreeClassifier, "number": DecisionTreeRegressor}[kind]
    labels = values.astype(str) if kind == "text" else values
    found = cross_val_predict(
        tree(max_depth=_DEPTH, min_samples_leaf=5, random_state=0),
        features,
        labels,
        groups=people,
        cv=GroupKFold(_FOLDS),
    )
    if kind == "text":
        return float(f1_score(labels, found, average="weighted"))
    return 0.0 if np.std(found) == 0 else float(np.corrcoef(found, labels)[0, 1])


def _most_frequent(values: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    labels = values.astype(str)
    names, counts = np.unique(labels, return_counts=True)
    return float(f1_score(labels, np.full(len(labels), names[counts.argmax()]), average="weighted"))
