"""A language base with motion in its vocabulary."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.language.pretrain import make_base
from biomechgpt.language.settings import BaseSettings


class Job(BaseSettings):
    questions: str = Field(exclude=True, description="URI of the questions artifact")
    tokens: str = Field(exclude=True, description="URI of the tokens artifact")
    tokenizer: str = Field(exclude=True, description="URI of the tokenizer artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_base(
        artifact.load(settings.questions, "questions"),
        artifact.load(settings.tokens, "tokens"),
        artifact.load(settings.tokenizer, "tokenizer"),
        settings,
        settings.root,
    )


if __name__ == "__main__":
    run_job(Job, main)
