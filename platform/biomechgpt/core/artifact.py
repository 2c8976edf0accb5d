"""Artifacts: folders at any URI, finished once their manifest.json, written last, is there.

`make` is the one way to get an artifact. It returns the finished artifact, or builds it into the folder named
by its fingerprint. A build that died left no manifest: the next `make` continues in the same folder, and a
training resumes from its checkpoints there. Knows nothing about what an artifact contains.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from biomechgpt.core import cluster, storage
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact.

    uri: folder with its files.
    manifest: content of its manifest.json.
    """

    uri: str
    manifest: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def metrics(self) -> dict[str, Any]:
        """Numbers about the artifact that its builder returned: counts, errors, sizes."""
        result: dict[str, Any] = self.manifest["metrics"]
        return result

    @property
    def provenance(self) -> str:
        """Where the data came from: `synthetic`, `recorded`, `synthetic and recorded` or `none`."""
        return str(self.manifest["provenance"])

    def input(self, name: str) -> "Artifact":
        """The input artifact of this name, under the same root. Raises InputError if it is absent."""
        entry = self.manifest["inputs"][name]
        root = self.uri.rsplit("/", 2)[0]
        return load(storage.join(root, entry["kind"], entry["fingerprint"]), entry["kind"])

    def path(self, name: str) -> str:
        return storage.join(self.uri, name)

    def read_json(self, name: str) -> Any:
        return storage.read_json(self.path(name))

    def __str__(self) -> str:
        return self.uri


def fingerprint(kind: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, Artifact]) -> str:
    """Hash (16 hex digits) of everything that decides an artifact's content."""
    identity = {
        "kind": kind,
        "version": version,
        "settings": settings,
        "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


_reuse_only: ContextVar[bool] = ContextVar("reuse_only", default=False)


class NotMadeError(Exception):
    """An artifact is not there, and `reuse_only` forbids building it."""


@contextmanager
def reuse_only() -> Iterator[None]:
    """Inside, `make` raises NotMadeError instead of building."""
    token = _reuse_only.set(True)
    try:
        yield
    finally:
        _reuse_only.reset(token)


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
    provenance: str | None = None,
) -> Artifact:
    """Return the artifact of `kind`; build it from `settings` and `inputs` only if it does not exist yet.

    kind: name of the folder under `root`, e.g. "cohort".
    version: version of the builder's code. Raise it when the same settings would give another result.
    settings: only the settings that decide the content (the number of workers does not).
    build: writes the files into the folder at the URI it gets and returns the metrics for the manifest.
        A key "provenance" in the metrics sets the provenance.
    provenance: used if the metrics name none; without either it is collected from the inputs.
    """
    plain = settings.model_dump(mode="json") if isinstance(settings, Settings) else dict(settings)
    identity = fingerprint(kind, version, plain, inputs)
    uri = storage.join(storage.absolute(root), kind, identity)
    plan = _Plan(uri, kind, identity, version, plain, inputs, provenance or _provenance(inputs))
    if (stubs := _stubs.get()) is not None:
        if stub := stubs.get(kind):
            stub(uri, plain)
        return _publish(plan, {}, time.time())
    if finished := _reuse(uri):
        return finished
    if _reuse_only.get():
        raise NotMadeError(uri)
    with cluster.build_lock(uri):
        # Another driver may have built it while this one waited for the lock.
        return _reuse(uri) or _build(plan, build)


@dataclass(frozen=True)
class _Plan:
    """An artifact before it is built: the entries of its manifest that are known by then.

    uri: folder for its files.
    identity: its fingerprint.
    provenance: used unless the builder's metrics name another.
    """

    uri: str
    kind: str
    identity: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    provenance: str


def _reuse(uri: str) -> Artifact | None:
    if not storage.exists(storage.join(uri, MANIFEST)):
        return None
    finished = load(uri)
    logger.info("%s %s: found, reused", finished.kind, finished.fingerprint)
    return finished


def _build(plan: _Plan, build: Callable[[str], dict[str, Any]]) -> Artifact:
    logger.info("%s %s: building", plan.kind, plan.identity)
    started = time.time()
    metrics = dict(build(plan.uri))
    plan = replace(plan, provenance=metrics.pop("provenance", None) or plan.provenance)
    artifact = _publish(plan, metrics, started)
    logger.info("%s %s: done in %.0f s", plan.kind, plan.identity, artifact.manifest["seconds"])
    return artifact


def _publish(plan: _Plan, metrics: Mapping[str, Any], started: float) -> Artifact:
    """Write the manifest, which makes the files of a folder an artifact."""
    manifest = {
        "kind": plan.kind,
        "fingerprint": plan.identity,
        "version": plan.version,
        "provenance": plan.provenance,
        "settings": plan.settings,
        "inputs": {name: {"kind": a.kind, "fingerprint": a.fingerprint} for name, a in plan.inputs.items()},
        "metrics": metrics,
        "files": _checksums(plan.uri),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 2),
    }
    # The manifest comes last: a folder without one is an unfinished build.
    storage.write_json(storage.join(plan.uri, MANIFEST), manifest)
    return Artifact(plan.uri, manifest)


def load(uri: str, kind: str | None = None, *, verify: bool = False) -> Artifact:
    """Open a finished artifact.

    verify: compare every file with the checksum in the manifest.

    Raises InputError if the artifact is absent, of another kind, from an older version, or altered (`verify`).
    """
    uri = storage.absolute(uri)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise InputError(f"{uri}: no finished artifact here (no {MANIFEST})")
    artifact = Artifact(uri, storage.read_json(storage.join(uri, MANIFEST)))
    if "provenance" not in artifact.manifest:
        raise InputError(
            f"{uri}: expected a manifest with `provenance`, found an older version's: build it again"
        )
    if kind is not None and artifact.kind != kind:
        raise InputError(f"{uri}: expected an artifact of kind {kind!r}, found {artifact.kind!r}")
    if verify:
        present = _checksums(uri)
        for name, checksum in artifact.manifest["files"].items():
            if present.get(name) != checksum:
                state = "missing" if name not in present else "altered"
                raise InputError(f"{uri}: file {name!r} is {state}: its checksum differs from the manifest's")
    return artifact


def find(uri: str, *roots: str) -> str:
    """Where the artifact at `uri` is now: its folder may have been moved or copied together with others since.

    roots: folders of artifacts where it is looked for first. Returns `uri` itself if it is in none of them.
    """
    kind_and_fingerprint = PurePosixPath(uri.replace("\\", "/")).parts[-2:]
    for root in roots:
        place = storage.join(root, *kind_and_fingerprint)
        if storage.exists(storage.join(place, MANIFEST)):
            return place
    return uri


def _provenance(inputs: Mapping[str, Artifact]) -> str:
    """Every provenance among the inputs, `synthetic` before `recorded`; `none` without inputs."""
    kinds = {kind for artifact in inputs.values() for kind in artifact.provenance.split(" and ")}
    return " and ".join(sorted(kinds, reverse=True)) or "none"


def _checksums(uri: str) -> dict[str, str]:
    """SHA-256 of every file except the manifest and the training state under `run/`."""
    names = [n for n in storage.list_files(uri) if n != MANIFEST and not n.startswith("run/")]
    return {name: hashlib.sha256(storage.read_bytes(storage.join(uri, name))).hexdigest() for name in names}
