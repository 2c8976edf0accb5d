"""The questions and true answers of a cohort."""

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.questions.dataset import QuestionsSettings, make_questions


class Job(QuestionsSettings):
    cohort: str = Field(exclude=True, description="URI of the cohort artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_questions(artifact.load(settings.cohort, "cohort"), settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
