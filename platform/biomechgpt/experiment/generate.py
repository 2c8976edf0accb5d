"""Movements that a model generates, as .mot files, and how they compare with recorded ones."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.generation import GenerateSettings, make_generated


class GenerateMovementsSettings(GenerateSettings):
    """Settings of `biomechgpt generate`."""

    model: str = Field(exclude=True)
    """URI of the model."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// prefix where artifacts live."""


def run_generate(settings: GenerateMovementsSettings) -> Artifact:
    """The `generated` artifact of a model."""
    return make_generated(artifact.load(settings.model, "model"), settings, settings.root)
