"""Runs one function with settings from a file and the command line, and prints where its result is."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from biomechgpt.core import cluster
from biomechgpt.core.logs import logged_to_stdout
from biomechgpt.core.settings import InputError, Settings, StorageError, load

S = TypeVar("S", bound=Settings)
CONFIG = (
    "Settings file (YAML). Its keys are the options below; `a: {b: 1}` is --a.b 1. --a.include FILE takes the "
    "whole group a from another file."
)
WIDTH = 100
"""Columns of the text of --help."""


def run_job(
    model: type[S],
    main: Callable[[S], Any],
    *,
    description: str = "",
    example: str = "",
    arguments: Sequence[str] | None = None,
) -> None:
    """Read settings, run `main`, and print `artifact: RESULT` as the last line. Wrong input exits with 2.

    A storage that is away exits with 1, also in one line.

    description, example: shown by --help.
    arguments: of the command line; by default the process's own.
    """
    program = Path(sys.argv[0]).name
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        print(help_text(model, program=program, description=description, example=example), end="")
        return
    ray_before = cluster.is_connected()
    try:
        with logged_to_stdout():
            result = main(read_settings(model, arguments))
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except StorageError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if cluster.is_connected() and not ray_before:
        sys.modules["ray"].shutdown()  # prints what workers still had to say, so that our line is the last
    if result is not None:
        print(f"artifact: {result}", flush=True)


def read_settings(model: type[S], arguments: Sequence[str]) -> S:
    """Settings from `--config FILE` and options. Raises InputError for an unknown option or a wrong value."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    given, options = parser.parse_known_args(list(arguments))
    if given.config is None and any(argument.split("=")[0] == "--config" for argument in arguments):
        raise InputError("command line: --config: expected a settings file, found nothing")
    return load(model, given.config, options)


def help_text(
    model: type[Settings],
    *,
    program: str,
    description: str = "",
    example: str = "",
    positional: str | None = None,
) -> str:
    """The text of --help: usage, an example, and every option with its kind, default and description."""
    argument = f" {positional.upper()}" if positional else ""
    lines = [f"usage: {program}{argument} [--config FILE] [--OPTION VALUE ...]", ""]
    lines += [*textwrap.wrap(description, WIDTH), ""] if description else []
    lines += [f"example: {example}", ""] if example else []
    if positional:
        named = " ".join(f"--{name} {name.upper()}" for name in positional.split())
        verb = "are" if " " in positional else "is"
        lines += [f"{positional.upper()} {verb} the same as {named}.", ""]
    lines += ["  --config FILE"]
    lines += textwrap.wrap(CONFIG, WIDTH, initial_indent="      ", subsequent_indent="      ")
    for name, field in options(model):
        lines.append(f"  --{name} {_kind(field)}{_default(field)}")
        lines += textwrap.wrap(
            field.description or "", WIDTH, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines) + "\n"


def options(
    model: type[Settings], prefix: str = "", default: Settings | None = None
) -> Iterator[tuple[str, FieldInfo]]:
    """Every option of a settings model, nested ones with their path: `training.learning_rate`.

    default: the group as the settings above it have it by default, which may differ from the model's own defaults.
    """
    for name, field in model.model_fields.items():
        nested = list(_nested(field.annotation))
        value = getattr(default, name) if type(default) is model else field.default
        if not nested:
            yield prefix + name, _with_default(field, value) if type(default) is model else field
            continue
        paths = set()
        if isinstance(field.discriminator, str):
            # One model for each kind: the kinds first, then the options of all of them.
            kind = nested[0].model_fields[field.discriminator]
            kinds: Any = Literal[tuple(option.model_fields[field.discriminator].default for option in nested)]
            path = f"{prefix}{name}.{field.discriminator}"
            yield path, FieldInfo(annotation=kinds, default=kind.default, description=kind.description)
            paths.add(path)
        for option in nested:
            for path, inner in options(
                option, f"{prefix}{name}.", value if isinstance(value, Settings) else None
            ):
                if path not in paths:
                    yield path, inner
                    paths.add(path)


def _with_default(field: FieldInfo, value: Any) -> FieldInfo:
    changed = copy(field)
    changed.default, changed.default_factory = value, None
    return changed


def _nested(annotation: Any) -> Iterator[type[Settings]]:
    """The settings model of an annotation, also of `Model | None`; nothing for a list or mapping of models."""
    alternatives = getattr(annotation, "__args__", ()) if "|" in str(annotation) else ()
    for option in (annotation, *alternatives):
        if isinstance(option, type) and issubclass(option, Settings):
            yield option


def _kind(field: FieldInfo) -> str:
    """The kind of value that an option takes, in short."""
    annotation: Any = field.annotation
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "bool": "true|false"}.get(
            annotation.__name__, annotation.__name__.upper()
        )
    if any(get_origin(option) is Annotated for option in get_args(annotation)):
        # A bound, such as "at least 1", belongs to the check of the value and not to its kind.
        options = (get_args(o)[0] if get_origin(o) is Annotated else o for o in get_args(annotation))
        annotation = Union[tuple(options)]  # noqa: UP007 the options are known when this runs
    text = str(annotation).replace("typing.", "").replace("NoneType", "None")
    if text.startswith("Union["):
        return (
            text.removeprefix("Union[")
            .removesuffix("]")
            .replace("Literal['", "")
            .replace("']", "")
            .replace(", ", "|")
        )
    if text.startswith("Literal["):
        return text.removeprefix("Literal[").rstrip("]").replace(", ", "|").replace("'", "")
    for module in ("biomechgpt.", "pydantic."):
        while module in text:
            start = text.index(module)
            end = start + len(text[start:].split("]")[0].split(",")[0].split(" ")[0])
            text = text[:start] + text[start:end].rpartition(".")[2] + text[end:]
    return text


_LONGEST_DEFAULT = 500
"""Characters of the longest default that --help prints."""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "  (required)"
    value = field.default
    if field.default_factory is not None or value is PydanticUndefined:
        value = field.get_default(call_default_factory=True, validated_data={})
    # Content of files, such as maps, is no default that a reader of --help would want to read.
    return "" if value is None or len(str(value)) > _LONGEST_DEFAULT else f"  (default: {value})"
