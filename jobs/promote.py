"""The best of a sweep or a comparison, by validation participants, becomes the registry's champion."""

from biomechgpt.core.job import run_job
from biomechgpt.experiment.promote import PromoteSettings, run_promote

if __name__ == "__main__":
    run_job(PromoteSettings, run_promote)
