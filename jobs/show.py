"""A recording, a trial, a codebook or a report as a picture or page."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("show")
