"""Promotion: the best model of a sweep or a comparison becomes the registry's champion, which is then served.

The rule: a candidate must answer every task that any candidate answers. Of these, the one with the highest mean
validation score over its seeds wins, and its best seed becomes the champion. Where there is a champion already, the
winner must hold what that one gives (`challenge`). Test participants have no influence.
"""

import logging
from typing import Any, Self

from pydantic import Field, model_validator

from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.experiment import tracking
from biomechgpt.experiment.challenge import Margins, make_challenge, read_challenge
from biomechgpt.experiment.scores import mean_score, ran_all_seeds, validate
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
    margins: Margins = Margins()
    """By how much the winner may be worse than the model that has this name now."""
    force: str | None = None
    """Reason why the winner is promoted although it is worse by more. The registry keeps it."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the registry is."""

    @model_validator(mode="after")
    def _force_has_a_reason(self) -> Self:
        if self.force is not None and not self.force.strip():
            raise ValueError("force: expected a reason in words, found none")
        return self


class RollBackSettings(Settings):
    """Settings of `biomechgpt roll-back`."""

    reason: str = Field(min_length=1)
    """Why the present champion goes. The registry keeps it."""
    alias: str = Field("champion", pattern=r"^[a-z][a-z0-9-]*$")
    """Name that goes back to the model that had it before."""
    tracking: TrackingSettings = TrackingSettings()
    """Where the registry is."""


def run_roll_back(settings: RollBackSettings) -> Artifact:
    """Give the alias back to the model that had it before; returns that model."""
    model = artifact.load(tracking.roll_back(settings.tracking, settings.alias, settings.reason), "model")
    logger.info(
        f"{settings.alias}: model {model.fingerprint} again. A running server serves it after a restart"
    )
    return model


def run_promote(settings: PromoteSettings) -> Artifact:
    """Register the winner; returns its model.

    Raises InputError if no candidate answers all tasks, and without `force` for a winner that is worse than the
    present champion by more than the margins.
    """
    source = artifact.load(settings.candidates)
    candidates = _candidates(source)
    name, run = winner(candidates)
    model = artifact.load(artifact.find(run["model"], _root(source)), "model", verify=True)
    tags = {"rule": RULE, "candidate": name} | _against_champion(settings, model, _root(source))
    scored = {f"validation.{task}": value for task, value in run["tasks"].items()}
    run_id = tracking.record(
        settings.tracking,
        f"promote {model.fingerprint}",
        params={"candidates": settings.candidates, "winner": name},
        metrics=scored | {"validation.score": run["score"]},
        tags={"model": model.uri, "data": model.provenance, **tags},
    )
    version = tracking.register(settings.tracking, model, run_id, settings.alias, tags)
    logger.info(
        f"{settings.alias}: {name}, model {model.fingerprint}, validation score {run['score']:.3f} "
        f"of {len(candidates)} candidates; version {version} in {settings.tracking.uri}"
    )
    return model


def _against_champion(settings: PromoteSettings, model: Artifact, root: str) -> dict[str, str]:
    """Tags that say how the model compares with the present champion.

    Raises InputError if it must not replace it.
    """
    present = tracking.holder(settings.tracking, settings.alias)
    if present is None:
        return {}
    champion = artifact.load(present, "model")
    if champion.fingerprint == model.fingerprint:
        return {}
    made = make_challenge(model, champion, settings.margins, root)
    compared = read_challenge(made)
    for check in compared.checks:
        logger.info(f"{settings.alias}: {check}")
    if compared.seen_by_champion:
        logger.info(
            f"{settings.alias}: the champion was trained on {compared.seen_by_champion} of the "
            f"{compared.participants} participants, which favours it"
        )
    if compared.reasons and settings.force is None:
        reasons = "\n  ".join(compared.reasons)
        raise InputError(
            f"promotion: the candidate {model.fingerprint} is worse than the {settings.alias} "
            f"{champion.fingerprint} by more than the margins:\n  {reasons}\n"
            '(--force "reason" promotes it all the same)'
        )
    tags = {"challenge": made.uri, "against": champion.fingerprint}
    return tags | ({"forced": str(settings.force)} if compared.reasons else {})


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
    best = max(complete, key=lambda name: mean_score(complete[name]))
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
        return {str(trial["settings"]): trial["runs"] for trial in trials if ran_all_seeds(trial)}
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
