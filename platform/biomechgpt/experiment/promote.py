"""Promotion: the best model of a sweep or a comparison becomes the registry's champion, which is served by default.

Candidates are compared on the same tasks: all that any of them answers. The candidate with the highest validation
score, mean over its seeds, wins; its best seed is promoted. Test participants are not used.
"""

import logging
from typing import Any

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.experiment import tracking
from biomechgpt.experiment.tracking import TrackingSettings

logger = logging.getLogger("biomechgpt")

RULE = (
    "highest validation score (mean over tasks of weighted F1 or Pearson r), mean over seeds; "
    "of its seeds, the best"
)

Candidates = dict[str, list[dict[str, Any]]]
"""{name: a result of `pipeline.validate` for each seed}."""


class PromoteSettings(Settings):
    """Which candidates to choose from, and how the registry calls the winner."""

    candidates: str
    """URI of a sweep, a comparison or a single model."""
    alias: str = Field("champion", pattern=r"^[a-z][a-z0-9-]*$")
    """Alias of the winner in the registry."""
    tracking: TrackingSettings = TrackingSettings()
    """The registry."""


def run_promote(settings: PromoteSettings) -> Artifact:
    """Register the winner; returns its model artifact. Raises InputError if no candidate can be promoted."""
    candidates = _candidates(artifact.load(settings.candidates))
    name, run = winner(candidates)
    model = artifact.load(run["model"], "model", verify=True)
    by_task = {f"validation.{task}": value for task, value in run["tasks"].items()}
    record = tracking.record(
        settings.tracking,
        f"promote {model.fingerprint}",
        params={"candidates": settings.candidates, "winner": name},
        metrics=by_task | {"validation.score": run["score"]},
        tags={"model": model.uri, "data": model.data, "rule": RULE},
    )
    version = tracking.register(
        settings.tracking, model, record, settings.alias, {"rule": RULE, "candidate": name}
    )
    logger.info(
        "%s: %s, model %s, validation score %.3f, of %d candidates; version %s in %s",
        settings.alias,
        name,
        model.fingerprint,
        run["score"],
        len(candidates),
        version,
        settings.tracking.uri,
    )
    return model


def winner(candidates: Candidates) -> tuple[str, dict[str, Any]]:
    """The winning candidate's name and its best run. Candidates that answer fewer tasks are left out.

    Raises InputError if none answers all tasks.
    """
    tasks = {task for runs in candidates.values() for run in runs for task in run["tasks"]}
    complete = {
        name: runs
        for name, runs in candidates.items()
        if runs and all(set(run["tasks"]) == tasks for run in runs)
    }
    if not complete:
        raise InputError(f"promotion: no candidate answers all of {sorted(tasks)}")
    name = max(complete, key=lambda n: sum(run["score"] for run in complete[n]) / len(complete[n]))
    return name, max(complete[name], key=lambda run: run["score"])


def _candidates(source: Artifact) -> Candidates:
    from biomechgpt.experiment.pipeline import validate

    root = source.uri.rsplit("/", 2)[0]
    if source.kind == "model":
        return {"the only one": [validate(source, root)]}
    if source.kind == "sweep":
        trials = source.read_json("trials.json")
        return {str(trial["settings"]): trial["runs"] for trial in trials if trial["score"] is not None}
    if source.kind == "comparison":
        candidates: Candidates = {}
        seen: set[str] = set()
        for run in source.read_json("comparison.json")["runs"]:
            # Two variants may share a model and differ only in the participants that it is evaluated on.
            if run["model"] not in seen:
                seen.add(run["model"])
                candidates.setdefault(run["variant"], []).append(validate(artifact.load(run["model"]), root))
        return candidates
    raise InputError(f"{source.uri}: expected a sweep, a comparison or a model, found a {source.kind}")
