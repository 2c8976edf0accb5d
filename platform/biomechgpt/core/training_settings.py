"""Settings of the training loop. Loads neither torch nor Ray, so that settings can be read without them."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from biomechgpt.core.settings import Settings


class TrainingSettings(Settings):
    """How a model is trained.

    The last six fields say where a training runs. They change neither its result nor its artifact's fingerprint.
    """

    learning_rate: float = Field(2e-4, gt=0)
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or a cosine that ends at a tenth."""
    warmup_steps: int = Field(20, ge=0)
    """Steps in which the learning rate rises linearly. At most half of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay of the mean gradient and of the mean squared gradient."""
    gradient_clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; a longer gradient is scaled down to it. 0: no limit."""
    precision: Literal["fp32", "mixed", "bf16"] = "fp32"
    """fp32; mixed: products in bf16, weights in fp32; bf16: weights in bf16 too, with a copy in fp32."""
    seed: int = 0
    """Seed of the model's first weights and of the batches."""
    checkpoint_every: int = Field(500, ge=1, exclude=True)
    """Steps between checkpoints."""
    workers: int | tuple[int, int] = Field(1, exclude=True)
    """Number of workers, or [fewest, most]: as many as the cluster has room for."""
    zero_stage: Literal[0, 1, 2, 3] = Field(0, exclude=True)
    """DeepSpeed ZeRO: workers share out nothing (0), the optimizer (1), also gradients (2), also weights (3)."""
    offload: bool = Field(False, exclude=True)
    """Whether the optimizer's state is kept in the CPU's memory. Needs a zero_stage of 1 or more."""
    max_failures: int = Field(2, ge=0, exclude=True)
    """Restarts after a lost worker."""
    accelerator: Literal["auto", "gpu", "cpu"] = Field("auto", exclude=True)
    """auto: a GPU for each worker if the cluster has or may add any; gpu: an error without; cpu: none."""

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
        """Whether any number of workers can resume from a checkpoint. Not if each holds a part of the optimizer."""
        return self.zero_stage == 0 and self.precision != "bf16"
