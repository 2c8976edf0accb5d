"""The motion VQ-VAE: a 1-D convolutional encoder and decoder around a quantizer, after T2M-GPT.

Zhang et al., "T2M-GPT: Generating Human Motion from Textual Descriptions with Discrete Representations", CVPR
2023; the paper's tokenizer is MotionGPT's, the same network. Here every convolution sees zeros beyond a
sequence's end, so that a sequence in a padded batch gets the codes it gets alone. Knows tensors only.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.settings import Settings
from biomechgpt.skeleton import N_JOINTS
from biomechgpt.tokenizer.quantizer import Quantizer
from biomechgpt.training import Terms

DEGREES = 180 / torch.pi


class NetworkSettings(Settings):
    """The defaults are the paper's; `downsampling` is a power of two."""

    codes: int = Field(512, ge=2)
    code_dim: int = Field(512, ge=1)
    width: int = Field(512, ge=8)
    depth: int = Field(3, ge=1, description="residual convolutions at each scale")
    dilation_growth: int = Field(3, ge=1)
    halvings: int = Field(2, ge=0, le=5, description="2: one token for 4 frames")
    decay: float = Field(0.99, gt=0, lt=1, description="of the codebook's moving averages")
    reset_below: float = Field(1.0, ge=0, description="codes used less than this, on average, are replaced")

    @property
    def downsampling(self) -> int:
        return 2**self.halvings


class LossSettings(Settings):
    """Weights of the loss; velocity is smooth-L1 on frame-to-frame differences."""

    velocity: float = Field(0.5, ge=0)
    commitment: float = Field(0.02, ge=0)


class _Residual(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.narrow(functional.relu(self.wide(functional.relu(x)))) * mask


class _Stack(nn.ModuleList):
    """Residual convolutions, the widest dilation first."""

    def __init__(self, width: int, depth: int, growth: int) -> None:
        super().__init__(_Residual(width, growth**i) for i in reversed(range(depth)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, mask)
        return x


class Encoder(nn.Module):
    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width = settings.width
        self.first = nn.Conv1d(N_JOINTS, width, 3, padding=1)
        self.halve = nn.ModuleList(
            nn.Conv1d(width, width, 4, stride=2, padding=1) for _ in range(settings.halvings)
        )
        self.stacks = nn.ModuleList(
            _Stack(width, settings.depth, settings.dilation_growth) for _ in range(settings.halvings)
        )
        self.last = nn.Conv1d(width, settings.code_dim, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 34, T), mask (B, 1, T) -> (B, D, T / downsampling) and its mask."""
        x = functional.relu(self.first(x * mask)) * mask
        for halve, stack in zip(self.halve, self.stacks, strict=True):
            mask = mask[..., ::2]
            x = stack(halve(x) * mask, mask)
        return self.last(x) * mask, mask


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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, D, n), mask (B, 1, n) -> (B, 34, n * downsampling)."""
        x = functional.relu(self.first(x * mask)) * mask
        for stack, double in zip(self.stacks, self.doubling, strict=True):
            x = stack(x, mask)
            mask = mask.repeat_interleave(2, dim=-1)
            x = double(x.repeat_interleave(2, dim=-1)) * mask
        return self.last(functional.relu(self.smooth(x)) * mask) * mask


class MotionVQVAE(nn.Module):
    """Angles in radians in, codes and angles out; its forward is the training loss.

    The angles are standardised by `mean` and `scale` (34,), stored with the weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, settings: NetworkSettings, loss: LossSettings, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.loss = settings, loss
        self.register_buffer("mean", torch.zeros(N_JOINTS))
        self.register_buffer("scale", torch.ones(N_JOINTS))
        self.encoder, self.decoder = Encoder(settings), Decoder(settings)
        self.quantizer = Quantizer(
            settings.codes, settings.code_dim, settings.decay, settings.reset_below, seed
        )

    def forward(self, angles: Tensor, joints: Tensor, frames: Tensor) -> Terms:
        """angles (B, T, 34) radians; joints (B, 34) and frames (B, T) float, 1 where they count."""
        x = ((angles - self.mean) / self.scale * joints[:, None]).transpose(1, 2)
        mask = frames[:, None]
        z, short = self.encoder(x, mask)
        with torch.autocast(z.device.type, enabled=False):  # which code is nearest shows in fp32 only
            quantized, commitment = self.quantizer(z.float(), short)
        y = self.decoder(quantized, short).float()
        weight = joints[:, :, None] * mask
        still = weight[..., 1:] * mask[..., :-1]
        error = functional.smooth_l1_loss(y, x, reduction="none") * weight
        rate = functional.smooth_l1_loss(y.diff(), x.diff(), reduction="none") * still
        return {
            "reconstruction": (error.sum(), weight.sum()),
            "velocity": (self.loss.velocity * rate.sum(), still.sum()),
            "commitment": (self.loss.commitment * commitment, short.sum() * z.shape[1]),
        }

    @torch.inference_mode()
    def encode(self, angles: Tensor, frames: Tensor) -> Tensor:
        """Codes (B, T / downsampling) of angles (B, T, 34) in radians; frames (B, T), 1 where they count."""
        x = ((angles - self.mean) / self.scale).transpose(1, 2)
        return self.quantizer.nearest(self.encoder(x, frames[:, None])[0])

    @torch.inference_mode()
    def decode(self, codes: Tensor, valid: Tensor) -> Tensor:
        """Angles (B, n * downsampling, 34) in radians of codes (B, n); valid (B, n), 1 where they count."""
        x = self.decoder(self.quantizer.vectors(codes), valid[:, None])
        return x.transpose(1, 2) * self.scale + self.mean


def perplexity(codes: Any, size: int) -> float:
    """exp(entropy) of how often each of `size` codes occurs in `codes` (any shape, integers)."""
    counts = torch.bincount(torch.as_tensor(codes).flatten().long(), minlength=size).double()
    share = counts / counts.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-30))).sum()))
