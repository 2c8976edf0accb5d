"""An annotations.csv for a folder of recordings, to be filled in."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("new-table")
