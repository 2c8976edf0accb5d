"""A bundle to a merged checkpoint that plain transformers loads, with its model card."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import Settings
from biomechgpt.experiment.export import export_with_card


class Job(Settings):
    model: str = Field(description="URI of the model artifact")
    evaluation: str | None = Field(None, description="URI of its evaluation, for the card's figures")
    root: str = "results/artifacts"


def main(settings: Job) -> object:
    evaluation = artifact.load(settings.evaluation, "evaluation") if settings.evaluation else None
    return export_with_card(artifact.load(settings.model, "model"), settings.root, evaluation)


if __name__ == "__main__":
    run_job(Job, main)
