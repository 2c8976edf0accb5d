"""A cohort to a motion tokenizer."""

from pydantic import Field

from biomechgpt import artifact
from biomechgpt.job import run_job
from biomechgpt.tokenizer import TokenizerSettings, make_tokenizer


class Job(TokenizerSettings):
    cohort: str = Field(exclude=True, description="URI of the cohort artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_tokenizer(artifact.load(settings.cohort, "cohort"), settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
