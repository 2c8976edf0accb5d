"""Settings: pydantic models that refuse unknown keys, read from YAML and overridden on the command line.

Each package keeps its settings beside the code that they configure. This module only reads them. Every field is
described by a string literal below it, which `--help` shows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from biomechgpt.core.logs import without_passwords


class InputError(Exception):
    """The user's input is wrong. The message names what and where; a job prints it and exits with 2.

    As text it has no passwords of URIs.
    """

    def __str__(self) -> str:
        return without_passwords(super().__str__())


class StorageError(OSError):
    """The storage did not answer for too long. A job prints it in one line and exits with 1.

    As text it has no passwords of URIs.
    """

    def __str__(self) -> str:
        return without_passwords(super().__str__())


class Settings(BaseModel):
    """Base of every settings model: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


S = TypeVar("S", bound=Settings)


_SHIPPED = (Path(__file__).parents[1], Path(__file__).parents[3])
"""Folders that hold `configs/`: the installed package, or the checkout that it is imported from."""


def find(path: str | Path) -> Path:
    """The path itself; if nothing is there, the file or folder of that name that the package ships.

    So `configs/tasks` means the same in a checkout and in any other folder.
    """
    path = Path(path)
    if path.exists() or path.is_absolute() or path.parts[:1] != ("configs",):
        return path
    return next((folder / path for folder in _SHIPPED if (folder / path).exists()), path)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Reads as yaml.safe_load does, ten times faster where PyYAML has its part in C."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises InputError where the file is absent, no YAML, or no mapping."""
    try:
        content = yaml.load(find(path).read_text(), _Loader)  # noqa: S506 a safe one
    except FileNotFoundError:
        raise InputError(f"{path}: no such settings file") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    return content


def _include(values: Any, folder: Path) -> Any:
    """Replace `{include: FILE, ...}` by that file's settings, the other keys laid over them."""
    if isinstance(values, dict):
        values = {key: _include(value, folder) for key, value in values.items()}
        if "include" in values:
            path = folder / str(values.pop("include"))
            base = _include(read_yaml(path), path.parent)
            return merge(base, values)
    return values


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mappings joined key by key. A mapping of another `kind` replaces the base's."""
    if "kind" in base and over.get("kind", base["kind"]) != base["kind"]:
        return dict(over)
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def plain(settings: Settings) -> dict[str, Any]:
    """The fields that were set, as Python values, also those that `model_dump` excludes."""
    return {
        name: plain(value) if isinstance(value, Settings) else value
        for name, value in settings
        if name in settings.model_fields_set
    }


def override(settings: S, values: Mapping[str, Any], source: str) -> S:
    """`settings` with `{"a.b": value}` laid over them. Raises InputError for an unknown path or a wrong value."""
    result = plain(settings)
    for path, value in values.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        result = merge(result, value)
    return validate(type(settings), result, source)


def validate(model: type[S], values: dict[str, Any], source: str) -> S:
    """Build `model` from `values`. Raises InputError with every wrong key's path and what was expected."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(error, source)) from None


def _explain(error: ValidationError, source: str) -> str:
    lines = [f"{source}: wrong settings"]
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            lines.append(f"  {key}: unknown key")
        else:
            lines.append(f"  {key}: {item['msg']}, found {item.get('input')!r}")
    return "\n".join(lines)


def load(model: type[S], path: str | Path | None, arguments: Sequence[str] = ()) -> S:
    """Settings from a YAML file (or the defaults), with command-line `arguments` (`--a.b VALUE`) laid over them.

    `--a.include FILE` takes the whole group `a` from another file.
    Raises InputError that names each wrong key, option or value.
    """
    values = {} if path is None else _include(read_yaml(path), find(path).parent)
    values, arguments = _included_groups(values, arguments)
    source = str(path or "command line")
    if not arguments:
        return validate(model, values, source)
    return validate(model, merge(values, _options(model, arguments)), source)


def _included_groups(
    values: dict[str, Any], arguments: Sequence[str]
) -> tuple[dict[str, Any], Sequence[str]]:
    """Settings whose groups named by `--a.include FILE` are those of FILE alone, and the other arguments."""
    others: list[str] = []
    left = list(arguments)
    while left:
        option, *rest = left.pop(0).split("=", 1)
        if not (option.startswith("--") and option.endswith(".include")):
            others.append("=".join([option, *rest]))
            continue
        if not rest and not left:
            raise InputError(f"command line: {option}: expected a settings file, found nothing")
        path = rest[0] if rest else left.pop(0)
        *groups, last = option.removeprefix("--").removesuffix(".include").split(".")
        values = dict(values)
        group = values
        for name in groups:
            group[name] = dict(group.get(name) or {})
            group = group[name]
        group[last] = _include(read_yaml(path), find(path).parent)
    return values, others


def _flags(model: type[BaseModel], arguments: Sequence[str]) -> list[str]:
    """The arguments as the library knows them.

    `--a.b true` and `--a.b=false` of yes-or-no settings become `--a.b` and `--no-a.b`. Help and settings files use
    the first form. `--a b c` of a list becomes `--a b --a c`.
    """
    flags: list[str] = []
    left = list(arguments)
    while left:
        option, *rest = left.pop(0).split("=", 1)
        kind = _annotation(model, option[2:]) if option.startswith("--") else None
        if kind is bool:
            value = (
                rest[0] if rest else left.pop(0) if left and left[0].lower() in ("true", "false") else "true"
            )
            if value.lower() not in ("true", "false"):
                raise InputError(f"command line: {option}: expected true or false, found {value!r}")
            flags.append(option if value.lower() == "true" else f"--no-{option[2:]}")
            continue
        flags.append("=".join([option, *rest]))
        if _is_list(kind) and not rest and left:
            flags.append(left.pop(0))
            while left and not left[0].startswith("--"):
                flags += [option, left.pop(0)]
    return flags


def _annotation(model: type[BaseModel], name: str) -> Any:
    """The type of a setting, with its groups before it; None if there is no such setting."""
    *groups, last = name.split(".")
    for group in groups:
        field = model.model_fields.get(group)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return None
        model = field.annotation
    found = model.model_fields.get(last)
    return found and found.annotation


def _is_list(kind: Any) -> bool:
    """Whether a setting of this type has several values: a list or a tuple, also one that may be absent."""
    if get_origin(kind) in (Union, UnionType):
        return any(_is_list(one) for one in get_args(kind))
    return get_origin(kind) in (list, tuple)


class _Refused(Exception):
    """argparse's complaint about an option, in place of its exit."""


def _options(model: type[S], arguments: Sequence[str]) -> dict[str, Any]:
    """The values that options set, and nothing else: a default among them would overrule the settings file."""
    # Imported here: only a command line needs it, and it takes longer to load than pydantic itself.
    import argparse

    from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise _Refused(message)

    class CommandLine(BaseSettings, model):  # type: ignore[misc, valid-type]
        __doc__ = model.__doc__

    try:
        return CliSettingsSource(
            CommandLine,
            root_parser=Parser(allow_abbrev=False, add_help=False),
            cli_parse_args=_flags(model, arguments),
            cli_hide_none_type=True,
            cli_avoid_json=True,
            cli_implicit_flags=True,
        )()
    except (SettingsError, _Refused) as error:
        raise InputError(f"command line: {error} (--help lists all options)") from None
