"""How well a tokenizer reconstructs the movements of held-out participants."""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from biomechgpt.cohort.shards import Cohort
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import N_JOINTS, NAMES, PARTS, TRACKED
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.network import perplexity

LEGS = np.isin(np.arange(N_JOINTS), PARTS["legs"])
"""(34,) bool: the joints of the legs."""
GROUPED_BY = ("activity", "diagnosis")
"""Annotations for whose values the error is reported separately, if the cohort has them."""


def read_trials(cohort: Artifact, split: str) -> tuple[list[np.ndarray], np.ndarray, dict[str, list[Any]]]:
    """All trials of a split: movements, masks, and the values of `provenance` and the annotations in `GROUPED_BY`.

    Movements are (T, 34) float32 radians. Masks are (trials, 34) float32, 1 where a joint was recorded.
    Raises InputError for a split without trials.
    """
    opened = Cohort(cohort)
    by = [name for name in GROUPED_BY if name in opened.info.annotations]
    table = opened.table(["split", "angles_rad", "joint_mask", "provenance", *by])
    table = table.filter(pc.equal(table["split"], split))
    if not table.num_rows:
        raise InputError(f"{cohort.uri}: no {split} trials")
    movements = [row.values.to_numpy().reshape(-1, N_JOINTS) for row in table["angles_rad"]]
    masks = np.array(table["joint_mask"].to_pylist(), dtype=np.float32)
    return movements, masks, {name: table[name].to_pylist() for name in ("provenance", *by)}


def held_out(tokenizer: MotionTokenizer, cohort: Artifact, split: str = "test") -> dict[str, Any]:
    """Metrics over whole trials of held-out participants: RMSE in degrees, perplexity, codes used, token rates.

    `rmse_deg_tracked` and `rmse_deg_all` are means over the 26 tracked joints and over all 34. There are also the
    errors of each joint, activity and diagnosis. All movement of a joint that the tokenizer does not encode counts
    as error. `rmse_deg_legs` is the mean over the tracked joints of the legs, `rmse_deg_legs_alone` the same if the
    tokenizer gets nothing but the legs.
    """
    movements, masks, annotations = read_trials(cohort, split)
    tokens = tokenizer.encode(movements, masks)
    squared = squared_errors(tokenizer, movements, tokens)
    squared_legs_alone = squared_errors(tokenizer, movements, tokenizer.encode(movements, masks * LEGS))
    frames = np.array([len(movement) for movement in movements])[:, None] * masks

    def rmse(errors: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """(34,) degrees; NaN for a joint that was recorded in no trial."""
        total = frames[rows].sum(0)
        mean: np.ndarray = np.full(N_JOINTS, np.nan)
        np.divide((errors[rows] * masks[rows]).sum(0), total, out=mean, where=total > 0)
        degrees: np.ndarray = np.degrees(np.sqrt(mean))
        return degrees

    def mean_over(by_joint: np.ndarray, joints: np.ndarray) -> float | None:
        recorded = by_joint[joints & ~np.isnan(by_joint)]
        return round(float(recorded.mean()), 3) if len(recorded) else None

    def by_value(values: list[Any]) -> dict[str, float | None]:
        rows_of = {
            value: [v == value for v in values] for value in sorted({v for v in values if v is not None})
        }
        return {value: mean_over(rmse(squared, rows), TRACKED) for value, rows in rows_of.items()}

    by_joint = rmse(squared)
    reported = tokenizer.network.settings.seen & ~np.isnan(by_joint)
    all_tokens = np.concatenate([codes[tokenizer.n_posture :] for codes in tokens])
    vocabulary = tokenizer.layout.codes
    return {
        "rmse_deg_tracked": mean_over(by_joint, TRACKED),
        "rmse_deg_all": mean_over(by_joint, np.ones(N_JOINTS, dtype=bool)),
        "rmse_deg_legs": mean_over(by_joint, TRACKED & LEGS),
        "rmse_deg_legs_alone": mean_over(rmse(squared_legs_alone), TRACKED & LEGS),
        "perplexity": round(perplexity(all_tokens, vocabulary), 1),
        "codes": vocabulary,
        "codes_used": len(np.unique(all_tokens)),
        "tokens_per_s": round(tokenizer.tokens_per_s, 3),
        "bits_per_s": round(tokenizer.bits_per_s, 2),
        "held_out_trials": len(movements),
        "rmse_deg_by_joint": {
            name: round(float(by_joint[i]), 3) for i, name in enumerate(NAMES) if reported[i]
        },
        **{f"rmse_deg_by_{name}": by_value(values) for name, values in annotations.items()},
    }


def squared_errors(
    tokenizer: MotionTokenizer, movements: list[np.ndarray], tokens: list[np.ndarray]
) -> np.ndarray:
    """Squared error of each trial and joint, summed over its frames: (trials, 34) radians squared."""
    pairs = zip(movements, tokenizer.decode(tokens), strict=True)
    return np.stack([((angles[: len(movement)] - movement) ** 2).sum(0) for movement, angles in pairs])
