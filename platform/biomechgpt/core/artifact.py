"""Artifacts: a folder at any URI that exists once its manifest.json, written last, is there.

`make` is the one way to get an artifact: it returns the finished one where there is one, and otherwise
builds it into the folder that its fingerprint names. A build that died left no manifest, so the next
`make` builds in the same folder, and whatever resumes from there (a training's checkpoints) resumes.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from biomechgpt.core import cluster, storage
from biomechgpt.core.settings import InputError, Settings

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: where it is and what its manifest says."""

    uri: str
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def fingerprint(self) -> str:
        return self.manifest["fingerprint"]

    @property
    def figures(self) -> dict[str, Any]:
        return self.manifest["figures"]

    @property
    def data(self) -> str:
        """The nature of the data it came from: `synthetic`, `recorded` or `synthetic and recorded`."""
        return self.manifest["data"]

    def input(self, name: str) -> "Artifact":
        """The artifact that this one was made from, under the same root. InputError where it is not there."""
        made_from = self.manifest["inputs"][name]
        root = self.uri.rsplit("/", 2)[0]
        return load(storage.join(root, made_from["kind"], made_from["fingerprint"]), made_from["kind"])

    def path(self, name: str) -> str:
        return storage.join(self.uri, name)

    def read_json(self, name: str) -> Any:
        return storage.read_json(self.path(name))

    def __str__(self) -> str:
        return self.uri


def fingerprint(kind: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, Artifact]) -> str:
    """16 hex digits over everything that decides an artifact's content."""
    identity = {
        "kind": kind,
        "version": version,
        "settings": settings,
        "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


Stub = Callable[[str, Mapping[str, Any]], None]
"""Writes into the folder of an artifact (URI, settings) what later steps read to decide on their fingerprints."""

_stubs: ContextVar[Mapping[str, Stub] | None] = ContextVar("stubs", default=None)


@contextmanager
def dry_run(stubs: Mapping[str, Stub]) -> Iterator[None]:
    """Inside, `make` builds nothing: an artifact is its manifest and what the stub of its kind, if any, writes.

    The fingerprints are the real ones as far as the stubs write the real content. Use a temporary root.
    """
    token = _stubs.set(stubs)
    try:
        yield
    finally:
        _stubs.reset(token)


def make(
    kind: str,
    version: int,
    settings: Settings | Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    build: Callable[[str], dict[str, Any]],
    root: str,
    *,
    data: str | None = None,
) -> Artifact:
    """The artifact of `kind` made by `build` from `settings` and `inputs`, built only if it is not there.

    kind: the folder's name under `root`, e.g. "cohort".
    version: of the code that builds it; raise it when the same settings would give another result.
    settings: what decides the content, and nothing else (how many workers does not).
    build: gets the URI of an existing or new folder to write into, returns figures worth showing.
        A key "data" in them sets the nature of the data; else it comes from the inputs or `data`.
    """
    plain = settings.model_dump(mode="json") if isinstance(settings, Settings) else dict(settings)
    mark = fingerprint(kind, version, plain, inputs)
    uri = storage.join(storage.absolute(root), kind, mark)
    if (stubs := _stubs.get()) is not None:
        return _stub(uri, kind, mark, version, plain, inputs, stubs.get(kind), data)
    if found := _found(uri):
        return found
    with cluster.alone(uri):
        # Whoever had the lock before may have built it.
        return _found(uri) or _build(uri, kind, mark, version, plain, inputs, build, data)


def _found(uri: str) -> Artifact | None:
    if not storage.exists(storage.join(uri, MANIFEST)):
        return None
    found = load(uri)
    print(f"{found.kind} {found.fingerprint}: found, reused", flush=True)
    return found


def _build(
    uri: str,
    kind: str,
    mark: str,
    version: int,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    build: Callable[[str], dict[str, Any]],
    data: str | None,
) -> Artifact:
    print(f"{kind} {mark}: building", flush=True)
    started = time.time()
    figures = dict(build(uri))
    nature = figures.pop("data", None) or data or _nature(inputs)
    made = _publish(uri, kind, mark, version, nature, settings, inputs, figures, started)
    print(f"{kind} {mark}: done in {made.manifest['seconds']:.0f} s", flush=True)
    return made


def _stub(
    uri: str,
    kind: str,
    mark: str,
    version: int,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    stub: Stub | None,
    data: str | None,
) -> Artifact:
    if stub is not None:
        stub(uri, settings)
    return _publish(uri, kind, mark, version, data or _nature(inputs), settings, inputs, {}, time.time())


def _publish(
    uri: str,
    kind: str,
    mark: str,
    version: int,
    nature: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    figures: Mapping[str, Any],
    started: float,
) -> Artifact:
    """Write the manifest, which makes the files of a folder an artifact."""
    manifest = {
        "kind": kind,
        "fingerprint": mark,
        "version": version,
        "data": nature,
        "settings": settings,
        "inputs": {name: {"kind": a.kind, "fingerprint": a.fingerprint} for name, a in inputs.items()},
        "figures": figures,
        "files": _checksums(uri),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 2),
    }
    storage.write_json(storage.join(uri, MANIFEST), manifest)
    return Artifact(uri, manifest)


def load(uri: str, kind: str | None = None, *, verify: bool = False) -> Artifact:
    """Open a finished artifact; InputError where it is absent, of another kind, or altered (`verify`)."""
    uri = storage.absolute(uri)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise InputError(f"{uri}: no finished artifact here (no {MANIFEST})")
    artifact = Artifact(uri, storage.read_json(storage.join(uri, MANIFEST)))
    if kind is not None and artifact.kind != kind:
        raise InputError(f"{uri}: expected an artifact of kind {kind!r}, found {artifact.kind!r}")
    if verify:
        found = _checksums(uri)
        for name, checksum in artifact.manifest["files"].items():
            if found.get(name) != checksum:
                state = "missing" if name not in found else "altered"
                raise InputError(f"{uri}: file {name!r} is {state}: its checksum differs from the manifest's")
    return artifact


def _nature(inputs: Mapping[str, Artifact]) -> str:
    natures = {part for artifact in inputs.values() for part in artifact.data.split(" and ")}
    return " and ".join(sorted(natures, reverse=True)) or "none"


def _checksums(uri: str) -> dict[str, str]:
    """SHA-256 of every file but the manifest and a training's own state under `run/`."""
    names = [n for n in storage.list_files(uri) if n != MANIFEST and not n.startswith("run/")]
    return {name: hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest() for name in names}
