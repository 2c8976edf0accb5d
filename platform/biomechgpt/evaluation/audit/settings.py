"""Settings of an audit. Importing them loads neither Ray nor torch."""

from typing import Literal, get_args

from pydantic import Field

from biomechgpt.core.settings import Settings

Check = Literal["coverage", "ood", "scope", "explanations"]
CHECKS: tuple[Check, ...] = get_args(Check)


class AuditSettings(Settings):
    """Which checks of a model are made, and how thoroughly."""

    checks: list[Check] = Field(default_factory=lambda: list(CHECKS), min_length=1)
    """The checks to make."""
    trials: int = Field(20, ge=1)
    """Held-out movements that each of `ood`, `scope` and `explanations` looks at, at most."""
    resplits: int = Field(100, ge=1)
    """Random splits of participants for `coverage`."""
    cohort: str | None = None
    """URI of a cohort of new participants for `coverage`. Default: the model's validation and test participants."""
    tasks: str | list[str] = "configs/tasks"
    """Folders of the task files of the model. Only read with `cohort`."""
    seed: int = 0
    """Seed of the resplits and of everything that is drawn at random."""


class AuditModelSettings(AuditSettings):
    """An audit from the command line: the model, and where its artifacts live."""

    model: str = Field(exclude=True)
    """URI of the model artifact."""
    root: str = Field("results/artifacts", exclude=True)
    """Folder or s3:// URI of all artifacts."""
