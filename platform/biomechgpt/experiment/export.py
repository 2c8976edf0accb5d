"""Exports an artifact for other software: a cohort as OpenSim files, a model as one merged checkpoint."""

from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings


class ExportSettings(Settings):
    """Settings of `biomechgpt export`."""

    artifact: str
    """URI of a cohort (written as .mot files with annotations.csv) or of a model (written as one checkpoint)."""
    evaluation: str | None = None
    """URI of the model's evaluation, whose metrics go into the model card."""
    root: str = "results/artifacts"
    """Folder or s3:// prefix where artifacts live."""


def run_export(settings: ExportSettings) -> Artifact:
    """The `recordings` artifact of a cohort, or the `checkpoint` artifact of a model."""
    source = artifact.load(settings.artifact)
    if source.kind == "cohort":
        from biomechgpt.cohort.export import export_mot

        return export_mot(source, settings.root)
    if source.kind == "model":
        from biomechgpt.experiment.checkpoint import export_model

        evaluation = artifact.load(settings.evaluation, "evaluation") if settings.evaluation else None
        return export_model(source, settings.root, evaluation)
    raise InputError(f"{source.uri}: expected a cohort or a model to export, found a {source.kind}")
