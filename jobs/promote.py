"""The best model of a sweep or comparison as the registry's champion."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("promote")
