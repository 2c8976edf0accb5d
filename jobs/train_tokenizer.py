"""A cohort to a motion tokenizer."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="tokenizer")
