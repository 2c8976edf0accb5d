"""Recordings and annotations, or the simulator, to a cohort."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="cohort")
