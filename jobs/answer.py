"""A bundle's answers to the questions of held-out participants."""

from pydantic import Field

from biomechgpt.answering.batch import make_answers
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.core import artifact
from biomechgpt.core.job import run_job


class Job(BatchAnswerSettings):
    model: str = Field(exclude=True, description="URI of the model artifact")
    questions: str = Field(exclude=True, description="URI of the questions artifact")
    tokens: str = Field(exclude=True, description="URI of the tokens artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_answers(
        artifact.load(settings.model, "model"),
        artifact.load(settings.questions, "questions"),
        artifact.load(settings.tokens, "tokens"),
        settings,
        settings.root,
    )


if __name__ == "__main__":
    run_job(Job, main)
