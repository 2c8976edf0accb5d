"""Base, adapter, tokenizer, tasks and calibration to the model that is served."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("train", until="model")
