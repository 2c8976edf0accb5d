"""The motion VQ-VAE: a one-dimensional convolutional encoder and decoder around a quantizer, after T2M-GPT.

Zhang et al., "T2M-GPT: Generating Human Motion from Textual Descriptions with Discrete Representations", CVPR 2023.
The paper's tokenizer is MotionGPT's, which is the same network. Here every convolution sees zeros beyond the end of
a sequence, so a sequence in a padded batch gets the codes that it gets alone. Knows tensors only.

Shapes: B sequences, T frames, n = T / downsampling steps, D = `code_dim` dimensions, 34 joints.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.core.training import LossTerms
from biomechgpt.motion.skeleton import N_JOINTS
from biomechgpt.tokenizer.quantizers import Quantized, build_quantizer
from biomechgpt.tokenizer.settings import LossSettings, NetworkSettings


def _apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """Set padding to zero. x: (B, D, T). mask: (B, 1, T), 1 where a frame counts; None: all do."""
    return x if mask is None else x * mask.to(x.dtype)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x + _apply_mask(self.narrow(functional.relu(self.wide(functional.relu(x)))), mask)


class _ResidualStack(nn.ModuleList):
    """Residual blocks, the one with the widest dilation first."""

    def __init__(self, width: int, depth: int, dilation_growth: int) -> None:
        super().__init__(_ResidualBlock(width, dilation_growth**i) for i in reversed(range(depth)))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for block in self:
            x = block(x, mask)
        return x


class Encoder(nn.Module):
    """Convolutions that halve the frame rate at each stage.

    joints, width, dim: channels of the input, inside, and of the output.
    """

    def __init__(self, settings: NetworkSettings, joints: int, width: int, dim: int) -> None:
        super().__init__()
        stages = settings.downsampling_stages
        self.first = nn.Conv1d(joints, width, 3, padding=1)
        self.halve = nn.ModuleList(nn.Conv1d(width, width, 4, stride=2, padding=1) for _ in range(stages))
        self.stacks = nn.ModuleList(
            _ResidualStack(width, settings.depth, settings.dilation_growth) for _ in range(stages)
        )
        self.last = nn.Conv1d(width, dim, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, joints, T), mask (B, 1, T) or None -> (B, dim, n) and its mask (B, 1, n) or None."""
        x = _apply_mask(functional.relu(self.first(_apply_mask(x, mask))), mask)
        for halve, stack in zip(self.halve, self.stacks, strict=True):
            # A step counts if its first frame does.
            mask = None if mask is None else mask[..., ::2]
            x = stack(_apply_mask(halve(x), mask), mask)
        return _apply_mask(self.last(x), mask), mask


class GroupEncoders(nn.ModuleList):
    """One encoder of half the width for each group of joints: a group's codes depend on its joints alone."""

    def __init__(self, settings: NetworkSettings, groups: list[tuple[np.ndarray, int]]) -> None:
        """groups: joints of each group, and the dimensions that it gets."""
        super().__init__(Encoder(settings, len(joints), settings.width // 2, dim) for joints, dim in groups)
        self.joints = [joints for joints, _ in groups]

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, 34, T), mask (B, 1, T) or None -> (B, D, n) and its mask (B, 1, n) or None."""
        encoded = [encoder(x[:, joints], mask) for encoder, joints in zip(self, self.joints, strict=True)]
        return torch.cat([z for z, _ in encoded], 1), encoded[0][1]


class Decoder(nn.Module):
    """The encoder's mirror: each stage doubles the frame rate by repeating frames, then smooths them."""

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        width, stages = settings.width, settings.downsampling_stages
        self.first = nn.Conv1d(settings.code_dim, width, 3, padding=1)
        self.stacks = nn.ModuleList(
            _ResidualStack(width, settings.depth, settings.dilation_growth) for _ in range(stages)
        )
        self.doubling = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(stages))
        self.smooth = nn.Conv1d(width, width, 3, padding=1)
        self.last = nn.Conv1d(width, N_JOINTS, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, n), mask (B, 1, n) or None -> (B, 34, T)."""
        x = _apply_mask(functional.relu(self.first(_apply_mask(x, mask))), mask)
        for stack, double in zip(self.stacks, self.doubling, strict=True):
            x = stack(x, mask)
            mask = None if mask is None else mask.repeat_interleave(2, dim=-1)
            x = _apply_mask(double(x.repeat_interleave(2, dim=-1)), mask)
        return _apply_mask(self.last(_apply_mask(functional.relu(self.smooth(x)), mask)), mask)


class MotionVQVAE(nn.Module):
    """Angles in radians in, tokens and angles out. Its `forward` is the training loss.

    Angles are standardised by `mean` and `scale` (34,), which are stored with the weights. A joint that was not
    recorded, or that the settings leave out, is held at its mean.
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
        self.quantizer = build_quantizer(settings.quantizer, settings.code_dim, seed)
        groups = self.quantizer.joint_groups()
        self.encoder: nn.Module = (
            Encoder(settings, N_JOINTS, settings.width, settings.code_dim)
            if groups is None
            else GroupEncoders(settings, groups)
        )
        self.decoder = Decoder(settings)

    def forward(self, angles: Tensor, joints: Tensor, frames: Tensor | None = None) -> LossTerms:
        """The loss terms of a batch of windows.

        angles: (B, T, 34) radians.
        joints: (B, 34) float, 1 where a joint was recorded.
        frames: (B, T) float, 1 where a frame counts; None: all do.
        """
        x = self._standardize(angles, joints)
        mask = x.new_ones(len(x), 1, x.shape[2]) if frames is None else frames[:, None]
        z, step_mask = self.encoder(x, None if frames is None else mask)
        with torch.autocast(z.device.type, enabled=False):  # bf16 is too coarse to tell which code is nearest
            counted = x.new_ones(len(z), 1, z.shape[2]) if step_mask is None else step_mask
            vectors, _, (distance, count) = self.quantizer(z.float(), counted)
        y = self.decoder(vectors, step_mask).float()
        # The reconstruction counts recorded joints in valid frames, the velocity pairs of valid frames.
        weight = (joints * self.seen)[:, :, None] * mask
        pair_weight = weight[..., 1:] * mask[..., :-1]
        error = functional.smooth_l1_loss(y, x, reduction="none") * weight
        velocity = functional.smooth_l1_loss(y.diff(), x.diff(), reduction="none") * pair_weight
        return {
            "reconstruction": (error.sum(), weight.sum()),
            "velocity": (self.loss.velocity * velocity.sum(), pair_weight.sum()),
            "commitment": (self.loss.commitment * distance, count),
        }

    @property
    def tokens_per_step(self) -> int:
        return len(self.quantizer.sizes)

    @torch.inference_mode()
    def encode(self, angles: Tensor, frames: Tensor, joints: Tensor | None = None) -> Tensor:
        """Angles (B, T, 34) in radians -> tokens (B, n * tokens_per_step).

        frames: (B, T) float, 1 where a frame counts.
        joints: (B, 34) float, 1 where a joint was recorded; None: all were.
        """
        x = self._standardize(angles, torch.ones_like(angles[:, 0]) if joints is None else joints)
        quantized: Quantized = self.quantizer(*self.encoder(x, frames[:, None]))
        return quantized.tokens.flatten(1)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tokens (B, n * tokens_per_step) -> angles (B, T, 34) in radians.

        valid: (B, n) float, 1 where a step counts.
        """
        vectors = self.quantizer.codebook[tokens.unflatten(1, (-1, self.tokens_per_step))].sum(2)
        x: Tensor = self.decoder(vectors.transpose(1, 2), valid[:, None])
        return (x.transpose(1, 2) * self.scale + self.mean) * self.seen

    def _standardize(self, angles: Tensor, joints: Tensor) -> Tensor:
        """(B, T, 34) radians -> (B, 34, T), in standard deviations; 0 for joints that are not there."""
        x = (angles - self.mean) / self.scale * (joints * self.seen)[:, None]
        return x.transpose(1, 2)


def perplexity(codes: Any, size: int) -> float:
    """exp(entropy) of how often each of `size` codes occurs in `codes` (any shape, integers)."""
    counts = torch.bincount(torch.as_tensor(codes).flatten().long(), minlength=size).double()
    fractions = counts / counts.sum()
    return float(torch.exp(-(fractions * torch.log(fractions.clamp(min=1e-30))).sum()))
