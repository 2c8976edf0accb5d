"""The codebook page: what motion tokens look like, where they occur, and how well they reconstruct a movement.

One self-contained file, made from a tokens artifact and its cohort and tokenizer. The page shows a sample, and the
cohort is read once, a few trials at a time, so that few movements are in memory. Knows nothing about language
models.
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
"""Annotations that the page counts a code's occurrences by, if the cohort has them."""

_FREQUENT, _TYPICAL = 12, 2
"""Number of codes with a card: the most frequent ones, and the most typical ones of each activity."""
_PLACES = 48
"""Largest number of occurrences that a code's mean is taken over."""
_CONTEXT_S = 0.3
"""Seconds that are shown before and after a token."""
_HELD_OUT = 60
"""Number of held-out trials that are reconstructed."""
_SHOWN_S = 10.0
"""Seconds of a reconstructed trial that are shown."""
_CURVES = ("hip_flexion", "knee_angle", "ankle_angle", "lumbar_extension", "arm_flex", "elbow_flex")
_SIDES = {"_r": "right", "_l": "left"}
_NAMES = tuple(dict.fromkeys(name[:-2] if name[-2:] in _SIDES else name for name in NAMES))
"""Joints without their sides."""

Lift = dict[str, tuple[np.ndarray, float]]
"""{value of an annotation: (share of each code's occurrences that have this value, (codes,); share of all tokens)}.

The lift of a code is the quotient: how many times more often than average it occurs with this value.
"""


@dataclass(frozen=True)
class _Overlay:
    """A held-out trial and its reconstruction from tokens.

    measured, decoded: first seconds of the joint angles, (T, 34) degrees.
    rmse: (34,) degrees.
    Joints that were not recorded are NaN in `measured` and `rmse`.
    """

    trial: str
    measured: np.ndarray
    decoded: np.ndarray
    rmse: np.ndarray

    @property
    def error(self) -> float:
        """Mean RMSE of the tracked joints, in degrees."""
        return float(np.nanmean(self.rmse[TRACKED]))


def write_codebook(tokens: Artifact, folder: str) -> str:
    """Write `folder`/codebook.html for a tokens artifact; returns the page's URI.

    Raises InputError if the cohort or the tokenizer of the tokens does not exist.
    """
    cohort, tokenizer = tokens.input("cohort"), tokens.input("tokenizer")
    info = Tokens(tokens).info
    table = Tokens(tokens).annotated_table().to_pandas()
    loaded = MotionTokenizer.load(tokenizer.uri)
    motion = [codes[info.n_posture :] for codes in table["tokens"]]  # the page shows no posture tokens
    count = np.bincount(np.concatenate(motion), minlength=loaded.layout.codes)
    where = {name: lift(motion, table[name], len(count)) for name in BY if name in table}
    chosen = pick(count, where.get("activity", {}))
    movements, overlays = _read_movements(cohort, loaded, table, list(chosen), info.tokens_per_step)
    page = render(
        "codebook.html.j2",
        tokens=tokens,
        tokenizer=tokenizer,
        tokens_per_s=info.tokens_per_s,
        tokens_per_step=info.tokens_per_step,
        codes=len(count),
        used=int((count > 0).sum()),
        ranks=_ranks(count),
        training=_training([row for row in tokenizer.metrics.get("history", []) if "perplexity" in row]),
        cards=_cards(table, count, chosen, where, movements, round(_CONTEXT_S * loaded.frame_rate_hz)),
        context_s=_CONTEXT_S,
        trials=_trials(table, overlays),
        held_out=len(overlays),
        shown_s=_SHOWN_S,
    )
    uri = storage.join(folder, PAGE)
    storage.write_bytes(uri, page.encode())
    return uri


def places(
    tokens: Sequence[np.ndarray], codes: Sequence[int], max_places: int, seed: int = 0
) -> dict[int, list[tuple[int, int]]]:
    """Where codes occur: {code: [(sequence, position)]}, at most `max_places` of each, drawn at random."""
    rng = np.random.default_rng(seed)
    all_tokens, ends = np.concatenate(tokens), np.cumsum([len(t) for t in tokens])
    places_of = {}
    for code in codes:
        positions = np.flatnonzero(all_tokens == code)
        positions = np.sort(rng.choice(positions, min(max_places, len(positions)), replace=False))
        # A position in the joined tokens belongs to the first sequence that ends after it.
        sequence = np.searchsorted(ends, positions, side="right")
        begins = ends[sequence] - [len(tokens[i]) for i in sequence]
        places_of[code] = list(zip(sequence.tolist(), (positions - begins).tolist(), strict=True))
    return places_of


def lift(tokens: Sequence[np.ndarray], labels: Sequence[Any], codes: int) -> Lift:
    """How tokens spread over an annotation's values.

    Sequences without a value are left out. A code that occurs in no other sequence gets NaN.
    """
    table = pd.DataFrame({"value": list(labels), "tokens": list(tokens)}).dropna()
    counts = {
        str(value): np.bincount(np.concatenate(sequences.tolist()), minlength=codes)
        for value, sequences in table.groupby("value")["tokens"]
    }
    total = np.sum(list(counts.values()), axis=0, initial=0.0)
    with np.errstate(invalid="ignore"):
        return {value: (count / total, float(count.sum() / np.sum(total))) for value, count in counts.items()}


def pick(count: np.ndarray, by_value: Lift) -> dict[int, str]:
    """The codes to show: {code: the reason}. First the most frequent ones, then the typical ones of each value.

    A code is typical of the value with which its lift is largest. Rare codes are left out: their lift says little.
    """
    order = np.argsort(-count, kind="stable")
    chosen = {code: "frequent" for code in order[:_FREQUENT].tolist() if count[code]}
    if by_value:
        lifts = np.nan_to_num([share / share_of_all for share, share_of_all in by_value.values()])
        # Rare: less than half the count that each code would have if all were used evenly.
        lifts[:, count < count.sum() / len(count) / 2] = 0
        for row, value in enumerate(by_value):
            ranked = np.argsort(-lifts[row], kind="stable").tolist()
            typical = [
                code for code in ranked if code not in chosen and lifts[row, code] == lifts[:, code].max() > 0
            ]
            chosen |= dict.fromkeys(typical[:_TYPICAL], f"typical of {value}")
    return chosen


def around(angles: np.ndarray, first: int, length: int, context: int) -> np.ndarray:
    """The frames of a token and those around it: (T, 34) -> (length + 2 context, 34).

    first, length: the token's first frame and number of frames.
    context: frames on either side. Frames beyond the movement's ends are NaN.
    """
    frames = np.arange(first - context, first + length + context)
    inside = (frames >= 0) & (frames < len(angles))
    return np.where(inside[:, None], angles[np.clip(frames, 0, len(angles) - 1)], np.nan)


def choose(errors: Sequence[float], kinds: Sequence[Any]) -> dict[int, list[str]]:
    """The trials to show: {row: reasons}. The best, the median and the worst, and the median of each kind.

    errors: of each trial.
    kinds: name of each trial's kind, such as its activity; None if it has none.
    """
    order = np.argsort(errors, kind="stable")
    chosen: dict[int, list[str]] = {}
    for reason, rank in (("best", 0), ("median", len(order) // 2), ("worst", -1)):
        chosen.setdefault(int(order[rank]), []).append(reason)
    for kind in sorted({kind for kind in kinds if isinstance(kind, str)}):
        rows = [int(row) for row in order if kinds[row] == kind]
        chosen.setdefault(rows[len(rows) // 2], []).append(f"median of {kind}")
    return chosen


def _read_movements(
    cohort: Artifact, tokenizer: MotionTokenizer, table: pd.DataFrame, codes: list[int], tokens_per_step: int
) -> tuple[dict[int, list[np.ndarray]], list[_Overlay]]:
    """The movements around the places of each code, (frames, 34) radians, and the overlays of held-out trials.

    The cohort is read once, a few trials in memory at a time.
    """
    names, step = table["trial"].tolist(), tokenizer.downsampling
    context = round(_CONTEXT_S * tokenizer.frame_rate_hz)
    n_shown = round(_SHOWN_S * tokenizer.frame_rate_hz)
    # {trial: [(code, first frame)]}
    places_in: dict[str, list[tuple[int, int]]] = {}
    motion = [tokens[tokenizer.n_posture :] for tokens in table["tokens"]]
    for code, drawn in places(motion, codes, _PLACES).items():
        for row, position in drawn:
            places_in.setdefault(names[row], []).append((code, position // tokens_per_step * step))
    held_out = table[table["split"] == "test"].sample(frac=1, random_state=0)
    if "activity" in held_out:  # a trial of each activity comes first, so that none is missing
        held_out = pd.concat([held_out.drop_duplicates("activity"), held_out]).drop_duplicates("trial")
    held_out = held_out[:_HELD_OUT]
    tokens_of = dict(zip(held_out["trial"], held_out["tokens"], strict=True))
    movements: dict[int, list[np.ndarray]] = {code: [] for code in codes}
    overlays = []
    for name, angles in _angles(cohort, {*places_in, *tokens_of}):
        for code, first in places_in.get(name, []):
            movements[code].append(around(angles, first, step, context))
        if name in tokens_of:
            decoded = np.degrees(tokenizer.decode([tokens_of[name]])[0][: len(angles)])
            measured = np.degrees(angles)
            rmse = np.sqrt(np.mean((decoded - measured) ** 2, axis=0))
            overlays.append(_Overlay(name, measured[:n_shown], decoded[:n_shown], rmse))
    return movements, sorted(overlays, key=lambda overlay: overlay.trial)


def _angles(cohort: Artifact, trials: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(trial, joint angles) of these trials, in any order. Angles: (T, 34) radians, NaN if not recorded."""
    for trial in Cohort(cohort).trials(names=trials):
        yield trial.trial, np.where(trial.joint_mask, trial.angles_rad, np.nan)


def _cards(
    table: pd.DataFrame,
    count: np.ndarray,
    chosen: Mapping[int, str],
    where: Mapping[str, Lift],
    movements: Mapping[int, list[np.ndarray]],
    context: int,
) -> list[dict[str, Any]]:
    """The values of the page's card of each chosen code.

    where: {annotation: how tokens spread over its values}.
    movements: {code: movements around its places}, each with `context` frames on either side.
    """
    curves = {}
    with np.errstate(invalid="ignore"):
        for code, of_code in movements.items():
            degrees = np.degrees(np.stack(of_code))
            curves[code] = _mean(degrees), _mean((degrees - _mean(degrees)) ** 2) ** 0.5
    # All cards show a joint in the same range of degrees, so that their curves can be compared.
    edges = np.stack([mean + sign * sd for mean, sd in curves.values() for sign in (-1, 1)])
    cards = []
    for code, (mean, sd) in curves.items():
        has_code = np.array([code in tokens for tokens in table["tokens"]])
        last = len(mean) - 1
        # Poses of the token's first and last frame.
        pose = np.radians(np.nan_to_num(mean[[context, last - context]]))
        cards.append(
            {
                "code": code,
                "why": chosen[code],
                "share": count[code] / count.sum(),
                "trials": int(has_code.sum()),
                "participants": table["participant"][has_code].nunique(),
                "figures": _figures(pose),
                "curves": [_curve(name, mean, sd, edges) for name in _CURVES],
                "span": (100 * (context - 0.5) / last, 100 * (last + 1 - 2 * context) / last),
                "where": {name: _top_values(code, by_value) for name, by_value in where.items()},
            }
        )  # fmt: skip
    return cards


def _top_values(code: int, by_value: Lift, count: int = 3) -> list[dict[str, Any]]:
    """The values with the largest lift of a code. Values with less than 2 % of its occurrences are left out."""
    rows = [
        {"value": value, "share": share[code], "lift": share[code] / share_of_all}
        for value, (share, share_of_all) in by_value.items()
        if share[code] >= 0.02
    ]
    return sorted(rows, key=lambda row: -row["lift"])[:count]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN if all are NaN. Unlike `np.nanmean`, it does not warn."""
    present = ~np.isnan(values)
    return np.asarray(np.where(present, values, 0).sum(0) / present.sum(0))


def _curve(name: str, mean: np.ndarray, sd: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """A joint's mean and standard deviation around a token, on both sides of the body.

    mean, sd: (frames, 34) degrees.
    edges: (n, frames, 34) degrees that the shown range must hold.
    """
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
    """The trials to show, best first, with each joint's measured curve and its reconstruction."""
    rows = {row["trial"]: row for row in table.drop(columns=["tokens"]).to_dict("records")}
    kinds = [rows[overlay.trial].get("activity") for overlay in overlays]
    chosen = choose([overlay.error for overlay in overlays], kinds) if overlays else {}
    shown = []
    for number in sorted(chosen, key=lambda i: overlays[i].error):
        overlay = overlays[number]
        row = rows[overlay.trial]
        joints = []
        for j in (j for name in _NAMES for j in _sides(name).values()):
            if not TRACKED[j] or np.isnan(overlay.rmse[j]):
                continue
            low, high = _range(np.stack([overlay.measured[:, j], overlay.decoded[:, j]]))
            lines = [
                ("measured", _line(overlay.measured[:, j], low, high)),
                ("decoded", _line(overlay.decoded[:, j], low, high)),
            ]
            joints.append({"name": NAMES[j], "rmse": overlay.rmse[j], "low": low, "high": high, "lines": lines,
                           "about": JOINTS[j].positive})  # fmt: skip
        annotations = [str(row[name]) for name in ("activity", "diagnosis") if isinstance(row.get(name), str)]
        shown.append({"why": chosen[number], "trial": overlay.trial, "participant": row["participant"],
                      "annotations": annotations, "error": overlay.error, "joints": joints})  # fmt: skip
    return shown


def _figures(pose: np.ndarray) -> list[dict[str, Any]]:
    """Stick figures of poses (T, 34) from the right side and from the front, as paths in centimetres."""
    upright = np.tile([0, 0, 0, 1.0, 0, 0, 0], (len(pose), 1))
    points = points_m(pose, upright, ground="frame") * 100
    figures = []
    for frame in points:
        # (horizontal coordinate, centre of the figure). From the front, a person's right is on the viewer's left.
        for across, centre in ((frame[:, 0], 70), (-frame[:, 2], 190)):
            paths = {"trunk": "", "left": "", "right": ""}
            for start, end in BONES:
                side = _SIDES.get(LANDMARKS[end][-2:], "trunk")
                ends = ((centre + across[i], 185 - frame[i, 1]) for i in (start, end))
                paths[side] += "M{:.0f} {:.0f}L{:.0f} {:.0f}".format(*(v for xy in ends for v in xy))
            figures.append(paths)
    return figures


def _sides(name: str) -> dict[str, int]:
    """{side: number} of the joints with a name without a side; the side of a trunk joint is `trunk`."""
    return (
        {"trunk": INDEX[name]} if name in INDEX else {side: INDEX[name + end] for end, side in _SIDES.items()}
    )


def _range(degrees: np.ndarray) -> tuple[float, float]:
    """Lowest and highest degree to show, both whole: a range of at least `plots.MIN_RANGE_DEG`."""
    finite = degrees[~np.isnan(degrees)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    margin = max(0.0, plots.MIN_RANGE_DEG - (high - low)) / 2
    return float(np.floor(low - margin)), float(np.ceil(high + margin))


def _line(degrees: np.ndarray, low: float, high: float, *, back: bool = False) -> str:
    """Points of a polyline in a box of 100 x 100, from left to right; NaN is left out.

    back: from right to left. A band is its lower edge, then its upper edge backwards.
    """
    x, y = np.linspace(0, 100, len(degrees)), 100 * (high - degrees) / (high - low)
    points = [f"{a:.4g},{b:.3g}" for a, b in zip(x, y, strict=True) if not np.isnan(b)]
    return " ".join(reversed(points) if back else points)


def _ranks(count: np.ndarray) -> str:
    """Plot of the share of tokens of each code, the most frequent first."""
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
    """Plot of perplexity and used codes over training steps; empty text without a history."""
    if not history:
        return ""
    steps = [row["step"] for row in history]
    with plots.style():
        figure = Figure(figsize=(5.4, 2.6))
        axes = figure.add_subplot()
        for name, color in (("codes_used", plots.TRUNK), ("perplexity", plots.RIGHT)):
            label = name.replace("_", " ")
            axes.plot(steps, [row[name] for row in history], color=color, linewidth=1.5, label=label)
        axes.set(xlabel="training step", ylim=(0, None))
        axes.legend(frameon=False)
        return plots.svg(figure)
