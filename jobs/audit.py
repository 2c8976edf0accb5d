"""How far a model can be trusted: coverage, out-of-distribution detection, scope and explanations, on one page."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("audit")
