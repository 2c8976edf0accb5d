"""Settings and seeds searched by Ray Tune and Optuna, measured on validation participants."""

from biomechgpt.core.job import run_job
from biomechgpt.experiment.sweep import SweepSettings, run_sweep

if __name__ == "__main__":
    run_job(SweepSettings, run_sweep)
