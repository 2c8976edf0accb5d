"""Recordings and annotations (or the simulator) to a cohort."""

from pydantic import Field

from biomechgpt.cohort import CohortSettings, make_cohort
from biomechgpt.core.job import run_job


class Job(CohortSettings):
    root: str = Field("results/artifacts", exclude=True)


def main(settings: Job) -> object:
    return make_cohort(settings, settings.root)


if __name__ == "__main__":
    run_job(Job, main)
