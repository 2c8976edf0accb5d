"""A cohort and a tokenizer to motion tokens."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="tokens")
