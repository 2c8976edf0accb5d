"""A codebook learned by exponential moving averages, the same on every worker.

van den Oord et al. 2017, appendix A.1, with the reset of unused codes of T2M-GPT. Counts, sums and the
vectors that resets draw from are those of all workers' batches together.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Quantizer(nn.Module):
    """Replaces each vector by the nearest of `codes` vectors, in Euclidean distance."""

    codebook: Tensor
    count: Tensor
    total: Tensor
    steps: Tensor

    def __init__(self, codes: int, dim: int, decay: float, reset_below: float, seed: int) -> None:
        super().__init__()
        self.decay, self.reset_below, self.seed = decay, reset_below, seed
        self.register_buffer("codebook", torch.zeros(codes, dim))
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", torch.zeros(codes, dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, D, n), mask (B, 1, n) -> quantized (B, D, n) with gradients straight through, and the sum
        over valid elements of the squared distance to the codes."""
        if self.training:
            self._prepare(z, mask)
        codes = self.nearest(z)
        quantized = self.vectors(codes)
        if self.training:
            self._learn(z, mask, codes)
        commitment = ((z - quantized.detach()) ** 2 * mask).sum()
        return z + (quantized - z).detach(), commitment

    def nearest(self, z: Tensor) -> Tensor:
        """(B, D, n) -> codes (B, n)."""
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])
        distance = self.codebook.pow(2).sum(1) - 2 * flat @ self.codebook.T
        return distance.argmin(1).view(z.shape[0], z.shape[2])

    def vectors(self, codes: Tensor) -> Tensor:
        """Codes (B, n) -> (B, D, n)."""
        return self.codebook[codes].transpose(1, 2)

    @torch.no_grad()
    def _prepare(self, z: Tensor, mask: Tensor) -> None:
        if self.steps == 0:
            self.total.copy_(self._sample(z, mask))
            self.codebook.copy_(self.total)

    @torch.no_grad()
    def _learn(self, z: Tensor, mask: Tensor, codes: Tensor) -> None:
        """One step of the moving averages; codes that fell out of use start again at vectors of the batch."""
        size = len(self.codebook)
        valid = mask.flatten() > 0
        flat = z.transpose(1, 2).reshape(-1, z.shape[1])[valid].float()
        used = codes.flatten()[valid]
        count = torch.zeros(size, device=z.device).index_add_(0, used, torch.ones_like(flat[:, 0]))
        total = torch.zeros_like(self.total).index_add_(0, used, flat)
        if dist.is_initialized():
            dist.all_reduce(count)
            dist.all_reduce(total)
        self.count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(total, alpha=1 - self.decay)
        fresh = self._sample(z, mask)
        kept = (self.count >= self.reset_below)[:, None]
        self.codebook.copy_(torch.where(kept, self.total / self.count[:, None].clamp(min=1e-5), fresh))
        # A code that starts again does so as if its vector had been seen once a step.
        self.total.copy_(torch.where(kept, self.total, fresh))
        self.count.copy_(torch.where(kept[:, 0], self.count, torch.ones_like(self.count)))
        self.steps += 1

    def _sample(self, z: Tensor, mask: Tensor) -> Tensor:
        """As many vectors as there are codes, drawn from all workers' batches alike."""
        rows = torch.cat([z.transpose(1, 2), mask.transpose(1, 2)], dim=2).float().contiguous()
        if dist.is_initialized() and dist.get_world_size() > 1:
            parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, rows)
            # Worker r has samples r, r + workers, ...: back in the order one worker would have them.
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
