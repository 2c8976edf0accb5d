"""A model's answers about recordings, as a table."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("answer")
