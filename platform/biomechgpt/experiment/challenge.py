"""A challenge: does a candidate hold what the present champion gives, on the candidate's validation participants?

Both models answer the same questions. Each quantity of the candidate may be worse than the champion's by the margin
in `configs/promotion.yaml`, and no more. Test participants have no influence.

Limits: calibration and coverage are measured on people whom the candidate's calibration was fitted on, and the
champion's too if both have the same cohort. A champion of another cohort may have trained on some of these people;
`seen_by_champion` counts them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from pydantic import Field

from biomechgpt.answering.batch import make_answers, read_answers
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.cohort.parameters import make_parameters, read_parameters
from biomechgpt.cohort.shards import Cohort
from biomechgpt.core import artifact, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.evaluation.calibration_metrics import calibration_scores
from biomechgpt.evaluation.evaluate import subgroup_columns
from biomechgpt.evaluation.metrics import main_score, score
from biomechgpt.evaluation.restraint import restraint
from biomechgpt.evaluation.statistics import compare, subgroups
from biomechgpt.questions.tasks import Task
from biomechgpt.tokenizer.settings import TokensSettings
from biomechgpt.tokenizer.tokens import Tokens, make_tokens

VERSION = 1
FILE = "challenge.json"
LEAST_IN_SUBGROUP = 5
"""Participants that a subgroup needs. With fewer, chance decides which subgroup is the worst."""


class Margins(Settings):
    """By how much a candidate may be worse than the champion. Each is a difference of shares, of F1 or of r."""

    score: float = Field(0.05, ge=0)
    """Main score of a task, lower: weighted F1 or Pearson r."""
    calibration_error: float = Field(0.05, ge=0)
    """Expected calibration error of a task with labels, higher."""
    coverage: float = Field(0.05, ge=0)
    """Share of prediction sets or intervals that hold the truth, lower."""
    worst_subgroup: float = Field(0.10, ge=0)
    """Main score of a task in the subgroup that loses the most, lower."""
    withheld: float = Field(0.10, ge=0)
    """Share of a task's questions that apply and get no answer, higher."""
    answered_anyway: float = Field(0.05, ge=0)
    """Share of a task's questions that do not apply and are answered, higher."""
    refused: float = Field(0.05, ge=0)
    """Share of movements that are called unlike the training data, higher."""


@dataclass(frozen=True)
class Check:
    """One quantity of both models.

    quantity: name of its margin.
    task: None: of all tasks.
    group: subgroup of participants; None: all.
    champion, candidate: its values.
    loss: by how much the candidate is worse; below 0 it is better.
    loss_ci: 95 % interval of the loss over participants; None where none is computed.
    margin: the largest loss that is allowed.
    """

    quantity: str
    task: str | None
    group: str | None
    champion: float
    candidate: float
    loss: float
    loss_ci: Sequence[float] | None
    margin: float

    @property
    def beyond(self) -> bool:
        """Whether the loss is above its margin."""
        return self.loss > self.margin + 1e-9

    def __str__(self) -> str:
        where = " of ".join(part for part in (self.quantity.replace("_", " "), self.task) if part)
        among = f" ({self.group})" if self.group else ""
        interval = (
            "" if self.loss_ci is None else f", 95 % interval {self.loss_ci[0]:.3f} to {self.loss_ci[1]:.3f}"
        )
        return (
            f"{where}{among}: champion {self.champion:.3f}, candidate {self.candidate:.3f}, "
            f"loss {self.loss:.3f}{interval}, margin {self.margin:.3f}"
        )


@dataclass(frozen=True)
class Challenge:
    """What comparing a candidate with the champion has given.

    participants: validation participants who were asked about.
    seen_by_champion: those of them whom the champion was trained or calibrated on, if its cohort is another one.
    lost_tasks: tasks that only the champion answers.
    checks: all quantities.
    """

    participants: int
    seen_by_champion: int
    lost_tasks: list[str]
    checks: list[Check]

    @property
    def reasons(self) -> list[str]:
        """Why the candidate must not replace the champion; empty: it may."""
        lost = [f"{task}: only the champion answers it" for task in self.lost_tasks]
        return lost + [str(check) for check in self.checks if check.beyond]

    def as_json(self) -> dict[str, Any]:
        """All fields, and `beyond` of each check."""
        return {**asdict(self), "checks": [asdict(check) | {"beyond": check.beyond} for check in self.checks]}


def make_challenge(candidate: Artifact, champion: Artifact, margins: Margins, root: str) -> Artifact:
    """The challenge artifact: `challenge.json`, which `read_challenge` reads."""

    def build(uri: str) -> dict[str, Any]:
        made = challenge(candidate, champion, margins, root)
        storage.write_json(storage.join(uri, FILE), made.as_json())
        return {"checks": len(made.checks), "beyond": len(made.reasons)}

    inputs = {"candidate": candidate, "champion": champion}
    return artifact.make("challenge", VERSION, margins, inputs, build, root)


def read_challenge(made: Artifact) -> Challenge:
    """The content of a challenge artifact."""
    content = made.read_json(FILE)
    fields = {field.name for field in dataclasses.fields(Check)}
    checks = [Check(**{name: check[name] for name in fields}) for check in content.pop("checks")]
    return Challenge(**content, checks=checks)


def challenge(candidate: Artifact, champion: Artifact, margins: Margins, root: str) -> Challenge:
    """Compare two models on the candidate's validation participants. Raises InputError if they share no task."""
    tasks = ModelBundle(candidate.uri).tasks
    champions_tasks = ModelBundle(champion.uri).tasks
    shared = [name for name in tasks if name in champions_tasks]
    if not shared:
        raise InputError(
            f"{champion.uri}: expected a task of {candidate.uri}, found {', '.join(champions_tasks)}"
        )
    groups = _subgroup_columns(candidate, root)
    ours, theirs = (
        _answers(model, candidate, shared, root).merge(groups, on="trial", how="left")
        for model in (candidate, champion)
    )
    checks = list(_refusals(ours, theirs, margins))
    applicable = [rows[rows["applies_true"]] for rows in (ours, theirs)]
    for name in shared:
        our_rows, their_rows = (rows[rows["task"] == name] for rows in applicable)
        if len(our_rows):
            checks += _of_task(our_rows, their_rows, tasks[name], margins)
    people = set(ours["participant"])
    return Challenge(
        participants=len(people),
        seen_by_champion=len(people & _seen(champion, candidate)),
        lost_tasks=sorted(set(champions_tasks) - set(tasks)),
        checks=checks,
    )


def _answers(model: Artifact, candidate: Artifact, tasks: list[str], root: str) -> pd.DataFrame:
    """A model's answers to the questions about the candidate's validation participants."""
    tokens, views = candidate.input("tokens"), ModelBundle(model.uri).info.scoring.views
    tokenizer = model.input("tokenizer")
    if tokenizer.fingerprint != tokens.input("tokenizer").fingerprint or Tokens(tokens).n_views < views:
        tokens = make_tokens(tokens.input("cohort"), tokenizer, TokensSettings(views=views), root)
    settings = BatchAnswerSettings(splits=["validation"])
    return read_answers(
        make_answers(model, candidate.input("questions"), tokens, settings, root, tasks=tasks)
    )


def _subgroup_columns(candidate: Artifact, root: str) -> pd.DataFrame:
    """Each trial of the candidate's cohort with what divides participants into subgroups."""
    tokens = candidate.input("tokens")
    parameters_of = read_parameters(make_parameters(tokens.input("cohort"), root))
    trials = Tokens(tokens).annotated_table().to_pandas()
    return subgroup_columns(trials, [parameters_of.get(trial, {}) for trial in trials["trial"]])


def _seen(champion: Artifact, candidate: Artifact) -> set[str]:
    """Participants whom a champion of another cohort was trained or calibrated on."""
    own = champion.input("tokens").input("cohort")
    if own.fingerprint == candidate.input("tokens").input("cohort").fingerprint:
        return set()
    return {person for person, split in Cohort(own).splits.items() if split != "test"}


def _of_task(ours: pd.DataFrame, theirs: pd.DataFrame, task: Task, margins: Margins) -> Iterator[Check]:
    """The checks of one task."""
    paired = compare([ours], [theirs], task)
    if paired["difference"] is not None:
        champion, candidate = (main_score(score(rows, task, draws=0))[1] for rows in (theirs, ours))
        interval = paired["difference_ci"]
        loss_ci = None if interval is None else (-interval[1], -interval[0])
        loss = -float(paired["difference"])
        yield Check("score", task.name, None, champion or 0.0, candidate or 0.0, loss, loss_ci, margins.score)
    calibrations = [calibration_scores(rows, task, draws=0) for rows in (theirs, ours)]
    for quantity, field, sign in (("calibration_error", "ece", 1), ("coverage", "coverage", -1)):
        yield from _check(quantity, task.name, None, [c.get(field) for c in calibrations], sign, margins)
    yield from _worst_subgroup(ours, theirs, task, margins)


def _worst_subgroup(
    ours: pd.DataFrame, theirs: pd.DataFrame, task: Task, margins: Margins
) -> Iterator[Check]:
    """The subgroup whose score loses the most; none if no subgroup has enough participants."""
    groups = [
        {
            f"{group['by']}: {group['group']}": group["value"]
            for group in subgroups(rows, task, draws=0)
            if group["participants"] >= LEAST_IN_SUBGROUP and group["value"] is not None
        }
        for rows in (theirs, ours)
    ]
    shared = set(groups[0]) & set(groups[1])
    if shared:
        worst = max(sorted(shared), key=lambda name: groups[0][name] - groups[1][name])
        values = [of_model[worst] for of_model in groups]
        yield from _check("worst_subgroup", task.name, worst, values, -1, margins)


def _refusals(ours: pd.DataFrame, theirs: pd.DataFrame, margins: Margins) -> Iterator[Check]:
    """What each model leaves unanswered, and what it answers although it should not."""
    of_models = [restraint(rows) for rows in (theirs, ours)]
    values = [of_model["unlike"].get("refused") for of_model in of_models]
    yield from _check("refused", None, None, values, 1, margins)
    for task in of_models[1]["tasks"]:
        for quantity in ("withheld", "answered_anyway"):
            values = [of_model["tasks"].get(task, {}).get(quantity) for of_model in of_models]
            yield from _check(quantity, task, None, values, 1, margins)


def _check(
    quantity: str,
    task: str | None,
    group: str | None,
    values: list[float | None],
    sign: int,
    margins: Margins,
) -> Iterator[Check]:
    """The check of a quantity, if both models have it. sign: 1: higher is worse, -1: lower is worse."""
    champion, candidate = values
    if champion is not None and candidate is not None:
        loss = sign * (candidate - champion)
        yield Check(quantity, task, group, champion, candidate, loss, None, getattr(margins, quantity))
