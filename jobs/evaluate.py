"""Answers beside baselines, measured: an evaluation with its page."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.evaluation.evaluate import make_evaluation
from biomechgpt.evaluation.settings import EvaluationSettings


class Job(EvaluationSettings):
    answers: str = Field(exclude=True, description="URI of the answers artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_evaluation(artifact.load(settings.answers, "answers"), settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
