"""Adapts a finished model to the recordings of a cohort: its tokenizer first, then its adapter.

After each of the two, validation participants of the cohort decide whether the result is better than the start. If
it is not, the start is kept as it is. Test participants have no influence.
"""

from collections.abc import Callable
from typing import Any

from biomechgpt.answering.bundle import MOTION_TOKENIZER, ModelBundle
from biomechgpt.answering.library import find_model
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError
from biomechgpt.experiment.scores import validate
from biomechgpt.language.adapter import require_same_adapter
from biomechgpt.language.settings import FinetuneSettings
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.train import keep_tokenizer, make_tokenizer

VERSION = 1
FILE = "adaptation.json"


def start_of(where: str) -> Artifact:
    """The model to start from: its URI, or a folder of results. Raises InputError if there is none."""
    return artifact.load(find_model(where), "model")


def check(where: str, finetune: FinetuneSettings) -> None:
    """Raise InputError, before any work, if there is no model to start from or if training cannot go on from it."""
    require_same_adapter(ModelBundle(start_of(where).uri).info, finetune)


def own_tokenizer(start: Artifact, cohort: Artifact, root: str) -> Artifact:
    """The tokenizer of the model `start` as it is, as an artifact of a cohort."""
    return keep_tokenizer(artifact.load(start.path(MOTION_TOKENIZER), "tokenizer"), cohort, root)


def better_tokenizer(start: Artifact, cohort: Artifact, settings: TokenizerSettings, root: str) -> Artifact:
    """The adaptation artifact of the tokenizer of the model `start`, by its errors on a cohort's participants.

    Raises InputError for a tokenizer of other settings, and for a cohort without validation participants.
    """
    if not cohort.metrics["participants"].get("validation"):
        raise InputError(
            f"{cohort.uri}: expected validation participants, who decide whether the adapted model is better than "
            "its start, found none (cohort.splits)"
        )
    kept = own_tokenizer(start, cohort, root)
    adapted = make_tokenizer(cohort, settings, root, artifact.load(start.path(MOTION_TOKENIZER), "tokenizer"))

    def error_deg(tokenizer: Artifact) -> float:
        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
        from biomechgpt.tokenizer.reconstruction import held_out

        return float(held_out(MotionTokenizer.load(tokenizer.uri), cohort, "validation")["rmse_deg_tracked"])

    return adaptation(adapted, kept, error_deg, "RMSE in degrees", root)


def better_model(adapted: Artifact, kept: Artifact, root: str) -> Artifact:
    """The adaptation artifact of two models that were calibrated on the same validation participants."""
    return adaptation(adapted, kept, lambda model: float(validate(model, root)["score"]), "mean score", root)


def adaptation(
    adapted: Artifact, kept: Artifact, score: Callable[[Artifact], float], measure: str, root: str
) -> Artifact:
    """The artifact that says which of two is better on validation participants, and why: `adaptation.json`.

    adapted: after training. kept: the start. score: of either, on validation participants.
    measure: what the score is; of a mean score more is better, of an error less.
    """
    less_is_better = measure.startswith("RMSE")

    def build(uri: str) -> dict[str, Any]:
        scores = {"adapted": score(adapted), "start": score(kept)}
        gain = scores["adapted"] - scores["start"]
        better = gain < 0 if less_is_better else gain > 0
        result = {
            "what": adapted.kind,
            "measure": measure,
            "kept": "adapted" if better else "start",
            **scores,
        }
        storage.write_json(storage.join(uri, FILE), result)
        return result

    made = artifact.make(
        "adaptation", VERSION, {"measure": measure}, {"adapted": adapted, "start": kept}, build, root
    )
    logger.info("%s", in_words(made))
    return made


def winner(decided: Artifact) -> Artifact:
    """The artifact that an adaptation kept."""
    return decided.input(str(decided.metrics["kept"]))


def in_words(decided: Artifact) -> str:
    """The decision of an adaptation as a sentence."""
    found = decided.metrics
    kept = "the adapted one is kept" if found["kept"] == "adapted" else "the start is kept as it is"
    return (
        f"{found['what']}: {kept}: {found['measure']} on validation participants {found['adapted']:.3f} after "
        f"adaptation, {found['start']:.3f} before"
    )
