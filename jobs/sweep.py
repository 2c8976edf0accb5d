"""Settings and seeds searched by Ray Tune and Optuna, measured on validation participants."""

from biomechgpt.experiment.sweep import SweepSettings, run_sweep
from biomechgpt.job import run_job

if __name__ == "__main__":
    run_job(SweepSettings, run_sweep)
