"""Recordings that are nearly the same, and participants' names that are nearly the same: warnings for the data
card.

Identical recordings are kept out when a cohort is built. A copy without its last frame, with every second frame,
with rounded angles or with its first half only is another file, yet the same movement. If it belongs to another
participant it may be on the other side of a split. Pure functions of arrays and names.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from biomechgpt.motion.trial import Trial

WINDOW_S = 1.5
"""Length of a recording's start and end, which are compared with other recordings' starts and ends."""
MAX_LAG_S = 0.2
"""Longest shift in time between two copies."""
MAX_RMSE_DEG = 0.5
"""Largest difference of two copies, over all recorded joints. Two repetitions of a movement differ by degrees."""
MIN_MOVEMENT_DEG = 2.0
"""Least standard deviation of some joint in a window. Windows of persons who stand still are alike."""
NEIGHBOURS = 8
"""Most similar windows that are compared exactly."""


@dataclass(frozen=True)
class Excerpt:
    """The start and the end of one trial.

    windows: (T, 34) degrees each, joints that were not recorded as 0.
    """

    trial: str
    participant: str
    split: str
    windows: tuple[np.ndarray, ...]
    frame_rate_hz: float


def excerpt(trial: Trial) -> Excerpt:
    """What is kept of a trial to compare it with all others."""
    frames = max(round(WINDOW_S * trial.frame_rate_hz), 2)
    degrees = np.where(trial.joint_mask, np.degrees(trial.angles_rad), 0.0).astype(np.float32)
    return Excerpt(
        trial.trial,
        trial.participant,
        trial.split,
        (degrees[:frames], degrees[-frames:]),
        trial.frame_rate_hz,
    )


def find_near_copies(excerpts: Sequence[Excerpt]) -> list[dict[str, Any]]:
    """Pairs of trials with the same start or end: {trials, participants, splits, rmse_deg, same_participant}.

    Windows are compared by the mean and the standard deviation of each joint, which a small shift changes little.
    The most similar ones are then laid over each other at every shift up to MAX_LAG_S.
    """
    pairs: dict[tuple[int, int], float] = {}
    for place in (0, 1):
        moving = [
            number
            for number, e in enumerate(excerpts)
            if len(e.windows[place]) > 4 and e.windows[place].std(axis=0).max() > MIN_MOVEMENT_DEG
        ]
        if len(moving) < 2:
            continue
        windows = [excerpts[number].windows[place] for number in moving]
        summaries = np.array([np.concatenate([w.mean(axis=0), w.std(axis=0)]) for w in windows])
        _, nearest = cKDTree(summaries).query(summaries, k=min(NEIGHBOURS + 1, len(moving)))
        for row, others in enumerate(nearest):
            for other in others:
                if other <= row:
                    continue
                max_lag = round(MAX_LAG_S * excerpts[moving[row]].frame_rate_hz)
                rmse = _aligned_rmse(windows[row], windows[other], max_lag)
                key = (moving[row], moving[other])
                if rmse <= MAX_RMSE_DEG:
                    pairs[key] = min(rmse, pairs.get(key, rmse))
    return [_pair(excerpts[a], excerpts[b], rmse) for (a, b), rmse in sorted(pairs.items())]


def _pair(a: Excerpt, b: Excerpt, rmse_deg: float) -> dict[str, Any]:
    return {
        "trials": [a.trial, b.trial],
        "participants": [a.participant, b.participant],
        "splits": [a.split, b.split],
        "rmse_deg": round(rmse_deg, 3),
        "same_participant": a.participant == b.participant,
    }


def _aligned_rmse(a: np.ndarray, b: np.ndarray, max_lag: int) -> float:
    """The least RMSE in degrees at any shift, over joints that either moves or holds away from 0."""
    used = (np.abs(a).max(axis=0) > 1e-3) | (np.abs(b).max(axis=0) > 1e-3)
    if not used.any():
        return np.inf
    least = np.inf
    for lag in range(-max_lag, max_lag + 1):
        first, second = (a[lag:], b) if lag >= 0 else (a, b[-lag:])
        frames = min(len(first), len(second))
        # A short overlap fits by chance.
        if frames * 2 < max(len(a), len(b)):
            continue
        difference = first[:frames, used] - second[:frames, used]
        least = min(least, float(np.sqrt(np.mean(difference**2))))
    return least


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only in case, separators or leading zeros: `P01`, `p1`, `P-01`."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        # A separator between two digits stays: S1_02 is not S10_2.
        plain = re.sub(r"(?<!\d)[\s_.\-]+|[\s_.\-]+(?!\d)", "", name.casefold())
        groups.setdefault(re.sub(r"(?<!\d)0+(?=\d)", "", plain), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def warnings(near_copies: Sequence[dict[str, Any]], alike: Sequence[Sequence[str]]) -> list[str]:
    """Sentences for the log: copies of different participants, and names that may be one person."""
    texts = []
    for pair in near_copies:
        if pair["same_participant"]:
            continue
        (a, b), (p, q), (s, t) = pair["trials"], pair["participants"], pair["splits"]
        split = f", in splits {s} and {t}" if s != t else ""
        texts.append(
            f"{a} of {p} and {b} of {q} are nearly the same recording ({pair['rmse_deg']} deg){split}"
        )
    texts += [f"participants {', '.join(group)} differ only in case, zeros or separators" for group in alike]
    return texts
