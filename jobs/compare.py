"""Variants over seeds in the paper's two tables."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("compare")
