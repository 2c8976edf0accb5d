"""The motion VQ-VAE: a 1-D convolutional encoder and decoder around a quantizer, after T2M-GPT.

Zhang et al., "T2M-GPT: Generating Human Motion from Textual Descriptions with Discrete Representations", CVPR
2023; the paper's tokenizer is MotionGPT's, the same network. Here every convolution sees zeros beyond a
sequence's end, so that a sequence in a padded batch gets the codes it gets alone. Knows tensors only.
"""

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.core.settings import Settings
from biomechgpt.core.training import LossTerms
from biomechgpt.motion.skeleton import N_JOINTS, PARTS, TRACKED
from biomechgpt.tokenizer.quantizers import QUANTIZERS, Grouped, QuantizerSettings

DEGREES = 180 / torch.pi


class NetworkSettings(Settings):
    """The defaults are the paper's; `downsampling` is a power of two."""

    joints: Literal["tracked", "all"] = Field(
        "tracked", description="tracked: forearm rotation, wrists and toes are zeroed, as in the paper"
    )
    quantizer: QuantizerSettings = QuantizerSettings()
    code_dim: int = Field(512, ge=len(PARTS))
    width: int = Field(512, ge=8)
    depth: int = Field(3, ge=1, description="residual convolutions at each scale")
    dilation_growth: int = Field(3, ge=1)
    halvings: int = Field(2, ge=0, le=5, description="2: one step of tokens for 4 frames")

    @property
    def downsampling(self) -> int:
        """Frames a step of the code."""
        return 2**self.halvings

    @property
    def seen(self) -> np.ndarray:
        """(34,) bool: joints that the network sees; it makes zeros of the others."""
        return TRACKED if self.joints == "tracked" else np.ones(N_JOINTS, dtype=bool)

    @property
    def context(self) -> int:
        """Steps on either side that decide a step's code, and, of the decoder, its angles."""
        reach = sum(self.dilation_growth**i for i in range(self.depth))
        # From a step back to the frames that it was made from, and from its frames back to steps.
        low, high = -1, 1
        first, last = -2, self.downsampling + 1
        for _ in range(self.halvings):
            low, high = 2 * (low - reach) - 1, 2 * (high + reach) + 2
            first, last = (first - 1) // 2 - reach, (last + 1) // 2 + reach
        encoder = max(1 - low, high + 2 - self.downsampling)  # frames beyond the step's own
        return max(-(-encoder // self.downsampling), 1 - first, last + 1)


class LossSettings(Settings):
    """Weights of the loss; velocity is smooth-L1 on frame-to-frame differences."""

    velocity: float = Field(0.5, ge=0)
    commitment: float = Field(0.02, ge=0)


def _keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """What counts of x (B, D, T), zeros for the rest; mask (B, 1, T), or None where everything counts."""
    return x if mask is None else x * mask.to(x.dtype)


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x + _keep(self.narrow(functional.relu(self.wide(functional.relu(x)))), mask)


class _Stack(nn.ModuleList):
    """Residual convolutions, the widest dilation first."""

    def __init__(self, width: int, depth: int, growth: int) -> None:
        super().__init__(_Residual(width, growth**i) for i in reversed(range(depth)))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self:
            x = layer(x, mask)
        return x


class Encoder(nn.Module):
    """joints, width, dim: of what comes in, inside and out."""

    def __init__(self, settings: NetworkSettings, joints: int, width: int, dim: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(joints, width, 3, padding=1)
        self.halve = nn.ModuleList(
            nn.Conv1d(width, width, 4, stride=2, padding=1) for _ in range(settings.halvings)
        )
        self.stacks = nn.ModuleList(
            _Stack(width, settings.depth, settings.dilation_growth) for _ in range(settings.halvings)
        )
        self.last = nn.Conv1d(width, dim, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, joints, T), mask (B, 1, T) or None -> (B, dim, T / downsampling) and its mask."""
        x = _keep(functional.relu(self.first(_keep(x, mask))), mask)
        for halve, stack in zip(self.halve, self.stacks, strict=True):
            mask = None if mask is None else mask[..., ::2]
            x = stack(_keep(halve(x), mask), mask)
        return _keep(self.last(x), mask), mask


class PartEncoders(nn.ModuleList):
    """An encoder of half the width for each of `skeleton.PARTS`: a part's codes depend on its joints alone."""

    def __init__(self, settings: NetworkSettings, dims: list[int]) -> None:
        parts = zip(PARTS.values(), dims, strict=True)
        super().__init__(Encoder(settings, len(part), settings.width // 2, dim) for part, dim in parts)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, 34, T), mask (B, 1, T) or None -> (B, D, T / downsampling) and its mask."""
        made = [encoder(x[:, part], mask) for encoder, part in zip(self, PARTS.values(), strict=True)]
        return torch.cat([z for z, _ in made], 1), made[0][1]


class Decoder(nn.Module):
    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width = settings.width
        self.first = nn.Conv1d(settings.code_dim, width, 3, padding=1)
        self.stacks = nn.ModuleList(
            _Stack(width, settings.depth, settings.dilation_growth) for _ in range(settings.halvings)
        )
        self.doubling = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(settings.halvings))
        self.smooth = nn.Conv1d(width, width, 3, padding=1)
        self.last = nn.Conv1d(width, N_JOINTS, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, n), mask (B, 1, n) or None -> (B, 34, n * downsampling)."""
        x = _keep(functional.relu(self.first(_keep(x, mask))), mask)
        for stack, double in zip(self.stacks, self.doubling, strict=True):
            x = stack(x, mask)
            mask = None if mask is None else mask.repeat_interleave(2, dim=-1)
            x = _keep(double(x.repeat_interleave(2, dim=-1)), mask)
        return _keep(self.last(_keep(functional.relu(self.smooth(x)), mask)), mask)


class MotionVQVAE(nn.Module):
    """Angles in radians in, tokens and angles out; its forward is the training loss.

    The angles are standardised by `mean` and `scale` (34,), stored with the weights. A joint that is missing, or
    that the settings leave out, is held at its mean.
    """

    mean: Tensor
    scale: Tensor
    seen: Tensor

    def __init__(self, settings: NetworkSettings, loss: LossSettings, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.loss = settings, loss
        self.register_buffer("mean", torch.zeros(N_JOINTS))
        self.register_buffer("scale", torch.ones(N_JOINTS))
        self.register_buffer("seen", torch.from_numpy(settings.seen).float(), persistent=False)
        self.quantizer: Any = QUANTIZERS[settings.quantizer.kind](settings.quantizer, settings.code_dim, seed)
        self.encoder: nn.Module
        if isinstance(self.quantizer, Grouped):
            self.encoder = PartEncoders(settings, self.quantizer.dims)
        else:
            self.encoder = Encoder(settings, N_JOINTS, settings.width, settings.code_dim)
        self.decoder = Decoder(settings)

    def forward(self, angles: Tensor, joints: Tensor, frames: Tensor | None = None) -> LossTerms:
        """angles (B, T, 34) radians; joints (B, 34) and frames (B, T; by default all) float, 1 where they count."""
        x = self._standard(angles, joints)
        mask = x.new_ones(len(x), 1, x.shape[2]) if frames is None else frames[:, None]
        z, short = self.encoder(x, None if frames is None else mask)
        with torch.autocast(z.device.type, enabled=False):  # which code is nearest shows in fp32 only
            counted = x.new_ones(len(z), 1, z.shape[2]) if short is None else short
            quantized, _, (distance, count) = self.quantizer(z.float(), counted)
        y = self.decoder(quantized, short).float()
        weight = (joints * self.seen)[:, :, None] * mask
        still = weight[..., 1:] * mask[..., :-1]
        error = functional.smooth_l1_loss(y, x, reduction="none") * weight
        rate = functional.smooth_l1_loss(y.diff(), x.diff(), reduction="none") * still
        return {
            "reconstruction": (error.sum(), weight.sum()),
            "velocity": (self.loss.velocity * rate.sum(), still.sum()),
            "commitment": (self.loss.commitment * distance, count),
        }

    @property
    def tokens_per_step(self) -> int:
        return len(self.quantizer.sizes)

    @torch.inference_mode()
    def encode(self, angles: Tensor, frames: Tensor, joints: Tensor | None = None) -> Tensor:
        """Tokens (B, T / downsampling * tokens_per_step) of angles (B, T, 34) in radians.

        frames (B, T) and joints (B, 34; by default all): float, 1 where they count.
        """
        x = self._standard(angles, torch.ones_like(angles[:, 0]) if joints is None else joints)
        return self.quantizer(*self.encoder(x, frames[:, None]))[1].flatten(1)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Angles (B, n * downsampling, 34) in radians of tokens (B, n * tokens_per_step).

        valid (B, n): 1 where a step counts.
        """
        vectors = self.quantizer.codebook[tokens.unflatten(1, (-1, self.tokens_per_step))].sum(2)
        x = self.decoder(vectors.transpose(1, 2), valid[:, None])
        return (x.transpose(1, 2) * self.scale + self.mean) * self.seen

    def _standard(self, angles: Tensor, joints: Tensor) -> Tensor:
        x = (angles - self.mean) / self.scale * (joints * self.seen)[:, None]
        return x.transpose(1, 2)


def perplexity(codes: Any, size: int) -> float:
    """exp(entropy) of how often each of `size` codes occurs in `codes` (any shape, integers)."""
    counts = torch.bincount(torch.as_tensor(codes).flatten().long(), minlength=size).double()
    share = counts / counts.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-30))).sum()))
