"""A cohort and a tokenizer to motion tokens."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.tokenizer.settings import TokensSettings
from biomechgpt.tokenizer.tokens import make_tokens


class Job(TokensSettings):
    cohort: str = Field(exclude=True, description="URI of the cohort artifact")
    tokenizer: str = Field(exclude=True, description="URI of the tokenizer artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_tokens(
        artifact.load(settings.cohort, "cohort"),
        artifact.load(settings.tokenizer, "tokenizer"),
        settings,
        settings.root,
    )


if __name__ == "__main__":
    run_job(Job, main)
