"""Checkpoints that survive damage: each has checksums, two are kept, and a damaged one is left out.

Ray Train writes a checkpoint's folder and a list of them, its snapshot. A training resumes from the last in that
list, so leaving one out is taking it from there. Loads no torch.
"""

import json
from pathlib import Path
from typing import Any

from biomechgpt.core import storage
from biomechgpt.core.logs import logger
from biomechgpt.core.settings import InputError

KEPT = 2
"""Checkpoints that a training keeps."""
RUN = "train"
"""Name of Ray Train's folder under `run/` of an artifact."""
_SNAPSHOT = "checkpoint_manager_snapshot.json"
_CHECKSUMS = "checksums-{}.json"


def write_checksums(folder: str | Path, step: int, part: int, parts: int) -> None:
    """Write the checksums of a checkpoint's files beside them.

    folder: files of one part, of one worker.
    step: the training's step. part, parts: number of this part, and of all.
    """
    files = {name: storage.sha256(str(Path(folder) / name)) for name in storage.list_files(str(folder))}
    content = {"step": step, "parts": parts, "files": files}
    (Path(folder) / _CHECKSUMS.format(part)).write_text(json.dumps(content))


def damage(folder: str) -> str | None:
    """Say which file of a checkpoint is missing or altered; None if the checkpoint is whole."""
    names = set(storage.list_files(folder))
    parts, part = 1, 0
    while part < parts:
        name = _CHECKSUMS.format(part)
        try:
            content = storage.read_json(storage.join(folder, name))
            parts, files = int(content["parts"]), dict(content["files"])
        except FileNotFoundError:
            return f"{name} is missing"
        except (ValueError, KeyError, TypeError):
            return f"{name} is damaged"
        for file, checksum in files.items():
            if file not in names:
                return f"{file} is missing"
            if storage.sha256(storage.join(folder, file)) != checksum:
                return f"{file} is altered"
        part += 1
    return None


def leave_out_damaged(uri: str, name: str) -> bool:
    """Take damaged checkpoints of a training from Ray's list; returns whether there were any.

    uri: folder `run` of the artifact.
    name: name of the training in the log.
    Raises InputError if no checkpoint is whole, though there were some.
    """
    folder = storage.join(uri, RUN)
    snapshot = _read_snapshot(folder)
    if snapshot is None:
        return False  # nothing was finished: a folder may be half uploaded
    results: list[dict[str, Any]] = snapshot.get("checkpoint_results", [])
    names = [str(result["checkpoint_dir_name"]) for result in results]
    if not snapshot:  # damaged: all folders count
        present = {file.split("/")[0] for file in storage.list_files(folder)}
        names = sorted(entry for entry in present if entry.startswith("checkpoint_") and entry != _SNAPSHOT)
        results = [{"version": 0, "checkpoint_dir_name": entry, "metrics": {}} for entry in names]
    if not names:
        if not snapshot:
            storage.remove(storage.join(folder, _SNAPSHOT))
        return not snapshot
    whole, damaged = len(names), []
    while whole:
        problem = damage(storage.join(folder, names[whole - 1]))
        if problem is None:
            break
        damaged.append(f"{names[whole - 1]}: {problem}")
        whole -= 1
    if not whole:
        raise InputError(
            f"{name}: expected a whole checkpoint to go on from, found damaged ones ({'; '.join(damaged)}). Remove "
            f"{uri} to train from the start"
        )
    if snapshot and not damaged:
        return False
    step = storage.read_json(storage.join(folder, names[whole - 1], _CHECKSUMS.format(0)))["step"]
    what = "; ".join(damaged) or "the list of checkpoints"
    logger.warning("%s: damaged (%s), going on from the checkpoint of step %d", name, what, step)
    _write_snapshot(folder, results[:whole])
    for entry in names[whole:]:
        storage.remove(storage.join(folder, entry))
    return True


def _read_snapshot(folder: str) -> dict[str, Any] | None:
    """Ray's list of checkpoints: {} if it is damaged, None if there is none."""
    try:
        content = storage.read_json(storage.join(folder, _SNAPSHOT))
        return content if isinstance(content, dict) and "checkpoint_results" in content else {}
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _write_snapshot(folder: str, results: list[dict[str, Any]]) -> None:
    """As `CheckpointManager` of Ray Train V2 writes it."""
    import ray

    content = {
        "ray_version": ray.__version__,
        "checkpoint_results": results,
        "checkpoint_report_indices": list(range(len(results))),
        "latest_checkpoint_result": results[-1],
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(results),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    storage.write_json(storage.join(folder, _SNAPSHOT), content)
