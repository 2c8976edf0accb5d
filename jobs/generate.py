"""Movements generated from descriptions, as .mot files."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("generate")
