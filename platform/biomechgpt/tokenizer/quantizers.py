"""Quantizers: they replace vectors by codebook vectors, and learn the same codebook on any number of workers.

A token is a row number of `codebook`. Each step of the encoder's output becomes one token or several. The vector of
a step is the sum of its tokens' rows.

Codebooks are learned by exponential moving averages (van den Oord et al. 2017, appendix A.1), with T2M-GPT's reset
of dead codes. The averages and the vectors that replace dead codes come from the batches of all workers together.
vector-quantize-pytorch draws first vectors and replacements from each worker's own generator, so two workers learn
another codebook than one. Here they learn the same (to 1e-6), with the same error, in half the time
(benchmarks/speed/quantizers.py). Its FSQ has no state to keep equal and is used as it is. Knows tensors only.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from biomechgpt.motion.skeleton import PARTS
from biomechgpt.tokenizer.settings import (
    BodyPartVQSettings,
    CodebookSettings,
    FSQSettings,
    QuantizerSettings,
    ResidualVQSettings,
)


class Quantized(NamedTuple):
    """What a quantizer makes of (B, D, n) vectors."""

    vectors: Tensor
    """(B, D, n): codebook vectors, with gradients that pass straight through to the encoder."""
    tokens: Tensor
    """(B, n, tokens per step) row numbers of the codebook."""
    commitment: tuple[Tensor, Tensor]
    """Commitment loss: squared distance summed over valid elements, and their number."""


class Quantizer(nn.Module):
    """Base of all quantizers. A subclass is built from (settings, dim, seed)."""

    sizes: tuple[int, ...]
    """Number of rows that each of a step's tokens chooses from, in their order."""

    if TYPE_CHECKING:  # not at run time, so that a subclass may register a buffer of this name

        @property
        def codebook(self) -> Tensor:
            """(sum of `sizes`, dim): one row per token."""

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        """Quantize z (B, D, n). mask: (B, 1, n), 1 where a step counts and 0 where it is padding."""
        raise NotImplementedError

    def joint_groups(self) -> list[tuple[np.ndarray, int]] | None:
        """Groups of joints (their numbers) that need an encoder each, with the dimensions that each encoder gives.

        None: one encoder sees all joints and gives all dimensions.
        """
        return None

    def usage(self) -> Tensor | None:
        """(number of rows,) moving average of how often each code is used in a step. None: it is not counted."""
        return None


class EMAQuantizer(Quantizer):
    """The nearest of `codebook_size` vectors in Euclidean distance."""

    codebook: Tensor
    count: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, settings: CodebookSettings, dim: int, seed: int) -> None:
        super().__init__()
        self.decay, self.seed = settings.decay, seed
        self.threshold_ema_dead_code = settings.threshold_ema_dead_code
        self.sizes = (settings.codebook_size,)
        self.register_buffer("codebook", torch.zeros(settings.codebook_size, dim))
        # Moving averages per code: how many vectors chose it in a step, and the sum of these vectors.
        self.register_buffer("count", torch.ones(settings.codebook_size))
        self.register_buffer("total", torch.zeros(settings.codebook_size, dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        if self.training and self.steps == 0:
            self._initialize(z, mask)
        codes = self.nearest(z)
        vectors = self.codebook[codes].transpose(1, 2)
        if self.training:
            self._update(z, mask, codes)
        distance = ((z - vectors) ** 2 * mask).sum()
        # Straight-through estimator: the value is the code's, the gradient is that of z.
        straight_through = z + (vectors - z).detach()
        return Quantized(straight_through, codes[..., None], (distance, mask.sum() * z.shape[1]))

    def nearest(self, z: Tensor) -> Tensor:
        """(B, D, n) -> codes (B, n)."""
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])
        # |z - c|^2 without |z|^2, which is the same for every code.
        distance = torch.addmm(self.codebook.pow(2).sum(1), flat, self.codebook.T, alpha=-2)
        return distance.argmin(1).view(z.shape[0], z.shape[2])

    def usage(self) -> Tensor:
        return self.count

    @torch.no_grad()
    def _initialize(self, z: Tensor, mask: Tensor) -> None:
        """Start with vectors of the first batch."""
        self.total.copy_(self._sample(z, mask))
        self.codebook.copy_(self.total)

    @torch.no_grad()
    def _update(self, z: Tensor, mask: Tensor, codes: Tensor) -> None:
        """One step of the moving averages: each code moves towards the mean of the vectors that chose it."""
        valid = mask.flatten() > 0
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])[valid].float()
        used = codes.flatten()[valid]
        count = torch.zeros_like(self.count).index_add_(0, used, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, used, flat)
        if dist.is_initialized():
            # Summed over all workers, so every worker's codebook is that of the whole batch.
            dist.all_reduce(count)
            dist.all_reduce(total)
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        # The counts are equal on every worker, so either all workers sample or none does.
        dead = self.count < self.threshold_ema_dead_code
        if dead.any():
            # A dead code restarts at a vector of the batch, as if this vector had been seen once per step.
            self.total.copy_(torch.where(dead[:, None], self._sample(z, mask), self.total))
            self.count.masked_fill_(dead, 1)
        self.codebook.copy_(self.total / self.count[:, None].clamp(min=1e-5))
        self.steps += 1

    def _sample(self, z: Tensor, mask: Tensor) -> Tensor:
        """As many vectors as there are codes, drawn from the batches of all workers, equal on every worker."""
        # The mask travels with the vectors as a last column.
        rows = torch.cat([z.transpose(1, 2), mask.transpose(1, 2)], dim=2).float().contiguous()
        if dist.is_initialized() and dist.get_world_size() > 1:
            # Worker r has samples r, r + workers, ... of the batch. Interleaving restores the order that one worker
            # would have. If the batch does not divide evenly, shorter shares get samples of masked zeros.
            most = torch.tensor(len(rows), device=rows.device)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            rows = torch.cat([rows, rows.new_zeros(int(most) - len(rows), *rows.shape[1:])])
            shares = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
            dist.all_gather(shares, rows)
            rows = torch.stack(shares, dim=1)
        rows = rows.reshape(-1, rows.shape[-1])
        rows = rows[rows[:, -1] > 0, :-1]
        # A generator of its own, seeded by the step: all workers, and a resumed run, draw the same.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.steps))
        size = len(self.codebook)
        pick = torch.randperm(len(rows), generator=generator)
        if len(rows) < size:
            pick = pick.repeat(-(-size // len(rows)))
        # A little noise, so that a vector which is drawn twice gives two codes.
        noise = 0.01 * torch.randn(size, rows.shape[1], generator=generator)
        spread = rows.std(0, correction=0)
        return rows[pick[:size].to(rows.device)] + noise.to(rows.device) * spread


class _MultipleCodebooks(Quantizer):
    """Several EMA codebooks. Their tokens are numbered consecutively: the second book's follow the first's."""

    books: Any

    def __init__(self, settings: CodebookSettings, dims: Sequence[int], seed: int) -> None:
        super().__init__()
        self.books = nn.ModuleList(EMAQuantizer(settings, dim, seed * 101 + i) for i, dim in enumerate(dims))
        self.sizes = (settings.codebook_size,) * len(dims)
        self._first_token = [0, *accumulate(self.sizes)]

    def usage(self) -> Tensor:
        return torch.cat([book.count for book in self.books])

    def _tokens(self, codes: list[Tensor]) -> Tensor:
        return torch.cat([own + first for own, first in zip(codes, self._first_token, strict=False)], dim=-1)


class ResidualVQ(_MultipleCodebooks):
    """Residual quantization: each codebook quantizes what the ones before it left over.

    Zeghidour et al., "SoundStream", 2021.
    """

    def __init__(self, settings: ResidualVQSettings, dim: int, seed: int) -> None:
        super().__init__(settings, [dim] * settings.num_quantizers, seed)

    @property
    def codebook(self) -> Tensor:
        return torch.cat([book.codebook for book in self.books])

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        residual, codes, distance = z, [], z.new_zeros(())
        for book in self.books:
            vectors, own, (own_distance, count) = book(residual, mask)
            # Detached: the gradient goes through z alone, once.
            residual, distance = residual - vectors.detach(), distance + own_distance
            codes.append(own)
        return Quantized(z - residual.detach(), self._tokens(codes), (distance, count))


class BodyPartVQ(_MultipleCodebooks):
    """One codebook for each of `skeleton.PARTS`, over equal shares of the dimensions."""

    def __init__(self, settings: BodyPartVQSettings, dim: int, seed: int) -> None:
        self.dims = [len(share) for share in np.array_split(np.arange(dim), len(PARTS))]
        super().__init__(settings, self.dims, seed)

    @property
    def codebook(self) -> Tensor:
        # A row is zero outside its part's dimensions, so the sum of a step's rows puts the parts side by side.
        codebook: Tensor = torch.block_diag(*(book.codebook for book in self.books))
        return codebook

    def joint_groups(self) -> list[tuple[np.ndarray, int]]:
        """The parts: the codes of a part depend on its own joints alone."""
        return list(zip(PARTS.values(), self.dims, strict=True))

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        parts = [book(part, mask) for book, part in zip(self.books, z.split(self.dims, 1), strict=True)]
        vectors, codes, losses = zip(*parts, strict=True)
        distance, count = (torch.stack(terms).sum() for terms in zip(*losses, strict=True))
        return Quantized(torch.cat(vectors, 1), self._tokens(list(codes)), (distance, count))


class FSQQuantizer(Quantizer):
    """Finite scalar quantization: a fixed grid over a few dimensions, with nothing to learn or reset.

    Mentzer et al., ICLR 2024.
    """

    def __init__(self, settings: FSQSettings, dim: int, seed: int) -> None:
        super().__init__()
        from vector_quantize_pytorch import FSQ  # takes 2 s to load, and only this quantizer needs it

        self.grid = FSQ(list(settings.levels), dim=dim)
        self.sizes = (settings.codebook_size,)

    @property
    def codebook(self) -> Tensor:
        result: Tensor = self.grid.project_out(self.grid.implicit_codebook)
        return result

    def forward(self, z: Tensor, mask: Tensor) -> Quantized:
        vectors, codes = self.grid(z.transpose(1, 2))
        # The grid has no codes that vectors could commit to, so the loss is 0.
        loss = (z.new_zeros(()), mask.sum() * z.shape[1])
        return Quantized(vectors.transpose(1, 2), codes.long()[..., None], loss)


QUANTIZERS: dict[str, type[Any]] = {
    "ema": EMAQuantizer,
    "residual": ResidualVQ,
    "body_parts": BodyPartVQ,
    "fsq": FSQQuantizer,
}
"""The class for each kind of `QuantizerSettings`."""


def build_quantizer(settings: QuantizerSettings, dim: int, seed: int) -> Quantizer:
    """The quantizer that the settings ask for. dim: dimensions of the vectors. seed: draws first vectors."""
    quantizer: Quantizer = QUANTIZERS[settings.kind](settings, dim, seed)
    return quantizer
