"""Ask clinical questions about how a person moves."""

__version__: str
"""Version of the installed package, as pyproject.toml gives it."""


def __getattr__(name: str) -> str:
    # Read on demand: `import biomechgpt` stays as cheap as an empty package, also where only the folder is there.
    if name == "__version__":
        from importlib.metadata import version

        return version("biomechgpt")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
