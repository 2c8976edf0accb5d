"""QLoRA: the base fine-tuned on the questions to an adapter."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="adapter")
