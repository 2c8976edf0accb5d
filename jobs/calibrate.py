"""Temperatures, prediction sets and intervals, fitted on validation participants."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="calibration")
