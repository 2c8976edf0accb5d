"""A cohort as .mot files, or a model as one merged checkpoint."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("export")
