"""Variants x seeds in the paper's two tables, its columns beside ours."""

from biomechgpt.core.job import run_job
from biomechgpt.experiment.compare import CompareSettings, run_compare, show_comparison


def main(settings: CompareSettings) -> object:
    comparison = run_compare(settings)
    print(show_comparison(comparison))
    return comparison


if __name__ == "__main__":
    run_job(CompareSettings, main)
