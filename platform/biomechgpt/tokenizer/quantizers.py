"""Quantizers: vectors replaced by the nearest of a codebook's, the same on every worker.

A quantizer is one call, `(z, mask) -> (quantized, tokens, loss)`. Each step of z becomes one token or several;
a token names a row of `codebook`, and what a step stands for is the sum of its tokens' rows. `sizes` says how
many rows each of a step's tokens chooses from, in their order.

Codebooks are learned by exponential moving averages: van den Oord et al. 2017, appendix A.1, with the reset of
unused codes of T2M-GPT. Counts, sums and the vectors that resets draw from are those of all workers' batches
together. vector-quantize-pytorch's first vectors and resets come from each worker's own generator, so that two
workers learn another codebook than one; ours learn the same (to 1e-6), with the same error and in half its time:
benchmarks/speed/quantizers.py. Its FSQ has no state to keep equal and is used as it is. Knows tensors only.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from biomechgpt.core.settings import Settings
from biomechgpt.motion.skeleton import PARTS

Quantized = tuple[Tensor, Tensor, tuple[Tensor, Tensor]]
"""quantized (B, D, n) with gradients straight through; tokens (B, n, tokens a step); the commitment loss, as the
squared distance over valid elements and their number."""


class QuantizerSettings(Settings):
    """The defaults are the paper's."""

    kind: str = Field("ema", description="ema, residual, fsq or grouped (a codebook a part of the body)")
    codes: int = Field(512, ge=2, description="of each codebook; of fsq the product of its grid")
    levels: int = Field(2, ge=2, le=8, description="of residual: codebooks, each for what those before left")
    grid: tuple[int, ...] = Field((8, 8, 8), description="of fsq: values of each dimension, 3 or more")
    decay: float = Field(0.99, gt=0, lt=1, description="of a codebook's moving averages")
    reset_below: float = Field(1.0, ge=0, description="codes used less than this, on average, are replaced")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in QUANTIZERS:
            raise ValueError(f"expected one of {', '.join(QUANTIZERS)}")
        return kind

    @model_validator(mode="after")
    def _fits(self) -> "QuantizerSettings":
        if self.kind == "fsq":
            if min(self.grid, default=0) < 3:
                raise ValueError("grid: expected one or more numbers of at least 3")
            if math.prod(self.grid) != self.codes:
                raise ValueError(f"codes: expected {math.prod(self.grid)}, the product of the grid")
        return self


class Ema(nn.Module):
    """The nearest of `codes` vectors in Euclidean distance."""

    codebook: Tensor
    count: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, settings: QuantizerSettings, dim: int, seed: int) -> None:
        super().__init__()
        self.decay, self.reset_below, self.seed = settings.decay, settings.reset_below, seed
        self.sizes = (settings.codes,)
        self.register_buffer("codebook", torch.zeros(settings.codes, dim))
        self.register_buffer("count", torch.ones(settings.codes))
        self.register_buffer("total", torch.zeros(settings.codes, dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        """z (B, D, n); mask (B, 1, n), 1 where a step counts."""
        if self.training:
            self._prepare(z, mask)
        codes = self.nearest(z)
        vectors = self.codebook[codes].transpose(1, 2)
        if self.training:
            self._learn(z, mask, codes)
        distance = ((z - vectors) ** 2 * mask).sum()
        return z + (vectors - z).detach(), codes[..., None], (distance, mask.sum() * z.shape[1])

    def nearest(self, z: Tensor) -> Tensor:
        """(B, D, n) -> codes (B, n)."""
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])
        distance = torch.addmm(self.codebook.pow(2).sum(1), flat, self.codebook.T, alpha=-2)
        return distance.argmin(1).view(z.shape[0], z.shape[2])

    @torch.no_grad()
    def _prepare(self, z: Tensor, mask: Tensor) -> None:
        if self.steps == 0:
            self.total.copy_(self._sample(z, mask))
            self.codebook.copy_(self.total)

    @torch.no_grad()
    def _learn(self, z: Tensor, mask: Tensor, codes: Tensor) -> None:
        """One step of the moving averages; codes that fell out of use start again at vectors of the batch."""
        valid = mask.flatten() > 0
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])[valid].float()
        used = codes.flatten()[valid]
        count = torch.zeros_like(self.count).index_add_(0, used, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, used, flat)
        if dist.is_initialized():
            dist.all_reduce(count)
            dist.all_reduce(total)
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        unused = self.count < self.reset_below  # alike on every worker, so all of them sample or none does
        if unused.any():
            # A code that starts again does so as if its vector had been seen once a step.
            self.total.copy_(torch.where(unused[:, None], self._sample(z, mask), self.total))
            self.count.masked_fill_(unused, 1)
        self.codebook.copy_(self.total / self.count[:, None].clamp(min=1e-5))
        self.steps += 1

    def _sample(self, z: Tensor, mask: Tensor) -> Tensor:
        """As many vectors as there are codes, drawn from all workers' batches alike."""
        rows = torch.cat([z.transpose(1, 2), mask.transpose(1, 2)], dim=2).float().contiguous()
        if dist.is_initialized() and dist.get_world_size() > 1:
            # Worker r has samples r, r + workers, ...: back in the order one worker would have them. Where they
            # do not divide evenly, some have one less.
            most = torch.tensor(len(rows), device=rows.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            rows = torch.cat([rows, rows.new_zeros(int(most) - len(rows), *rows.shape[1:])])
            parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, rows)
            rows = torch.stack(parts, dim=1)
        rows = rows.reshape(-1, rows.shape[-1])
        rows = rows[rows[:, -1] > 0, :-1]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.steps))
        size = len(self.codebook)
        pick = torch.randperm(len(rows), generator=generator)
        if len(rows) < size:
            pick = pick.repeat(-(-size // len(rows)))
        noise = 0.01 * torch.randn(size, rows.shape[1], generator=generator)
        spread = rows.std(0, correction=0)
        return rows[pick[:size].to(rows.device)] + noise.to(rows.device) * spread


class _Several(nn.Module):
    """Some codebooks; their tokens are numbered one after another."""

    books: Any

    def __init__(self, settings: QuantizerSettings, dims: Sequence[int], seed: int) -> None:
        super().__init__()
        self.books = nn.ModuleList(Ema(settings, dim, seed * 101 + i) for i, dim in enumerate(dims))
        self.sizes = (settings.codes,) * len(dims)
        self._first = [0, *accumulate(self.sizes)]

    def _tokens(self, codes: list[Tensor]) -> Tensor:
        return torch.cat([own + first for own, first in zip(codes, self._first, strict=False)], dim=-1)


class Residual(_Several):
    """Each codebook for what those before it left over. Zeghidour et al., "SoundStream", 2021."""

    def __init__(self, settings: QuantizerSettings, dim: int, seed: int) -> None:
        super().__init__(settings, [dim] * settings.levels, seed)

    @property
    def codebook(self) -> Tensor:
        return torch.cat([book.codebook for book in self.books])

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        rest, codes, distance = z, [], z.new_zeros(())
        for book in self.books:
            quantized, own, (part, count) = book(rest, mask)
            rest, distance = rest - quantized.detach(), distance + part
            codes.append(own)
        return z - rest.detach(), self._tokens(codes), (distance, count)


class Grouped(_Several):
    """A codebook for each of `skeleton.PARTS`, over as many equal shares of the dimensions."""

    def __init__(self, settings: QuantizerSettings, dim: int, seed: int) -> None:
        self.dims = [len(share) for share in np.array_split(np.arange(dim), len(PARTS))]
        super().__init__(settings, self.dims, seed)

    @property
    def codebook(self) -> Tensor:
        return torch.block_diag(*(book.codebook for book in self.books))

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        made = [book(part, mask) for book, part in zip(self.books, z.split(self.dims, 1), strict=True)]
        quantized, codes, losses = zip(*made, strict=True)
        distance, count = (torch.stack(terms).sum() for terms in zip(*losses, strict=True))
        return torch.cat(quantized, 1), self._tokens(list(codes)), (distance, count)


class Fsq(nn.Module):
    """A fixed grid over few dimensions, nothing to learn or reset. Mentzer et al., ICLR 2024."""

    def __init__(self, settings: QuantizerSettings, dim: int, seed: int) -> None:
        super().__init__()
        from vector_quantize_pytorch import FSQ  # takes 2 s to load, which other tokenizers do without

        self.grid = FSQ(list(settings.grid), dim=dim)
        self.sizes = (settings.codes,)

    @property
    def codebook(self) -> Tensor:
        return self.grid.project_out(self.grid.implicit_codebook)

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        quantized, codes = self.grid(z.transpose(1, 2))
        loss = (z.new_zeros(()), mask.sum() * z.shape[1])
        return quantized.transpose(1, 2), codes.long()[..., None], loss


QUANTIZERS: dict[str, type[nn.Module]] = {"ema": Ema, "residual": Residual, "grouped": Grouped, "fsq": Fsq}
"""Each is made from (settings, dim, seed) and has `sizes` and `codebook` (sum of sizes, dim)."""
