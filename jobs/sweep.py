"""Settings and seeds searched by Ray Tune and Optuna, measured on validation participants."""

from biomechgpt.core.job import run_job
from biomechgpt.experiment.sweep import SweepSettings, run_sweep, show_sweep


def main(settings: SweepSettings) -> object:
    sweep = run_sweep(settings)
    print(show_sweep(sweep))
    return sweep


if __name__ == "__main__":
    run_job(SweepSettings, main)
