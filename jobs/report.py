"""An evaluation's page and figures again, from its answers.parquet alone: no model, no cluster."""

from pydantic import Field

from biomechgpt.core import storage
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import Settings
from biomechgpt.evaluation import answers_table
from biomechgpt.evaluation.report import summary, write_report


class Job(Settings):
    answers: str = Field(description="the answers.parquet of an evaluation artifact, or the artifact")
    output: str = Field("results/report", description="folder of report.html and metrics.json")


def main(settings: Job) -> object:
    uri = settings.answers
    if not uri.endswith(".parquet"):
        uri = storage.join(uri, answers_table.FILE)
    print(summary(write_report(uri, settings.output)))
    return storage.join(settings.output, "report.html")


if __name__ == "__main__":
    run_job(Job, main)
