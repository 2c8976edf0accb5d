"""An experiment's settings checked, and which of its artifacts are there."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("check")
