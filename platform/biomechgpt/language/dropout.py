"""Dropout whose random numbers are cheap on a CPU.

torch draws one number a value there, on one core: a quarter of a step's time with the paper's adapters, which have
seven dropouts in each layer. Here four values share one 64-bit number. Knows tensors only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_BITS = 16


def _kept(x: Tensor, p: float) -> Tensor:
    """Random booleans of x's shape; False with probability p, rounded to a multiple of 2**-16."""
    n_per_draw = 64 // _BITS
    draws = torch.empty(-(-x.numel() // n_per_draw), dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept: Tensor = numbers >= round(p * 2**_BITS) - 2 ** (_BITS - 1)
    return kept


class CheapDropout(nn.Module):
    """As nn.Dropout. On a GPU it is nn.Dropout."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        return torch.where(_kept(x, self.p), x * (1 / (1 - self.p)), 0)


def replace_dropout(model: nn.Module) -> None:
    """Put `CheapDropout` in the place of every nn.Dropout of a model."""
    for parent in model.modules():
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, CheapDropout(child.p))
