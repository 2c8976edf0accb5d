"""Promotion: the best model of a sweep or a comparison becomes the registry's champion, which is then served.

The rule: a candidate must answer every task that any candidate answers. Of these, the one with the highest mean
validation score over its seeds wins, and its best seed becomes the champion. Test participants have no influence.
"""

import logging
from typing import Any

from pydantic import Field

from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.experiment import tracking
from biomechgpt.experiment.scores import validate
from biomechgpt.experiment.tracking import TrackingSettings

logger = logging.getLogger("biomechgpt")

RULE = (
    "highest mean over seeds of the validation score (mean over tasks of weighted F1 or Pearson r); "
    "of its seeds, the best"
)

Candidates = dict[str, list[dict[str, Any]]]
"""{name: one run for each seed, as `pipeline.validate` returns it}."""


class PromoteSettings(Settings):
    """Settings of `biomechgpt promote`."""

    candidates: str
    """URI of a sweep, a comparison or a single model."""
    alias: str = Field("champion", pattern=r"^[a-z][a-z0-9-]*$")
    """Name that the registry gives to the winner."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the registry is."""


def run_promote(settings: PromoteSettings) -> Artifact:
    """Register the winner; returns its model. Raises InputError if no candidate answers all tasks."""
    source = artifact.load(settings.candidates)
    candidates = _candidates(source)
    name, run = winner(candidates)
    model = artifact.load(artifact.find(run["model"], _root(source)), "model", verify=True)
    scored = {f"validation.{task}": value for task, value in run["tasks"].items()}
    run_id = tracking.record(
        settings.tracking,
        f"promote {model.fingerprint}",
        params={"candidates": settings.candidates, "winner": name},
        metrics=scored | {"validation.score": run["score"]},
        tags={"model": model.uri, "data": model.provenance, "rule": RULE},
    )
    version = tracking.register(
        settings.tracking, model, run_id, settings.alias, {"rule": RULE, "candidate": name}
    )
    logger.info(
        f"{settings.alias}: {name}, model {model.fingerprint}, validation score {run['score']:.3f} "
        f"of {len(candidates)} candidates; version {version} in {settings.tracking.uri}"
    )
    return model


def winner(candidates: Candidates) -> tuple[str, dict[str, Any]]:
    """The winning candidate's name and its best run. Candidates with fewer tasks do not take part."""
    tasks = {task for runs in candidates.values() for run in runs for task in run["tasks"]}
    complete = {
        name: runs
        for name, runs in candidates.items()
        if runs and all(set(run["tasks"]) == tasks for run in runs)
    }
    if not complete:
        raise InputError(f"promotion: no candidate answers all of {sorted(tasks)}")
    best = max(complete, key=lambda name: sum(run["score"] for run in complete[name]) / len(complete[name]))
    return best, max(complete[best], key=lambda run: run["score"])


def _root(source: Artifact) -> str:
    """The folder of all artifacts: where the candidates are, also after it was moved."""
    return source.uri.rsplit("/", 2)[0]


def _candidates(source: Artifact) -> Candidates:
    """The models of a sweep, a comparison or a single model, with their scores on validation participants."""
    root = _root(source)
    if source.kind == "model":
        return {"the only one": [validate(source, root)]}
    if source.kind == "sweep":
        trials = source.read_json("trials.json")
        return {str(trial["settings"]): trial["runs"] for trial in trials if trial["score"] is not None}
    if source.kind == "comparison":
        candidates: Candidates = {}
        seen: set[str] = set()
        for run in source.read_json("comparison.json")["runs"]:
            if run["model"] not in seen:  # two variants may evaluate the same model on different splits
                seen.add(run["model"])
                model = artifact.load(artifact.find(run["model"], root))
                candidates.setdefault(run["variant"], []).append(validate(model, root))
        return candidates
    raise InputError(f"{source.uri}: expected a sweep, a comparison or a model, found a {source.kind}")
