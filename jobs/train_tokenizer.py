"""A cohort to a motion tokenizer."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.tokenizer.settings import TokenizerSettings
from biomechgpt.tokenizer.train import make_tokenizer


class Job(TokenizerSettings):
    cohort: str = Field(exclude=True, description="URI of the cohort artifact")
    start: str | None = Field(None, exclude=True, description="URI of a tokenizer to adapt to the cohort")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    start = artifact.load(settings.start, "tokenizer") if settings.start else None
    return make_tokenizer(artifact.load(settings.cohort, "cohort"), settings, settings.root, start)


if __name__ == "__main__":
    run_job(Job, main)
