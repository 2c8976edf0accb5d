"""A cohort's annotations to questions and answers."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="questions")
