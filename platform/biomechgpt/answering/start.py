"""A finished model as the start of another: its base and adapter as artifacts of another cohort.

Nothing is trained here. `make_adapter` goes on from the copied adapter.
"""

from collections.abc import Mapping
from typing import Any

from biomechgpt.answering.bundle import ADAPTER, BASE, ModelBundle
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError
from biomechgpt.language import adapter as adapters
from biomechgpt.language.adapter import AdapterInfo, labels_of
from biomechgpt.tokenizer.tokens import Tokens

VERSION = 1


def keep_base(start: Artifact, tokens: Artifact, tokenizer: Artifact, root: str) -> Artifact:
    """The base artifact of a model, for tokens of a tokenizer with the same codes.

    start: the model. Raises InputError if its prompts write motion tokens in another layout.
    """
    _require_same_layout(start, tokens)

    def build(uri: str) -> dict[str, Any]:
        _copy(start.path(BASE), storage.join(uri, adapters.MODEL))
        return {"base": start.metrics["base"]}

    inputs = {"tokens": tokens, "tokenizer": tokenizer, "start": start}
    return artifact.make("base", VERSION, {"kept": True}, inputs, build, root)


def keep_adapter(
    start: Artifact, base: Artifact, questions: Artifact, tokens: Artifact, root: str
) -> Artifact:
    """The adapter artifact of a model, as that of another cohort's questions and tokens.

    start: the model. base: `keep_base` of it.
    """

    def build(uri: str) -> dict[str, Any]:
        info = ModelBundle(start.uri).info
        if info.adapter:
            _copy(start.path(ADAPTER), storage.join(uri, adapters.WEIGHTS))
        else:  # all weights were trained: the bundle's base has them
            _copy(start.path(BASE), storage.join(uri, adapters.MODEL))
        kept = info.model_dump(mode="json", include=set(AdapterInfo.model_fields)) | {
            "tokenizer": tokens.manifest["inputs"]["tokenizer"]["fingerprint"],
            "labels": labels_of(questions) | info.labels,
        }
        storage.write_json(storage.join(uri, adapters.INFO), kept)
        # Its validation loss was measured on other people.
        left_out = {"calibration", "validation_loss", "best_step", "seconds_validation"}
        return {name: value for name, value in start.metrics.items() if name not in left_out}

    inputs: Mapping[str, Artifact] = {"base": base, "questions": questions, "tokens": tokens, "start": start}
    return artifact.make("adapter", VERSION, {"kept": True}, inputs, build, root)


def _require_same_layout(start: Artifact, tokens: Artifact) -> None:
    config = storage.read_json(storage.join(start.uri, BASE, "config.json"))
    info = Tokens(tokens).info
    expected = "stacked" if config.get("motion_stack") else "flat"
    found = info.layout if info.tokens_per_step > 1 else "flat"
    if expected != found:
        raise InputError(f"{start.uri}: tokens.layout: expected {expected}, this model's, found {found}")


def _copy(source: str, target: str) -> None:
    storage.upload(artifact.local_copy(source), target)
