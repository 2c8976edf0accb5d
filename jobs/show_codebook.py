"""Motion tokens as a page: what codes look like, where they occur, and what they give back of a movement."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import Settings
from biomechgpt.evaluation.codebook import write_codebook


class Job(Settings):
    tokens: str = Field(description="URI of a tokens artifact, its cohort and tokenizer beside it")
    output: str = Field("results", description="folder, local or s3://, of codebook.html")


def main(settings: Job) -> str:
    return write_codebook(artifact.load(settings.tokens, "tokens"), settings.output)


if __name__ == "__main__":
    run_job(Job, main)
