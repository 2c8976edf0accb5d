"""Movements made by a model, as .mot files: from descriptions or going on from others; and how good they are."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.evaluation.generation import GenerateSettings, make_generated


class Job(GenerateSettings):
    model: str = Field(exclude=True, description="URI of the model artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_generated(artifact.load(settings.model, "model"), settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
