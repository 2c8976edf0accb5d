"""The whole path, from recordings to a report."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train")
