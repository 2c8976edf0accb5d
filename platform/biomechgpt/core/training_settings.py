"""Settings of the training loop. Loads neither torch nor Ray, so that settings can be read without them."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from biomechgpt.core.settings import Settings


class TrainingSettings(Settings):
    """How a training steps. The last five say where it runs: they do not change the result, nor its name."""

    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    gradient_clip: float = Field(1.0, ge=0, description="largest norm of a gradient; 0: no limit")
    precision: Literal["fp32", "mixed", "bf16"] = Field(
        "fp32", description="mixed: products in bf16, weights in fp32; bf16: weights too, with a copy in fp32"
    )
    seed: int = 0
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints", exclude=True)
    workers: int | tuple[int, int] = Field(
        1, description="how many, or [fewest, most]: as many as the cluster has room for", exclude=True
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        0, description="DeepSpeed ZeRO: what workers share out, optimizer, gradients, weights", exclude=True
    )
    offload: bool = Field(False, description="the optimizer's state in the CPU's memory", exclude=True)
    max_failures: int = Field(2, ge=0, description="restarts after a lost worker", exclude=True)

    @field_validator("workers", mode="before")
    @classmethod
    def _one_number(cls, workers: Any) -> Any:
        """Where a list is possible, the command line makes a list of one number too."""
        return workers[0] if isinstance(workers, list) and len(workers) == 1 else workers

    @model_validator(mode="after")
    def _workers_fit(self) -> "TrainingSettings":
        fewest, most = self.workers_range
        if not 1 <= fewest <= most:
            raise ValueError(f"workers: expected 1 or more, or [fewest, most], found {self.workers}")
        if self.offload and not self.zero_stage:
            raise ValueError("offload: needs a zero_stage of 1 or more")
        if fewest < most and not self.portable:
            raise ValueError("workers: a range needs zero_stage 0, and precision fp32 or mixed")
        return self

    @property
    def workers_range(self) -> tuple[int, int]:
        """The fewest and the most workers."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers

    @property
    def portable(self) -> bool:
        """Whether any number of workers can go on from a checkpoint: none holds a part of the optimizer only."""
        return self.zero_stage == 0 and self.precision != "bf16"
