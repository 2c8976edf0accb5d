"""An artifact made again, and compared with the first."""

from biomechgpt.commands import run

if __name__ == "__main__":
    run("reproduce")
