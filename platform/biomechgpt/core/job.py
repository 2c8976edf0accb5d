"""What every script in jobs/ does around the one function that it calls."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray

from biomechgpt.core.settings import InputError, Settings, load

S = TypeVar("S", bound=Settings)


def run_job(model: type[S], main: Callable[[S], Any]) -> None:
    """Read settings, run, print `artifact: URI` as the last line; bad input exits with 2."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config")
    known, rest = first.parse_known_args()
    try:
        result = main(load(model, known.config, rest))
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    ray.shutdown()  # what workers still had to say comes before the last line
    print(f"artifact: {result}")
