"""Answers, XGBoost and chance, measured."""

from pydantic import Field

from biomechgpt import artifact
from biomechgpt.evaluation import EvaluationSettings, make_evaluation
from biomechgpt.job import run_job


class Job(EvaluationSettings):
    answers: str = Field(exclude=True, description="URI of the answers artifact")
    questions: str = Field(exclude=True, description="URI of the questions artifact")
    tokens: str = Field(exclude=True, description="URI of the tokens artifact")
    tokenizer: str = Field(exclude=True, description="URI of the tokenizer artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_evaluation(
        artifact.load(settings.answers, "answers"),
        artifact.load(settings.questions, "questions"),
        artifact.load(settings.tokens, "tokens"),
        artifact.load(settings.tokenizer, "tokenizer"),
        settings,
        settings.root,
    )


if __name__ == "__main__":
    run_job(Job, main)
