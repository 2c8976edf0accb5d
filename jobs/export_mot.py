"""A cohort to OpenSim .mot files with annotations.csv, for other software or to be read again."""

from pydantic import Field

from biomechgpt.cohort.export import export_mot
from biomechgpt.core import artifact
from biomechgpt.core.job import run_job
from biomechgpt.core.settings import Settings


class Job(Settings):
    cohort: str = Field(description="URI of the cohort artifact")
    root: str = "results/artifacts"


def main(settings: Job) -> object:
    return export_mot(artifact.load(settings.cohort, "cohort"), settings.root)


if __name__ == "__main__":
    run_job(Job, main)
