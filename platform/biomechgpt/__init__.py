"""Ask clinical questions about how a person moves.

As a library: `load` a model, `read` a recording, and ask (see `biomechgpt.answering.library`).
"""

from typing import TYPE_CHECKING, Any

__version__: str
"""Version of the installed package, as pyproject.toml gives it."""


_LIBRARY = ("load", "read", "read_all", "Answers", "Model", "Recording")
"""Names of `biomechgpt.answering.library` that the package has itself."""
__all__ = ["Answers", "Model", "Recording", "__version__", "load", "read", "read_all"]

if TYPE_CHECKING:
    from biomechgpt.answering.library import Answers, Model, Recording, load, read, read_all


def __getattr__(name: str) -> Any:
    # Read on demand: `import biomechgpt` stays as cheap as an empty package, also where only the folder is there.
    if name == "__version__":
        from importlib.metadata import version

        return version("biomechgpt")
    if name in _LIBRARY:
        from biomechgpt.answering import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
