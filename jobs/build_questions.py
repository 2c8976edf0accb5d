"""Motion tokens and their annotations to questions and answers."""

from pydantic import Field

from biomechgpt import artifact
from biomechgpt.dialogue.questions import QuestionsSettings, make_questions
from biomechgpt.job import run_job


class Job(QuestionsSettings):
    tokens: str = Field(exclude=True, description="URI of the tokens artifact")
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_questions(artifact.load(settings.tokens, "tokens"), settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
