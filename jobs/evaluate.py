"""Answers beside baselines, measured: an evaluation with its page."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="evaluation")
