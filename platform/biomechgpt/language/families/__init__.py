"""Families of language models. To add one, write a module with its `Family` record and list it in `FAMILIES`."""

from typing import Any

from biomechgpt.core.settings import InputError
from biomechgpt.language.families.family import Family
from biomechgpt.language.families.gemma3 import GEMMA3
from biomechgpt.language.families.llama import LLAMA

FAMILIES: dict[str, Family] = {family.name: family for family in (GEMMA3, LLAMA)}
"""By name."""


def family_of(config: Any) -> Family:
    """The family of a model's configuration. InputError for a model of an unknown family."""
    return family_of_type(config.model_type, "language model")


def family_of_type(model_type: str | None, where: str) -> Family:
    """The family of a `model_type`. where: what the error message names. InputError for an unknown one."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(f"{name} ({', '.join(family.model_types)})" for name, family in FAMILIES.items())
    raise InputError(
        f"{where}: expected a model_type of a known family, {known}, found {model_type!r} "
        "(a family is a record in biomechgpt/language/families)"
    )


def family_at(checkpoint: str) -> Family:
    """The family of a checkpoint: a local folder, or a hub name in the local cache. Else InputError."""
    import transformers

    config, _ = transformers.PretrainedConfig.get_config_dict(checkpoint, local_files_only=True)
    return family_of_type(config.get("model_type"), checkpoint)
