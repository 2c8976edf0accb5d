"""Settings of the motion tokenizer, its quantizers and its tokens. Loads neither torch nor Ray."""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from biomechgpt.core.settings import Settings
from biomechgpt.core.training_settings import TrainingSettings
from biomechgpt.motion.skeleton import N_JOINTS, PARTS, TRACKED


class CodebookSettings(Settings):
    """A codebook that is learned by exponential moving averages."""

    codebook_size: int = Field(512, ge=2)
    """Number of vectors in each codebook."""
    decay: float = Field(0.99, gt=0, lt=1)
    """Decay of the moving averages per step."""
    threshold_ema_dead_code: float = Field(1.0, ge=0)
    """A code used less often per step than this, on average, is replaced by a vector of the batch."""


class EMASettings(CodebookSettings):
    """One codebook."""

    kind: Literal["ema"] = "ema"
    """Kind of quantizer."""


class ResidualVQSettings(CodebookSettings):
    """Several codebooks, each for what the ones before it left over."""

    kind: Literal["residual"] = "residual"
    """Kind of quantizer."""
    num_quantizers: int = Field(2, ge=2, le=8)
    """Number of codebooks of the residual quantizer, which is its number of tokens per step."""


class BodyPartVQSettings(CodebookSettings):
    """One codebook for each part of the body: legs, trunk, arms."""

    kind: Literal["body_parts"] = "body_parts"
    """Kind of quantizer."""


class FSQSettings(Settings):
    """Finite scalar quantization: a fixed grid over a few dimensions."""

    kind: Literal["fsq"] = "fsq"
    """Kind of quantizer."""
    levels: tuple[int, ...] = Field((8, 8, 8), min_length=1)
    """Number of values of each dimension of fsq, at least 3 each."""

    @field_validator("levels")
    @classmethod
    def _at_least_three(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if min(levels) < 3:
            raise ValueError("expected one or more numbers of at least 3")
        return levels

    @property
    def codebook_size(self) -> int:
        """Number of grid points."""
        return math.prod(self.levels)


QuantizerSettings = Annotated[
    EMASettings | ResidualVQSettings | BodyPartVQSettings | FSQSettings, Field(discriminator="kind")
]
"""Settings of any quantizer. `quantizers.QUANTIZERS` has the class for each kind."""


class NetworkSettings(Settings):
    """The network around the quantizer. The defaults are the paper's."""

    joints: Literal["tracked", "all"] = "tracked"
    """tracked: forearm rotation, wrists and toes are set to zero, as in the paper; all: every joint is encoded."""
    quantizer: QuantizerSettings = EMASettings()
    """Turns the encoder's vectors into tokens."""
    code_dim: int = Field(512, ge=len(PARTS))
    """Dimensions of a codebook vector."""
    width: int = Field(512, ge=8)
    """Channels of the convolutions."""
    depth: int = Field(3, ge=1)
    """Residual convolutions at each scale."""
    dilation_growth: int = Field(3, ge=1)
    """Factor between the dilations of successive residual convolutions."""
    downsampling_stages: int = Field(2, ge=0, le=5)
    """Convolutions with stride 2, each of which halves the frame rate. 2: one token step covers 4 frames."""
    posture_bin_deg: float | None = Field(None, ge=1, le=30)
    """Width of the bins of the posture tokens: each joint's mean angle has a token of its own, before the motion
    tokens, which then describe the movement about it. null: motion tokens describe the angles, as in the paper."""

    @field_validator("quantizer", mode="before")
    @classmethod
    def _default_kind(cls, quantizer: Any) -> Any:
        """Settings without a kind are those of the default quantizer."""
        return {"kind": "ema", **quantizer} if isinstance(quantizer, dict) else quantizer

    @property
    def downsampling(self) -> int:
        """Frames per token step, a power of two."""
        return int(2**self.downsampling_stages)

    @property
    def seen(self) -> np.ndarray:
        """(34,) bool: the joints that the network encodes. It decodes the others as zeros."""
        return TRACKED if self.joints == "tracked" else np.ones(N_JOINTS, dtype=bool)

    @property
    def context(self) -> int:
        """Token steps on either side that decide a step's code and, in the decoder, its angles.

        This is the receptive field. Windows that overlap by it give the tokens of the whole sequence.
        """
        reach = sum(self.dilation_growth**i for i in range(self.depth))
        # Encoder: follow one step down to its frames. [low, high] is the range of frames that it depends on.
        low, high = -1, 1
        # Decoder: follow one step's frames up to codes. [first, last] is the range of steps that they depend on.
        first, last = -2, self.downsampling + 1
        for _ in range(self.downsampling_stages):
            low, high = 2 * (low - reach) - 1, 2 * (high + reach) + 2
            first, last = (first - 1) // 2 - reach, (last + 1) // 2 + reach
        encoder = max(1 - low, high + 2 - self.downsampling)  # frames beyond the step's own
        return max(-(-encoder // self.downsampling), 1 - first, last + 1)


class LossSettings(Settings):
    """Weights of the loss terms beside the reconstruction, whose weight is 1."""

    velocity: float = Field(0.5, ge=0)
    """Weight of the smooth L1 loss on differences between frames."""
    commitment: float = Field(0.02, ge=0)
    """Weight of the squared distance between the encoder's vectors and their codes."""


class TokenizerTrainingSettings(TrainingSettings):
    """The training loop's settings, with T2M-GPT's constant learning rate."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or a cosine that ends at a tenth."""
    checkpoint_every: int = Field(1000, ge=1, exclude=True)
    """Steps between checkpoints."""


class TokenizerSettings(Settings):
    """The motion tokenizer and its training."""

    network: NetworkSettings = NetworkSettings()
    """Network and quantizer."""
    loss: LossSettings = LossSettings()
    """Weights of the loss terms."""
    window: int = Field(64, ge=8)
    """Frames in each training window."""
    batch_size: int = Field(256, ge=1)
    """Windows per step, over all workers."""
    joint_dropout: float = Field(0.0, ge=0, le=1)
    """Fraction of training windows with some joints hidden, so that partial recordings can be tokenized too."""
    range_change: float = Field(0.0, ge=0, le=1)
    """How much the ranges of joints are changed in training windows: each joint's departure from its mean is
    multiplied by a number of its own, whose logarithm has this standard deviation. People differ more than those
    in the cohort."""
    recorded_share: float | None = Field(None, ge=0, le=1)
    """Share of training windows of recorded people, if the cohort has simulated ones too. null: by their frames."""
    smallest_scale_deg: float = Field(1.0, gt=0)
    """Joints are divided by their standard deviation, but at least by this. The larger it is, the less errors of
    joints that move little count; above all deviations, an error of a degree counts the same in every joint."""
    activity_balance: float = Field(0.0, ge=0, le=1)
    """How much rare activities are drawn more often. 0: training windows are drawn by frames; 1: every activity
    equally often; between: by frames to the power of 1 - activity_balance. Trials without one are one activity."""
    steps: int = Field(20_000, ge=1)
    """Training steps."""
    training: TokenizerTrainingSettings = TokenizerTrainingSettings()
    """The training loop."""

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerSettings":
        if self.window % self.network.downsampling:
            raise ValueError(f"window: expected a multiple of the downsampling, {self.network.downsampling}")
        if self.batch_size < self.training.workers_range[1]:
            raise ValueError("batch_size: expected at least training.workers")
        if self.training.precision == "bf16":
            raise ValueError("training.precision: the codebook's moving averages need fp32, or mixed")
        return self


class TokensSettings(Settings):
    """How a cohort is tokenized."""

    views: int = Field(1, ge=1, le=64)
    """Tokenizations of each trial: unchanged, mirrored, and shifted by less than one token step. Training reads
    another one each time, which reduces memorisation. Answers can be averaged over them (`answers.views`)."""
    layout: Literal["flat", "stacked"] = "flat"
    """flat: each motion token has a position in a prompt. stacked: those of a step share one, which is the sum of
    their embeddings, and each has an output head; plain transformers cannot read such a model. They differ for
    tokenizers with several motion tokens in a step."""
    batch_size: int = Field(64, ge=1, exclude=True)
    """Trials encoded at once. Does not change the tokens."""
    workers: int = Field(1, ge=1, exclude=True)
    """Ray actors that encode shards. Does not change the tokens."""
