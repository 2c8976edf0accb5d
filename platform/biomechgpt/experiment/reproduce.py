"""Makes an artifact again, with everything that it was made from, and compares the files and the metrics.

On one machine the same code gives the same bytes. Other processors and library versions round otherwise; there,
`tolerance` says how far numbers may differ.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.code import code_version
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings, override, validate
from biomechgpt.experiment.pipeline import run_pipeline
from biomechgpt.experiment.settings import STAGES, InputUris, PipelineSettings
from biomechgpt.experiment.tracking import is_number

_ABOUT_THE_RUN = ("seconds", "uri", "path", "made", "experiment", "code")
"""Beginnings of the last part of names of entries that say when, where and for how long something was made."""
_DRAWN = (".html", ".ipynb", ".md")
"""Pages: they are drawn from the files that are compared, and name folders."""


class ReproduceSettings(Settings):
    """The artifact to make again, and the differences that are accepted."""

    artifact: str
    """URI of the artifact: a model, an evaluation, or any other stage's."""
    root: str = "results/reproduced"
    """Folder or s3:// URI that the artifact and its inputs are made in, another than that of the artifact. What it
    holds already is not made again."""
    tolerance: float = Field(0.0, ge=0)
    """Largest difference of a number that is accepted, relative to the number, or absolute where that is below 1.
    0: files have the same bytes, as they do on the machine that made the artifact."""
    accept_gemma_terms: bool = False
    """Whether you accept Google's Gemma terms, for a model that is made of Gemma."""


@dataclass(frozen=True)
class Difference:
    """Where the second artifact is not like the first.

    stage: kind of artifact.
    what: the file, the metric, or the entry of a file.
    original, reproduced: what each has, in words or numbers.
    """

    stage: str
    what: str
    original: str
    reproduced: str


def run_reproduce(settings: ReproduceSettings) -> Artifact:
    """Make an artifact again and compare. With any difference, log a table of them and exit with 1.

    Raises InputError if the artifact is not of an experiment, or if this code or these data make another one.
    """
    original = artifact.load(settings.artifact, verify=True)
    experiment = original.manifest.get("experiment")
    if experiment is None or original.kind not in STAGES:
        raise InputError(
            f"{original.uri}: expected a stage of an experiment with its settings in the manifest, found "
            f"{original.kind} without. Sweeps, comparisons and their evaluations have none: name a model of "
            "theirs. Artifacts of earlier versions have none either"
        )
    if storage.absolute(settings.root) == original.uri.rsplit("/", 2)[0]:
        raise InputError(f"root: expected another folder than that of the artifact, found {settings.root}")
    for what, value in code_version().items():
        before = original.manifest["code"][what]
        if value != before:
            logger.warning("code: %s was %s, now it is %s", what, before, value)
    inputs = validate(InputUris, experiment.get("inputs", {}), "inputs")
    output = storage.join(storage.absolute(settings.root), "report")
    again = validate(
        PipelineSettings,
        {name: value for name, value in experiment.items() if name != "inputs"}
        | {"root": settings.root, "output": output, "least_people": 0},
        f"{original.uri}: experiment",
    )
    if settings.accept_gemma_terms:
        again = override(again, {"language.base.accept_gemma_terms": True}, "command line")
    made = run_pipeline(again, original.kind, inputs)
    found = list(differences(original, made, settings.tolerance))
    originals = artifact.chain(original)
    compared = f"{len(originals)} artifacts, {sum(len(one.manifest['files']) for one in originals)} files"
    if found:
        many = "1 difference" if len(found) == 1 else f"{len(found)} differences"
        logger.info("%s\nreproduce: %s in %s", table(found), many, compared)
        raise SystemExit(1)
    how = "with the same bytes" if not settings.tolerance else f"within {settings.tolerance:g}"
    logger.info("reproduce: %s, %s", compared, how)
    return made


def differences(original: Artifact, made: Artifact, tolerance: float = 0.0) -> Iterator[Difference]:
    """All differences between two artifacts and between those that they were made from."""
    again = {one.kind: one for one in artifact.chain(made)}
    for one in artifact.chain(original):
        other = again.get(one.kind)
        if other is None or other.fingerprint != one.fingerprint:
            found = "none" if other is None else other.fingerprint
            yield Difference(one.kind, "fingerprint", one.fingerprint, found)
        else:
            yield from _between(one, other, tolerance)


def _between(one: Artifact, other: Artifact, tolerance: float) -> Iterator[Difference]:
    """Differences between two artifacts of one fingerprint."""
    for name, first, second in _entries(one.metrics, other.metrics, tolerance):
        yield Difference(one.kind, f"metric {name}", first, second)
    for name, checksum in one.manifest["files"].items():
        second_checksum = other.manifest["files"].get(name)
        if checksum == second_checksum or name.endswith(_DRAWN):
            continue
        if second_checksum is None:
            yield Difference(one.kind, name, "there", "missing")
        elif name.endswith(".json"):
            for entry, first, second in _entries(one.read_json(name), other.read_json(name), tolerance):
                yield Difference(one.kind, f"{name} {entry}", first, second)
        else:
            yield from _content(one, other, name, tolerance)
    for name in other.manifest["files"].keys() - one.manifest["files"].keys():
        yield Difference(one.kind, name, "missing", "there")


def _entries(one: Any, other: Any, tolerance: float) -> Iterator[tuple[str, str, str]]:
    """(name, first, second) of the entries of two JSON contents that differ and are not about the run."""
    first, second = (dict(_flat(content)) for content in (one, other))
    for name in sorted(first.keys() | second.keys()):
        if any(part.startswith(_ABOUT_THE_RUN) for part in name.split(".")):
            continue
        a, b = first.get(name, "missing"), second.get(name, "missing")
        if a != b and not _close(a, b, tolerance):
            yield name, str(a), str(b)


def _flat(content: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dictionaries and lists, each with the keys and places that lead to it."""
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        if all(isinstance(value, str) for value in content):  # libraries write sets as lists, in any order
            content = sorted(content)
        items = list(enumerate(content))
    else:
        yield before, content
        return
    for key, value in items:
        yield from _flat(value, f"{before}.{key}" if before else str(key))


def _close(a: Any, b: Any, tolerance: float) -> bool:
    return is_number(a) and is_number(b) and bool(abs(a - b) <= tolerance * max(1.0, abs(a)))


def _content(one: Artifact, other: Artifact, name: str, tolerance: float) -> Iterator[Difference]:
    """Differences between two tables or two files of weights; of any other file, that its bytes differ."""
    read = _READERS.get(name.rsplit(".", 1)[-1])
    if read is None:
        yield Difference(one.kind, name, "other bytes", "other bytes")
        return
    first, second = (read(storage.read_bytes(each.path(name))) for each in (one, other))
    for column in sorted(first.keys() | second.keys()):
        if column not in first or column not in second:
            states = ("there" if column in content else "missing" for content in (first, second))
            yield Difference(one.kind, f"{name} {column}", *states)
            continue
        a, b = first[column], second[column]
        if a.shape != b.shape:
            yield Difference(one.kind, f"{name} {column}", f"shape {a.shape}", f"shape {b.shape}")
        elif np.issubdtype(a.dtype, np.number) and np.issubdtype(b.dtype, np.number):
            far = ~np.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
            if far.any():
                k = int(np.nanargmax(np.where(far, np.abs(a.astype(float) - b.astype(float)), -1)))
                yield Difference(
                    one.kind,
                    f"{name} {column}, {far.sum()} of {a.size}",
                    f"{a.flat[k]:.6g}",
                    f"{b.flat[k]:.6g}",
                )
        elif (unequal := np.array([str(x) != str(y) for x, y in zip(a.flat, b.flat, strict=True)])).any():
            k = int(unequal.argmax())
            shown = (str(value.flat[k])[:40] for value in (a, b))
            yield Difference(one.kind, f"{name} {column}, {unequal.sum()} of {a.size}", *shown)


def _table(content: bytes) -> dict[str, np.ndarray]:
    frame = pd.read_parquet(io.BytesIO(content))
    return {str(name): frame[name].to_numpy() for name in frame}


def _weights(content: bytes) -> dict[str, np.ndarray]:
    from safetensors.torch import load  # numpy has no bfloat16

    return {name: tensor.float().numpy() for name, tensor in load(content).items()}


_READERS: dict[str, Callable[[bytes], dict[str, np.ndarray]]] = {"parquet": _table, "safetensors": _weights}


def table(found: Sequence[Difference]) -> str:
    """The differences as a text: one line for each."""
    rows = [("stage", "what", "original", "reproduced")]
    rows += [(row.stage, row.what, row.original, row.reproduced) for row in found]
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join(
        "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )
