"""Makes the tokenizer artifact. Loads torch and Ray only when it trains."""

from typing import Any

from biomechgpt.cohort.shards import Cohort
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.core.training import fit
from biomechgpt.tokenizer.settings import TokenizerSettings

VERSION = 2


def make_tokenizer(
    cohort: Artifact, settings: TokenizerSettings, root: str, start: Artifact | None = None
) -> Artifact:
    """The tokenizer artifact, with `model.safetensors` and `tokenizer.json`.

    start: a tokenizer to adapt to this cohort. It keeps its codebook and its scale of each joint.
    Raises InputError if `start` has another network or another frame rate.
    """
    if start:
        _require_same_network(start, cohort, settings)

    def build(uri: str) -> dict[str, Any]:
        from biomechgpt.tokenizer.training_task import TokenizerTask

        arguments = {"cohort": cohort.uri, "settings": settings.model_dump()}
        if start:
            arguments["start"] = start.uri
        return fit(TokenizerTask, arguments, settings.training, uri, "tokenizer")

    inputs = {"cohort": cohort, **({"start": start} if start else {})}
    return artifact.make("tokenizer", VERSION, settings, inputs, build, root)


def keep_tokenizer(start: Artifact, cohort: Artifact, root: str) -> Artifact:
    """A finished tokenizer as that of another cohort: a copy, measured on this cohort's held-out participants."""

    def build(uri: str) -> dict[str, Any]:
        from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
        from biomechgpt.tokenizer.reconstruction import held_out

        tokenizer = MotionTokenizer.load(start.uri)
        tokenizer.save(uri)
        return held_out(tokenizer, cohort)

    inputs = {"cohort": cohort, "start": start}
    return artifact.make("tokenizer", VERSION, {"kept": True}, inputs, build, root)


def _require_same_network(start: Artifact, cohort: Artifact, settings: TokenizerSettings) -> None:
    """Raise InputError for the first setting of `start` that differs."""
    saved = start.read_json("tokenizer.json")
    network = settings.network.model_dump(mode="json")
    pairs = {key: (saved["network"].get(key), value) for key, value in network.items()}
    pairs["frame_rate_hz"] = (saved["frame_rate_hz"], Cohort(cohort).info.frame_rate_hz)
    for key, (expected, found) in pairs.items():
        if expected != found:
            raise InputError(f"{start.uri}: {key}: expected {expected}, this tokenizer's, found {found}")
