"""An evaluation's page and figures again, from its answers.parquet alone: no model, no cluster."""

from pydantic import Field

from biomechgpt import storage
from biomechgpt.evaluation import summary, table, write_report
from biomechgpt.job import run_job
from biomechgpt.settings import Settings


class Job(Settings):
    answers: str = Field(description="the answers.parquet of an evaluation artifact, or the artifact")
    output: str = Field("results/report", description="folder of report.html and metrics.json")


def main(settings: Job) -> object:
    uri = settings.answers
    if not uri.endswith(".parquet"):
        uri = storage.join(uri, table.FILE)
    print(summary(write_report(uri, settings.output)))
    return storage.join(settings.output, "report.html")


if __name__ == "__main__":
    run_job(Job, main)
