"""Artifacts: folders at any URI, finished once their manifest.json is there.

`make` is the one way to get an artifact. It returns the finished artifact, or builds it. Each attempt to build has
a hidden folder of its own, and the lease on the artifact says whose turn it is. A whole build is published at once
under the name of its fingerprint: a local folder is renamed; on S3 files are copied, and the manifest comes last.
So files of two attempts never mix. Of an attempt that died, the next one takes over the folder `run`, which has the
checkpoints that a training resumes from. Knows nothing about what an artifact contains.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from biomechgpt.core import cache, storage
from biomechgpt.core import lease as leases
from biomechgpt.core.code import code_version
from biomechgpt.core.lease import Lease, LeaseLostError
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError, Settings

MANIFEST = "manifest.json"
RUN = "run"
"""Folder of a build that the next attempt takes over, and that is not published: checkpoints, a study."""
_BUILD = ".build-"
_COPIED_AT_ONCE = 64


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


_experiment: ContextVar[Mapping[str, Any] | None] = ContextVar("experiment", default=None)


@contextmanager
def of_experiment(settings: Mapping[str, Any]) -> Iterator[None]:
    """Inside, manifests keep these settings of the whole experiment, from which the artifact can be made again."""
    token = _experiment.set(settings)
    try:
        yield
    finally:
        _experiment.reset(token)


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
        return _write_manifest(plan, uri, {}, time.time())
    while True:
        if finished := _reuse(uri):
            return finished
        if _reuse_only.get():
            raise NotMadeError(uri)
        with leases.hold(uri) as lease:
            # Another process may have built it while this one waited for the lease.
            if finished := _reuse(uri):
                _remove_attempts(uri, lease)
                return finished
            try:
                return _build(plan, build, lease)
            except LeaseLostError:
                logger.warning("%s %s: another process took over, its result is used", kind, identity)
                if finished := _reuse(uri):
                    _remove_attempts(uri, lease)
                    return finished


def chain(made: Artifact) -> list[Artifact]:
    """An artifact after all those that it was made from, each once; those that are no longer there are left out."""
    found: dict[str, Artifact] = {}

    def add(one: Artifact) -> None:
        for name in one.manifest["inputs"]:
            with suppress(InputError):
                add(one.input(name))
        found.setdefault(one.uri, one)

    add(made)
    return list(found.values())


def published(uri: str) -> str:
    """Where a build will be published, from the folder that `make` gives to its builder."""
    parent, name = uri.rsplit("/", 1)
    return storage.join(
        parent, name.removeprefix(_BUILD).rpartition("-")[0] if name.startswith(_BUILD) else name
    )


@dataclass(frozen=True)
class _Plan:
    """An artifact before it is built: the entries of its manifest that are known by then.

    uri: where it will be published.
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


def _build(plan: _Plan, build: Callable[[str], dict[str, Any]], lease: Lease) -> Artifact:
    logger.info("%s %s: building", plan.kind, plan.identity)
    started = time.time()
    folder = _folder(plan.uri, lease.token)
    try:
        _take_over(plan.uri, folder, lease)
        metrics = dict(build(folder))
        plan = replace(plan, provenance=metrics.pop("provenance", None) or plan.provenance)
        artifact = _publish(plan, folder, metrics, started, lease)
    except BaseException:
        with suppress(Exception):  # the storage may be away, and the first error is the one to show
            _tidy(folder, lease)
        raise
    logger.info("%s %s: done in %.0f s", plan.kind, plan.identity, artifact.manifest["seconds"])
    return artifact


def _folder(uri: str, token: str) -> str:
    """The folder that an attempt builds in, beside the artifact's."""
    parent, name = uri.rsplit("/", 1)
    return storage.join(parent, f"{_BUILD}{name}-{token}")


def _take_over(uri: str, folder: str, lease: Lease) -> None:
    """Copy the checkpoints of earlier attempts, newer over older, and remove what these attempts left.

    They are copied, not moved: an attempt that is not dead but slow goes on writing into its own files.
    """
    if MANIFEST in storage.list_files(uri):
        raise LeaseLostError(uri)
    # Earlier versions built at `uri` itself.
    places = [uri, *(_folder(uri, token) for token in reversed(lease.former))]
    for place in places:
        names = [n for n in storage.list_files(place) if n.startswith(f"{RUN}/") and not _is_temporary(n)]
        storage.copy(place, folder, names)
    for place in places:
        storage.remove(place)


def _tidy(folder: str, lease: Lease) -> None:
    """Remove what a build that failed has left, except its checkpoints; without any, also the lease."""
    names = {name.split("/")[0] for name in storage.list_files(folder)}
    if RUN not in names:
        storage.remove(folder)
        lease.check()
        lease.remove()
        return
    for name in names - {RUN}:
        storage.remove(storage.join(folder, name))


def _publish(plan: _Plan, folder: str, metrics: Mapping[str, Any], started: float, lease: Lease) -> Artifact:
    """Make a build the artifact, all at once. Raises LeaseLostError if it is another process's turn."""
    storage.remove(storage.join(folder, RUN))
    for name in storage.list_files(folder):
        if _is_temporary(name):
            storage.remove(storage.join(folder, name))
    lease.check()
    if storage.is_remote(folder):
        manifest = _manifest(plan, folder, metrics, started)
        names = list(manifest["files"])
        for i in range(0, len(names), _COPIED_AT_ONCE):
            lease.check()
            storage.copy(folder, plan.uri, names[i : i + _COPIED_AT_ONCE])
        for name in set(storage.list_files(plan.uri)) - {*names, MANIFEST}:  # of an attempt that died here
            storage.remove(storage.join(plan.uri, name))
        lease.check()
        if not storage.create(storage.join(plan.uri, MANIFEST), storage.to_json(manifest)):
            raise LeaseLostError(plan.uri)
    else:
        manifest = _write_manifest(plan, folder, metrics, started).manifest
        if not storage.rename_new(folder, plan.uri):
            if storage.exists(storage.join(plan.uri, MANIFEST)):
                raise LeaseLostError(plan.uri)
            raise InputError(
                f"{plan.uri}: expected no such folder, found files of another program: remove them"
            )
    _remove_attempts(plan.uri, lease)
    with suppress(Exception):  # then they are computed when it is read
        states = storage.states(plan.uri)
        _remember(plan.uri, {name: (states[name], checksum) for name, checksum in manifest["files"].items()})
    return Artifact(plan.uri, manifest)


def _remove_attempts(uri: str, lease: Lease) -> None:
    """Remove what attempts to build a published artifact have left."""
    with suppress(Exception):  # it harms nobody
        for token in (lease.token, *lease.former):
            storage.remove(_folder(uri, token))
        lease.remove()


def _write_manifest(plan: _Plan, folder: str, metrics: Mapping[str, Any], started: float) -> Artifact:
    manifest = _manifest(plan, folder, metrics, started)
    storage.write_json(storage.join(folder, MANIFEST), manifest)
    return Artifact(folder, manifest)


def _manifest(plan: _Plan, folder: str, metrics: Mapping[str, Any], started: float) -> dict[str, Any]:
    return {
        "kind": plan.kind,
        "fingerprint": plan.identity,
        "version": plan.version,
        "provenance": plan.provenance,
        "settings": plan.settings,
        "inputs": {name: {"kind": a.kind, "fingerprint": a.fingerprint} for name, a in plan.inputs.items()},
        "experiment": _experiment.get(),
        "code": code_version(),
        "metrics": metrics,
        "files": _checksums(folder),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 2),
    }


def load(uri: str, kind: str | None = None, *, verify: bool = False) -> Artifact:
    """Open a finished artifact, and check that its files are those that were published (see `_check`).

    verify: compute all checksums, also of files that have not changed since they were computed.

    Raises InputError if the artifact is absent, of another kind, from an older version, or altered. The message
    names the file.
    """
    uri = storage.absolute(uri)
    if not storage.exists(storage.join(uri, MANIFEST)):
        raise InputError(f"{uri}: no finished artifact here (no {MANIFEST})")
    artifact = Artifact(uri, _read_manifest(uri))
    if "provenance" not in artifact.manifest:
        raise InputError(
            f"{uri}: expected a manifest with `provenance`, found an older version's: build it again"
        )
    if kind is not None and artifact.kind != kind:
        raise InputError(f"{uri}: expected an artifact of kind {kind!r}, found {artifact.kind!r}")
    if verify:
        _compare(uri, artifact.manifest["files"], _checksums(uri))
    else:
        _check(uri, artifact.manifest)
    return artifact


def _read_manifest(uri: str) -> dict[str, Any]:
    """Raises InputError if it is damaged, or of another artifact than its folder is named after."""
    place = storage.join(uri, MANIFEST)
    try:
        manifest = storage.read_json(place)
        found = str(manifest["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place}: expected a manifest, found a damaged file ({error!r})") from None
    name = uri.rsplit("/", 1)[1]
    if _FINGERPRINT.fullmatch(name) and name != found:  # a copy may have any other name
        raise InputError(f"{place}: expected fingerprint {name}, as its folder's name, found {found}")
    return dict(manifest)


_FINGERPRINT = re.compile("[0-9a-f]{16}")
_READ_AT_LOAD = 64_000_000


def _check(uri: str, manifest: Mapping[str, Any]) -> None:
    """Raise InputError for a file that is missing or not the published one.

    Checksums are kept in this user's cache, with the state of each file (size, times), so an artifact is read
    once. Of one on S3 only the smaller files are read here, up to 64 MB. `local_copy` checks larger ones when it
    downloads them, and Parquet checks its pages when it reads them.
    """
    expected: Mapping[str, str] = manifest.get("files", {})
    states, known = storage.states(uri), _recall(uri)
    found: dict[str, str] = {}
    left = _READ_AT_LOAD if storage.is_remote(uri) else math.inf
    for name in sorted(expected, key=lambda name: int(states.get(name, "0").split()[0])):
        if name not in states:
            continue
        if known.get(name, ("", ""))[0] == states[name]:
            found[name] = known[name][1]
            continue
        left -= int(states[name].split()[0])
        if left > 0:
            found[name] = storage.sha256(storage.join(uri, name))
            known[name] = (states[name], found[name])
        else:
            found[name] = expected[name]
    _compare(uri, expected, found)
    _remember(uri, known)


def _compare(uri: str, expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name, checksum in expected.items():
        if found.get(name) != checksum:
            state = "missing" if name not in found else "altered"
            raise InputError(
                f"{uri}: file {name!r} is {state}: its checksum differs from the manifest's. Remove the artifact, "
                "and the same command makes it again"
            )


_Known = dict[str, tuple[str, str]]
"""{name of a file: (its state, its checksum)}."""


def _memory(uri: str) -> Path:
    return cache.folder() / "checksums" / f"{cache.key(uri)}.json"


def _recall(uri: str) -> _Known:
    try:
        return {
            name: (state, checksum)
            for name, (state, checksum) in storage.read_json(str(_memory(uri))).items()
        }
    except (OSError, ValueError, AttributeError, InputError):
        return {}


def _remember(uri: str, known: _Known) -> None:
    with suppress(InputError, OSError):  # then they are computed again
        if _recall(uri) != known:
            storage.write_json(str(_memory(uri)), known, mode=0o600)


def local_copy(uri: str, folder: str | Path | None = None) -> Path:
    """Local path of an artifact, or of a file or folder in one; a remote one is downloaded, and checked.

    folder: where downloads are kept; by default in this user's cache. Artifacts never change, so they are reused.
    Raises InputError for a file that is not the published one.
    """
    if not storage.is_remote(uri):
        return Path(storage.absolute(uri))
    place, manifest, inner = _owner(uri)
    for attempt in range(2):
        path = cache.download(uri, folder)
        expected = {
            name[len(inner) :].lstrip("/"): checksum
            for name, checksum in manifest.get("files", {}).items()
            if name == inner or not inner or name.startswith(f"{inner}/")
        }
        try:
            _check(str(path), {"files": expected})
            return path
        except InputError as error:
            cache.remove(path)  # this copy may be damaged, or the original
            if attempt:
                raise InputError(
                    str(error).replace(str(path), storage.join(place, inner).rstrip("/"))
                ) from None
    raise AssertionError


def _owner(uri: str) -> tuple[str, Mapping[str, Any], str]:
    """The artifact that a URI is in: its place, its manifest, and the path in it; without one the URI itself."""
    parts = uri.split("/")
    for end in range(len(parts), 3, -1):
        place = "/".join(parts[:end])
        if _FINGERPRINT.fullmatch(parts[end - 1]) and storage.exists(storage.join(place, MANIFEST)):
            return place, _read_manifest(place), "/".join(parts[end:])
    return uri, {}, ""


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


def _is_temporary(name: str) -> bool:
    return any(part.startswith(storage.TEMPORARY) for part in name.split("/"))


def _checksums(uri: str) -> dict[str, str]:
    """SHA-256 of every file except the manifest, checkpoints under `run/` and temporary files."""
    names = [
        name
        for name in storage.list_files(uri)
        if name != MANIFEST and not name.startswith(f"{RUN}/") and not _is_temporary(name)
    ]
    return {name: storage.sha256(storage.join(uri, name)) for name in names}
