"""A language model with motion tokens in its vocabulary."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="base")
