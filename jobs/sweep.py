"""Settings and seeds searched by Ray Tune and Optuna on validation participants."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("sweep")
