"""The data card: what is in a cohort, how it was read, and how it moves beside published norms.

`data_card.json` for programs, `data_card.html` for people, both in the cohort's artifact. A Ray task tallies a
shard and tallies add up, so memory does not grow with the cohort. Knows nothing about how a cohort was made.
"""

import logging
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from biomechgpt.cohort.annotations import DEMOGRAPHICS
from biomechgpt.cohort.near_copies import Excerpt, excerpt, find_near_copies, similar_names, warnings
from biomechgpt.cohort.shards import Quarantined, Shard, list_shards, map_shards
from biomechgpt.cohort.shortcuts import MEASURED, Clues, clues, find_shortcuts
from biomechgpt.cohort.splits import SPLITS
from biomechgpt.core import storage
from biomechgpt.motion import gait, norms, plots
from biomechgpt.motion.outcome_measures import COLUMN_KINDS
from biomechgpt.motion.skeleton import HIGH_RAD, JOINTS, LOW_RAD, N_JOINTS, NAMES, anatomical_name
from biomechgpt.motion.trial import FIXED, Trial

logger = logging.getLogger("biomechgpt")

JSON, HTML = "data_card.json", "data_card.html"

_ORIGINS = tuple(name for name in ("source", "import_notes", "repairs") if name in FIXED.names)
"""Columns that say where a trial comes from and how it was read."""
_BINS = 120
_DURATIONS_S = (0.0, 2, 5, 10, 15, 20, 30, 60, 120, 300, 3600)
_VALUES = 200
"""Most values of a column that are counted separately; a free-text column may have any number of them."""
_GROUPS = 12
"""Most groups of people whose walking is shown separately."""
_WALKS = 60
"""Most walks that are listed one by one."""
_EXCERPTS = 20_000
"""Most trials that are searched for near-copies: each keeps 12 kB in memory."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass
class Tally:
    """Counts over some trials of a cohort; tallies of different participants add up.

    trials: trials by split.
    people: participants by split.
    samples: trials with a value, by (column, split).
    sampled: participants with a value, by (column, split).
    values: trials by column and value (numbers to 3 digits).
    valued: participants by column and value.
    frames: number of frames.
    durations: trials by bin of `_DURATIONS_S`.
    unrecorded: (34,) trials in which the joint was not recorded.
    angles: (34, bins) frames by bin of the joint's range.
    outside: (34,) frames outside the joint's range.
    walking: {group: sums over gait cycles}.
    walks: cadence and speed of the first walks.
    walked: number of walking trials, and of those whose pelvis does not travel.
    names: participants.
    excerpts: start and end of each recorded trial, of at most `_EXCERPTS`.
    clues: what beside the movement might tell the labels of a trial, of at most `_EXCERPTS`.
    """

    trials: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    samples: Counter[tuple[str, str]] = field(default_factory=Counter)
    sampled: Counter[tuple[str, str]] = field(default_factory=Counter)
    values: dict[str, Counter[Any]] = field(default_factory=dict)
    valued: dict[str, Counter[Any]] = field(default_factory=dict)
    frames: int = 0
    durations: np.ndarray = field(default_factory=lambda: np.zeros(len(_DURATIONS_S) - 1, dtype=int))
    unrecorded: np.ndarray = field(default_factory=lambda: np.zeros(N_JOINTS, dtype=int))
    angles: np.ndarray = field(default_factory=lambda: np.zeros((N_JOINTS, _BINS), dtype=int))
    outside: np.ndarray = field(default_factory=lambda: np.zeros(N_JOINTS, dtype=int))
    walking: dict[str, "Cycles"] = field(default_factory=dict)
    walks: list[dict[str, Any]] = field(default_factory=list)
    walked: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)
    excerpts: list[Excerpt] = field(default_factory=list)
    clues: list[Clues] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add another tally's counts to these."""
        for counter in ("trials", "people", "samples", "sampled", "walked"):
            getattr(self, counter).update(getattr(other, counter))
        for own, others in ((self.values, other.values), (self.valued, other.valued)):
            for column, counts in others.items():
                own[column] = Counter(dict((own.get(column, Counter()) + counts).most_common(_VALUES)))
        self.frames += other.frames
        for name in ("durations", "unrecorded", "angles", "outside"):
            getattr(self, name).__iadd__(getattr(other, name))
        for group, cycles in other.walking.items():
            self.cycles(group).add(cycles)
        self.walks = (self.walks + other.walks)[:_WALKS]
        self.names |= other.names
        self.excerpts = (self.excerpts + other.excerpts)[:_EXCERPTS]
        self.clues = (self.clues + other.clues)[:_EXCERPTS]

    def cycles(self, group: str) -> "Cycles":
        """A group's sums; when `_GROUPS` groups are there, a further group is added to `others`."""
        full = len(self.walking) >= _GROUPS and group not in self.walking
        return self.walking.setdefault("others" if full else group, Cycles())


@dataclass
class Cycles:
    """Sums over gait cycles; a cycle of a joint starts with the heel strike of its own side.

    count: (34,) number of cycles.
    total: (34, 101) sum of the curves, in degrees.
    """

    count: np.ndarray = field(default_factory=lambda: np.zeros(N_JOINTS, dtype=int))
    total: np.ndarray = field(default_factory=lambda: np.zeros((N_JOINTS, len(gait.CYCLE))))

    def add(self, other: "Cycles") -> None:
        self.count += other.count
        self.total += other.total

    def mean(self, joint: int) -> np.ndarray | None:
        """A joint's mean curve (101,) in degrees; None without a cycle."""
        return self.total[joint] / self.count[joint] if self.count[joint] else None


def write(
    uri: str,
    columns: Mapping[str, str],
    quarantined: list[Quarantined],
    data: str,
    frame_rate_hz: float,
) -> dict[str, Any]:
    """Write the card of the shards under `uri`/trials beside them; returns what its JSON holds.

    columns: {annotation: "text" | "number"}.
    quarantined: recordings that were kept out.
    data: `synthetic`, `recorded` or both.
    """
    total = Tally()
    for tally in _tallies(uri, dict(columns)):
        total.add(tally)
    card = summarize(total, columns, quarantined, data, frame_rate_hz)
    for text in warnings(card["near_copies"], card["similar_names"]):
        logger.warning("cohort: %s", text)
    storage.write_json(storage.join(uri, JSON), card)
    storage.write_bytes(storage.join(uri, HTML), page(card, total).encode())
    return card


def _tallies(uri: str, columns: dict[str, str]) -> Iterable[Tally]:
    """A tally of each shard, each made by a Ray task."""

    def tally_shard(shard: Shard) -> dict[str, Any]:
        return {"tally": pickle.dumps(tally(shard.trials(), columns))}

    for row in map_shards(list_shards(uri), tally_shard):
        yield pickle.loads(row["tally"])  # noqa: S301 by this job


def tally(trials: Iterable[Trial], columns: Mapping[str, str]) -> Tally:
    """The counts of these trials; all trials of a participant have to be among them."""
    counts = Tally()
    values_of: dict[str, dict[str, Counter[Any]]] = {}
    split: dict[str, str] = {}
    for t in trials:
        counts.trials[t.split] += 1
        split[t.participant] = t.split
        counts.names.add(t.participant)
        if len(counts.excerpts) < _EXCERPTS:
            counts.excerpts.append(excerpt(t))
            counts.clues.append(clues(t, [name for name in columns if name not in DEMOGRAPHICS]))
        own_values = values_of.setdefault(t.participant, {})
        for column in (*columns, *_ORIGINS):
            value = getattr(t, column) if column in _ORIGINS else t.annotations.get(column)
            if value is None:
                continue
            value = float(f"{value:.3g}") if isinstance(value, float) else value
            counts.samples[column, t.split] += 1
            counts.values.setdefault(column, Counter())[value] += 1
            own_values.setdefault(column, Counter())[value] += 1
        _count_angles(counts, t)
        _count_walk(counts, t)
    for participant, own_values in values_of.items():
        counts.people[split[participant]] += 1
        for column, values in own_values.items():
            counts.sampled[column, split[participant]] += 1
            counts.valued.setdefault(column, Counter()).update(values.keys())
    return counts


def _count_angles(counts: Tally, t: Trial) -> None:
    counts.frames += len(t.angles_rad)
    counts.durations += np.histogram(min(t.duration_s, _DURATIONS_S[-1]), _DURATIONS_S)[0]
    counts.unrecorded += ~t.joint_mask
    place = np.floor((t.angles_rad - LOW_RAD) / (HIGH_RAD - LOW_RAD) * _BINS)
    for joint in np.flatnonzero(t.joint_mask):
        at = place[:, joint]
        counts.outside[joint] += int(((at < 0) | (at >= _BINS)).sum())
        bins = np.clip(at, 0, _BINS - 1).astype(int)
        counts.angles[joint] += np.bincount(bins, minlength=_BINS)


def _count_walk(counts: Tally, t: Trial) -> None:
    # Without an annotated activity every movement with steps counts as a walk.
    activity = str(t.annotations.get("activity", "walking")).lower()
    if "walk" not in activity or "backward" in activity:
        return
    walk = gait.measure(t.angles_rad, t.pelvis, t.frame_rate_hz)
    if not np.isfinite(walk.cadence_steps_min):
        return
    counts.walked["trials"] += 1
    counts.walked["treadmill or pelvis not recorded"] += not walk.overground
    if len(counts.walks) < _WALKS:
        counts.walks.append(
            {
                "trial": t.trial,
                "cadence": round(walk.cadence_steps_min, 1),
                "speed_pelvis": round(walk.speed_pelvis_m_s, 2),
                "speed_legs": round(walk.speed_legs_m_s, 2),
                "overground": walk.overground,
            }
        )
    sums = counts.cycles(_group(t))
    for joint, curves in enumerate(gait.own_cycles(np.degrees(t.angles_rad), walk).values()):
        if t.joint_mask[joint]:
            sums.count[joint] += len(curves)
            sums.total[joint] += curves.sum(axis=0)


def _group(t: Trial) -> str:
    if t.annotations.get("diagnosis"):
        return str(t.annotations["diagnosis"])
    return {"no": "unimpaired", "yes": "impaired"}.get(str(t.annotations.get("impaired")), "not stated")


def summarize(
    total: Tally,
    columns: Mapping[str, str],
    quarantined: list[Quarantined],
    data: str,
    frame_rate_hz: float,
) -> dict[str, Any]:
    """The card as JSON.

    annotations: by column its kind (text or number), participants and samples in each split, and their values.
    demographics: values of age, sex and site.
    missing: trials without a value, by column and by joint.
    quarantined: each recording that was kept out, with the reason.
    shortcuts: see `find_shortcuts`.
    near_copies, similar_names: see `near_copies`; nothing is kept out for these.
    """
    trials = sum(total.trials.values())
    return {
        "data": data,
        "participants": sum(total.people.values()),
        "trials": trials,
        "hours": round(total.frames / frame_rate_hz / 3600, 4),
        "frames": total.frames,
        "frame_rate_hz": frame_rate_hz,
        "splits": {s: {"participants": total.people[s], "trials": total.trials[s]} for s in SPLITS},
        "annotations": {
            column: {"kind": kind}
            | {
                split: {
                    "participants": total.sampled[column, split],
                    "samples": total.samples[column, split],
                }
                for split in SPLITS
            }
            | _spread(total, column, kind)
            for column, kind in columns.items()
            if column not in DEMOGRAPHICS
        },
        "demographics": {
            column: _spread(total, column, COLUMN_KINDS[column])
            for column in DEMOGRAPHICS
            if column in columns
        },
        "missing": {
            "annotations": {
                column: trials - sum(total.samples[column, split] for split in SPLITS) for column in columns
            },
            "joints": {name: int(n) for name, n in zip(NAMES, total.unrecorded, strict=True) if n},
        },
        "durations_s": {
            f"{low:g} to {high:g}": int(n)
            for low, high, n in zip(_DURATIONS_S, _DURATIONS_S[1:], total.durations, strict=False)
            if n
        },
        "joints": {
            name: _joint(total, joint) for joint, name in enumerate(NAMES) if total.angles[joint].any()
        },
        "walking": {
            "trials": total.walked["trials"],
            "treadmill_or_pelvis_not_recorded": total.walked["treadmill or pelvis not recorded"],
            "cycles": {group: int(c.count.max()) for group, c in sorted(total.walking.items())},
            "off_norm_sd": {group: _off_norm(c) for group, c in sorted(total.walking.items())},
            "listed": total.walks if data != "synthetic" else [],
        },
        "origins": {name: dict(total.values.get(name, Counter()).most_common()) for name in _ORIGINS},
        "quarantined": [item.model_dump() for item in quarantined],
        "shortcuts": find_shortcuts(
            total.clues, {name: kind for name, kind in columns.items() if name not in DEMOGRAPHICS}
        ),
        "near_copies": find_near_copies(total.excerpts),
        "similar_names": similar_names(total.names),
    }


def _spread(total: Tally, column: str, kind: str) -> dict[str, Any]:
    """Distribution of a column's values: classes, or quantiles over trials."""
    values, people = total.values.get(column, Counter()), total.valued.get(column, Counter())
    if kind == "text":
        order = sorted(values, key=lambda v: (-values[v], str(v)))
        return {"classes": {str(v): {"participants": people[v], "samples": values[v]} for v in order}}
    if not values:
        return {"quantiles": {}}
    at = np.array(sorted(values), dtype=float)
    share = np.cumsum([values[v] for v in at]) / sum(values.values())
    return {"quantiles": {f"{q:g}": float(at[np.searchsorted(share, q - 1e-12)]) for q in _QUANTILES}}


def _joint(total: Tally, joint: int) -> dict[str, Any]:
    frames = total.angles[joint]
    edges = np.degrees(np.linspace(LOW_RAD[joint], HIGH_RAD[joint], _BINS + 1))
    share = np.concatenate([[0], np.cumsum(frames) / frames.sum()])
    return {
        "quantiles": {f"{q:g}": round(float(np.interp(q, share, edges)), 1) for q in _QUANTILES},
        "outside": round(float(total.outside[joint] / frames.sum()), 5),
    }


def _off_norm(cycles: Cycles) -> dict[str, float]:
    """Root mean square distance of the mean curve from the norm's, in the norm's SDs, by joint."""
    distances = {}
    for joint, name in enumerate(NAMES):
        norm, mean = norms.gait_band(name), cycles.mean(joint)
        if norm is not None and mean is not None:
            distances[name] = round(float(np.sqrt(np.mean(((mean - norm[0]) / norm[1]) ** 2))), 2)
    return distances


def reasons(quarantined: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """The quarantined by kind of reason, most frequent first: reasons alike but for names and numbers."""
    groups: dict[str, list[dict[str, str]]] = {}
    for item in quarantined:
        text = item["reason"].removeprefix(item["path"] + ": ")
        kind = re.sub(r"line \d+(, column '[^']*')?: |column '[^']*'[:,]? ?", "", text)
        kind = re.sub(r"\(.*?\)|'[^']*'|-?\d+(\.\d+)?", "…", kind).split(": ")[0]
        groups.setdefault(re.split(r"[,;]", kind)[0].strip(), []).append({**item, "reason": text})
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def page(card: Mapping[str, Any], total: Tally) -> str:
    """The card as one page that needs nothing else."""
    template = resources.files("biomechgpt.cohort").joinpath("data_card.html.j2").read_text()
    with plots.style():
        pictures = {
            "walking": _walking_picture(total.walking),
            "joints": _joints_picture(card["joints"]),
            "durations": _bars_picture(card["durations_s"], "seconds", "trials"),
            "age": _age_picture(total.valued.get("age", Counter())),
        }
    return (
        jinja2.Environment(autoescape=True, trim_blocks=True)
        .from_string(template)
        .render(
            card=card,
            plots=plots,
            pictures=pictures,
            reasons=reasons(card["quarantined"]),
            splits=SPLITS,
            curves_source=norms.CURVES.shown,
            measured=MEASURED,
        )
    )


_COLOURS = (plots.RIGHT, plots.LEFT, "#2f855a", "#805ad5", "#d53f8c", "#744210")


def _walking_picture(walking: Mapping[str, Cycles]) -> str:
    """Each group's mean curve of the joints that have norms, beside these; right legs above left ones."""
    groups = sorted(walking, key=lambda group: -walking[group].count.max())[: len(_COLOURS)]
    if not any(walking[group].count.any() for group in groups):
        return ""
    normed = [name for name in NAMES if norms.gait_band(name) is not None]
    rows = [[name for name in normed if name.endswith(side)] for side in ("_r", "_l")]
    figure = Figure(figsize=(12, 5))
    grid = figure.subplots(2, len(rows[0]), sharex=True)
    for names, line in zip(rows, grid, strict=True):
        for name, axes in zip(names, line, strict=True):
            plots.band(axes, name)
            for group, colour in zip(groups, _COLOURS, strict=False):
                mean = walking[group].mean(NAMES.index(name))
                if mean is not None:
                    axes.plot(gait.CYCLE, mean, color=colour, linewidth=1.5, label=group)
            axes.set_title(anatomical_name(name), loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("% of the gait cycle")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(groups), frameon=False)
    return plots.svg(figure)


def _joints_picture(joints: Mapping[str, Any]) -> str:
    """Distribution of each joint's angle over all frames (1 to 99 %, 5 to 95 %, median), within the skeleton's
    range."""
    if not joints:
        return ""
    figure = Figure(figsize=(11, 0.6 + 0.21 * len(joints)))
    axes = figure.subplots()
    for row, (name, angles) in enumerate(joints.items()):
        joint, q = JOINTS[NAMES.index(name)], angles["quantiles"]
        axes.plot([joint.low_deg, joint.high_deg], [row, row], color="#e2e8f0", linewidth=9, zorder=1)
        axes.plot([q["0.01"], q["0.99"]], [row, row], color="#63b3ed", linewidth=2)
        axes.plot([q["0.05"], q["0.95"]], [row, row], color=plots.RIGHT, linewidth=5)
        axes.plot(q["0.5"], row, "o", color="#fff", markersize=3, zorder=3)
    axes.set_yticks(range(len(joints)), [anatomical_name(name) for name in joints])
    axes.invert_yaxis()
    axes.set_xlabel("degrees")
    axes.axvline(0, color=plots.AXIS, linewidth=0.8)
    return plots.svg(figure)


def _bars_picture(counts: Mapping[str, int], xlabel: str, ylabel: str) -> str:
    figure = Figure(figsize=(5, 2.4))
    axes = figure.subplots()
    axes.bar(range(len(counts)), list(counts.values()), color=plots.RIGHT)
    axes.set_xticks(range(len(counts)), list(counts), rotation=30, ha="right")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return plots.svg(figure)


def _age_picture(ages: Mapping[Any, int]) -> str:
    if not ages:
        return ""
    by_decade: Counter[str] = Counter()
    for age, people in sorted(ages.items()):
        by_decade[f"{10 * int(age // 10)}s"] += people
    return _bars_picture(by_decade, "age", "participants")
