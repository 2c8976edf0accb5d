"""QLoRA of a base on questions, the calibration of its answers, and the model that answers."""

from pydantic import Field

from biomechgpt.answering.batch import make_calibration
from biomechgpt.answering.bundle import make_model
from biomechgpt.answering.settings import AnswerSettings
from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.language.finetune import FinetuneSettings, make_adapter
from biomechgpt.questions.tasks import load_tasks


class Job(FinetuneSettings):
    base: str = Field(exclude=True, description="URI of the base artifact")
    questions: str = Field(exclude=True, description="URI of the questions artifact")
    tokens: str = Field(exclude=True, description="URI of the tokens artifact")
    tokenizer: str = Field(exclude=True, description="URI of the tokenizer artifact")
    tasks: list[str] = Field(["configs/tasks"], exclude=True, description="folders of task files")
    answers: AnswerSettings = Field(AnswerSettings(), exclude=True)
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    base, questions, tokens, tokenizer = (
        artifact.load(getattr(settings, kind), kind) for kind in ("base", "questions", "tokens", "tokenizer")
    )
    adapter = make_adapter(base, questions, tokens, settings, settings.root)
    calibration = make_calibration(adapter, questions, tokens, settings.answers, settings.root)
    return make_model(base, adapter, tokenizer, calibration, load_tasks(settings.tasks), settings.root)


if __name__ == "__main__":
    run_job(Job, main)
