"""The model's answers to the questions of held-out participants."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="answers")
