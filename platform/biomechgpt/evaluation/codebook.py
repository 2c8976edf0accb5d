"""The codebook page: what motion tokens look like, where they occur, and what they lose of a movement.

One self-contained file, made from tokens and the cohort and tokenizer that they came from. What it shows is
sampled and the cohort is read in passing: no more than a few trials' movements are in memory at a time. Knows
nothing about language models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from biomechgpt.cohort import Cohort
from biomechgpt.core import storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.report import render
from biomechgpt.motion import plots
from biomechgpt.motion.kinematics import BONES, LANDMARKS, points_m
from biomechgpt.motion.skeleton import INDEX, JOINTS, NAMES, TRACKED
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.tokens import Tokens

PAGE = "codebook.html"
BY = ("activity", "impaired", "diagnosis")
"""Annotations by which a code's places are told, where the cohort has them."""

_FREQUENT, _TYPICAL = 12, 2
"""Codes that have a card: the most frequent ones, and the most typical ones of each activity."""
_PLACES = 48
"""Occurrences that a code's mean is taken over."""
_CONTEXT_S = 0.3
"""Shown before and after a token."""
_HELD_OUT = 60
"""Trials among which the best and the worst are sought."""
_SHOWN_S = 10.0
"""Of a reconstructed trial."""
_CURVES = ("hip_flexion", "knee_angle", "ankle_angle", "lumbar_extension", "arm_flex", "elbow_flex")
_SIDES = {"_r": "right", "_l": "left"}
_NAMES = tuple(dict.fromkeys(name[:-2] if name[-2:] in _SIDES else name for name in NAMES))
"""Joints without their sides."""

Lift = dict[str, tuple[np.ndarray, float]]
"""By value of an annotation: the share of each code's occurrences that are there (codes,), and of all tokens'. The
quotient is how many times more often a code occurs there."""


@dataclass(frozen=True)
class _Overlay:
    """A held-out trial and what its tokens give back: first seconds in degrees (T, 34), RMSE by joint (34,),
    NaN where a joint was not recorded."""

    trial: str
    measured: np.ndarray
    made: np.ndarray
    rmse: np.ndarray

    @property
    def error(self) -> float:
        return float(np.nanmean(self.rmse[TRACKED]))


def write_codebook(tokens: Artifact, folder: str) -> str:
    """Write `folder`/codebook.html for a tokens artifact, whose cohort and tokenizer are beside it; returns its
    URI. Raises InputError where they are not."""
    cohort, tokenizer = tokens.input("cohort"), tokens.input("tokenizer")
    info = Tokens(tokens).info
    table = Tokens(tokens).annotated_table().to_pandas()
    count = np.bincount(np.concatenate(table["tokens"].tolist()), minlength=info.codebook_size)
    where = {name: lift(table["tokens"], table[name], len(count)) for name in BY if name in table}
    chosen = pick(count, where.get("activity", {}))
    loaded = MotionTokenizer.load(tokenizer.uri)
    found, overlays = _look(cohort, loaded, table, list(chosen), info.tokens_per_step)
    page = render(
        "codebook.html.j2",
        tokens=tokens,
        tokenizer=tokenizer,
        tokens_per_s=info.tokens_per_s,
        tokens_per_step=info.tokens_per_step,
        codes=info.codebook_size,
        used=int((count > 0).sum()),
        ranks=_ranks(count),
        training=_training(tokenizer.metrics.get("history") or []),
        cards=_cards(table, count, chosen, where, found, round(_CONTEXT_S * loaded.frame_rate_hz)),
        context_s=_CONTEXT_S,
        trials=_trials(table, overlays),
        held_out=len(overlays),
        shown_s=_SHOWN_S,
    )
    uri = storage.join(folder, PAGE)
    storage.write_bytes(uri, page.encode())
    return uri


def places(
    tokens: Sequence[np.ndarray], codes: Sequence[int], most: int, seed: int = 0
) -> dict[int, list[tuple[int, int]]]:
    """Where each of these codes occurs, at most `most` places drawn evenly: {code: [(sequence, position)]}."""
    rng = np.random.default_rng(seed)
    every, ends = np.concatenate(tokens), np.cumsum([len(t) for t in tokens])
    found = {}
    for code in codes:
        at = np.flatnonzero(every == code)
        at = np.sort(rng.choice(at, min(most, len(at)), replace=False))
        sequence = np.searchsorted(ends, at, side="right")
        begins = ends[sequence] - [len(tokens[i]) for i in sequence]
        found[code] = list(zip(sequence.tolist(), (at - begins).tolist(), strict=True))
    return found


def lift(tokens: Sequence[np.ndarray], labels: Sequence[Any], codes: int) -> Lift:
    """How tokens spread over an annotation's values. Sequences without a value are left out; the share of a code
    that occurs in none of the others is NaN."""
    count = pd.DataFrame({"value": list(labels), "tokens": list(tokens)}).dropna().groupby("value")["tokens"]
    by = {str(value): np.bincount(np.concatenate(some.tolist()), minlength=codes) for value, some in count}
    total = np.sum(list(by.values()), axis=0, initial=0.0)
    with np.errstate(invalid="ignore"):
        return {value: (n / total, float(n.sum() / np.sum(total))) for value, n in by.items()}


def pick(count: np.ndarray, by: Lift) -> dict[int, str]:
    """Which codes to show, and why: the most frequent ones, then some that are lifted more by one value than by
    any other. The latter are sought among codes with at least half the share that each would have in even use."""
    order = np.argsort(-count, kind="stable")
    chosen = {code: "frequent" for code in order[:_FREQUENT].tolist() if count[code]}
    if by:
        lifts = np.nan_to_num([share / whole for share, whole in by.values()])
        lifts[:, count < count.sum() / len(count) / 2] = 0
        for row, value in enumerate(by):
            ranked = np.argsort(-lifts[row], kind="stable").tolist()
            mine = [
                code for code in ranked if code not in chosen and lifts[row, code] == lifts[:, code].max() > 0
            ]
            chosen |= dict.fromkeys(mine[:_TYPICAL], f"typical of {value}")
    return chosen


def around(angles: np.ndarray, first: int, length: int, context: int) -> np.ndarray:
    """Frames `first` to `first + length` and `context` on either side, (T, 34) -> (length + 2 context, 34); NaN
    beyond the movement's ends."""
    frames = np.arange(first - context, first + length + context)
    inside = (frames >= 0) & (frames < len(angles))
    return np.where(inside[:, None], angles[np.clip(frames, 0, len(angles) - 1)], np.nan)


def choose(errors: Sequence[float], kinds: Sequence[Any]) -> dict[int, list[str]]:
    """Which trials to show, and why: the best, the median and the worst, and the median of every kind
    that has a name."""
    order = np.argsort(errors, kind="stable")
    chosen: dict[int, list[str]] = {}
    for why, at in (("best", 0), ("median", len(order) // 2), ("worst", -1)):
        chosen.setdefault(int(order[at]), []).append(why)
    for kind in sorted({kind for kind in kinds if isinstance(kind, str)}):
        mine = [int(i) for i in order if kinds[i] == kind]
        chosen.setdefault(mine[len(mine) // 2], []).append(f"median of {kind}")
    return chosen


def _look(
    cohort: Artifact, tokenizer: MotionTokenizer, table: pd.DataFrame, codes: list[int], tokens_per_step: int
) -> tuple[dict[int, list[np.ndarray]], list[_Overlay]]:
    """One pass over the cohort, a few trials in memory at a time: movements (frames, 34) in radians around each
    code's places, and overlays."""
    names, step = table["trial"].tolist(), tokenizer.downsampling
    context = round(_CONTEXT_S * tokenizer.frame_rate_hz)
    shown = round(_SHOWN_S * tokenizer.frame_rate_hz)
    wanted: dict[str, list[tuple[int, int]]] = {}
    for code, drawn in places(table["tokens"].tolist(), codes, _PLACES).items():
        for row, position in drawn:
            wanted.setdefault(names[row], []).append((code, position // tokens_per_step * step))
    held = table[table["split"] == "test"].sample(frac=1, random_state=0)
    if "activity" in held:  # every one has its turn
        held = pd.concat([held.drop_duplicates("activity"), held]).drop_duplicates("trial")
    held = held[:_HELD_OUT]
    codes_of = dict(zip(held["trial"], held["tokens"], strict=True))
    found: dict[int, list[np.ndarray]] = {code: [] for code in codes}
    overlays = []
    for name, angles in _movements(cohort, {*wanted, *codes_of}):
        for code, first in wanted.get(name, []):
            found[code].append(around(angles, first, step, context))
        if name in codes_of:
            made = np.degrees(tokenizer.decode([codes_of[name]])[0][: len(angles)])
            measured = np.degrees(angles)
            rmse = np.sqrt(np.mean((made - measured) ** 2, axis=0))
            overlays.append(_Overlay(name, measured[:shown], made[:shown], rmse))
    return found, sorted(overlays, key=lambda overlay: overlay.trial)


def _movements(cohort: Artifact, trials: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(trial, angles (T, 34) radians, NaN where a joint was not recorded) of these trials, in any order."""
    for trial in Cohort(cohort).trials(names=trials):
        yield trial.trial, np.where(trial.joint_mask, trial.angles_rad, np.nan)


def _cards(
    table: pd.DataFrame,
    count: np.ndarray,
    chosen: Mapping[int, str],
    where: Mapping[str, Lift],
    found: Mapping[int, list[np.ndarray]],
    context: int,
) -> list[dict[str, Any]]:
    """What the page says of each chosen code."""
    curves = {}
    with np.errstate(invalid="ignore"):
        for code, movements in found.items():
            degrees = np.degrees(np.stack(movements))
            curves[code] = _mean(degrees), _mean((degrees - _mean(degrees)) ** 2) ** 0.5
    edges = np.stack([mean + sign * sd for mean, sd in curves.values() for sign in (-1, 1)])
    cards = []
    for code, (mean, sd) in curves.items():
        holds = np.array([code in some for some in table["tokens"]])
        last = len(mean) - 1
        pose = np.radians(np.nan_to_num(mean[[context, last - context]]))
        cards.append(
            {
                "code": code,
                "why": chosen[code],
                "share": count[code] / count.sum(),
                "trials": int(holds.sum()),
                "participants": table["participant"][holds].nunique(),
                "figures": _figures(pose),
                "curves": [_curve(name, mean, sd, edges) for name in _CURVES],
                "span": (100 * (context - 0.5) / last, 100 * (last + 1 - 2 * context) / last),
                "where": {name: _most(code, of) for name, of in where.items()},
            }
        )  # fmt: skip
    return cards


def _most(code: int, of: Lift, most: int = 3) -> list[dict[str, Any]]:
    """The values among which a code is most over its share; those with next to nothing of it are left out."""
    rows = [
        {"value": value, "share": share[code], "lift": share[code] / whole}
        for value, (share, whole) in of.items()
        if share[code] >= 0.02
    ]
    return sorted(rows, key=lambda row: -row["lift"])[:most]


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    return np.asarray(np.where(there, values, 0).sum(0) / there.sum(0))


def _curve(name: str, mean: np.ndarray, sd: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """A joint's mean and standard deviation around a token, both sides; `edges` decide what degrees are shown."""
    joints = _sides(name)
    low, high = _range(edges[..., list(joints.values())])
    lines = [(side, _line(mean[:, j], low, high)) for side, j in joints.items()]
    bands = [
        (side, f"{_line((mean - sd)[:, j], low, high)} {_line((mean + sd)[:, j], low, high, back=True)}")
        for side, j in joints.items()
    ]
    about = JOINTS[max(joints.values())].positive
    return {"name": name, "low": low, "high": high, "lines": lines, "bands": bands, "about": about}


def _trials(table: pd.DataFrame, overlays: list[_Overlay]) -> list[dict[str, Any]]:
    """The trials to look at, best first, each joint's measured curve and the one from its tokens."""
    rows = {row["trial"]: row for row in table.drop(columns=["tokens"]).to_dict("records")}
    kinds = [rows[overlay.trial].get("activity") for overlay in overlays]
    chosen = choose([overlay.error for overlay in overlays], kinds) if overlays else {}
    made = []
    for at in sorted(chosen, key=lambda i: overlays[i].error):
        overlay, row = overlays[at], rows[overlays[at].trial]
        joints = []
        for j in (j for name in _NAMES for j in _sides(name).values()):
            if not TRACKED[j] or np.isnan(overlay.rmse[j]):
                continue
            low, high = _range(np.stack([overlay.measured[:, j], overlay.made[:, j]]))
            lines = [
                ("measured", _line(overlay.measured[:, j], low, high)),
                ("made", _line(overlay.made[:, j], low, high)),
            ]
            joints.append({"name": NAMES[j], "rmse": overlay.rmse[j], "low": low, "high": high, "lines": lines,
                           "about": JOINTS[j].positive})  # fmt: skip
        known = [str(row[name]) for name in ("activity", "diagnosis") if isinstance(row.get(name), str)]
        made.append({"why": chosen[at], "trial": overlay.trial, "participant": row["participant"],
                     "known": known, "error": overlay.error, "joints": joints})  # fmt: skip
    return made


def _figures(pose: np.ndarray) -> list[dict[str, Any]]:
    """Stick figures of poses (T, 34) from the right side and from the front, as paths in centimetres."""
    upright = np.tile([0, 0, 0, 1.0, 0, 0, 0], (len(pose), 1))
    points = points_m(pose, upright, ground="frame") * 100
    made = []
    for frame in points:
        # From the front, a person's right is on the viewer's left.
        for across, at in ((frame[:, 0], 70), (-frame[:, 2], 190)):
            paths = {"trunk": "", "left": "", "right": ""}
            for start, end in BONES:
                side = _SIDES.get(LANDMARKS[end][-2:], "trunk")
                ends = ((at + across[i], 185 - frame[i, 1]) for i in (start, end))
                paths[side] += "M{:.0f} {:.0f}L{:.0f} {:.0f}".format(*(v for xy in ends for v in xy))
            made.append(paths)
    return made


def _sides(name: str) -> dict[str, int]:
    """A joint by its name without a side: {side: number}."""
    return (
        {"trunk": INDEX[name]} if name in INDEX else {side: INDEX[name + end] for end, side in _SIDES.items()}
    )


def _range(degrees: np.ndarray) -> tuple[float, float]:
    """Whole degrees that hold these, at least `plots.MIN_RANGE_DEG` of them."""
    there = degrees[~np.isnan(degrees)]
    low, high = (float(there.min()), float(there.max())) if len(there) else (0.0, 0.0)
    more = max(0.0, plots.MIN_RANGE_DEG - (high - low)) / 2
    return float(np.floor(low - more)), float(np.ceil(high + more))


def _line(degrees: np.ndarray, low: float, high: float, *, back: bool = False) -> str:
    """Points of a polyline in a box of 100 x 100, from left to right or back; what is NaN is left out."""
    x, y = np.linspace(0, 100, len(degrees)), 100 * (high - degrees) / (high - low)
    points = [f"{a:.4g},{b:.3g}" for a, b in zip(x, y, strict=True) if not np.isnan(b)]
    return " ".join(reversed(points) if back else points)


def _ranks(count: np.ndarray) -> str:
    """Share of tokens of each code, the most frequent first."""
    share = np.sort(count[count > 0])[::-1] / count.sum()
    with plots.style():
        figure = Figure(figsize=(5.4, 2.6))
        axes = figure.add_subplot()
        axes.plot(np.arange(1, len(share) + 1), 100 * share, color=plots.RIGHT, linewidth=1.5)
        axes.axhline(100 / len(count), color="#999", linewidth=1, linestyle="--")
        axes.set(xlabel="code, by its rank", ylabel="% of tokens", yscale="log", xlim=(1, len(count)))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        return plots.svg(figure)


def _training(history: Sequence[Mapping[str, float]]) -> str:
    """Perplexity and used codes over training steps; nothing where none was recorded."""
    if not history:
        return ""
    steps = [row["step"] for row in history]
    with plots.style():
        figure = Figure(figsize=(5.4, 2.6))
        axes = figure.add_subplot()
        for name, colour in (("codes_used", plots.TRUNK), ("perplexity", plots.RIGHT)):
            label = name.replace("_", " ")
            axes.plot(steps, [row[name] for row in history], color=colour, linewidth=1.5, label=label)
        axes.set(xlabel="training step", ylim=(0, None))
        axes.legend(frameon=False)
        return plots.svg(figure)
