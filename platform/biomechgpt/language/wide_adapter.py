"""Wide adapters as one product: cheaper than PEFT's three where the rank is large, as in a stand-in.

PEFT computes x W' + s (x A') B' in products that each read all tokens. The same is x (W + s B A)'. The sum costs a
product of small matrices once a step, then each token is multiplied once. Results and gradients are the same up to
rounding. The layers stay PEFT's: names, files and merging too. Importing this module loads PEFT (4 s).
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.nn import functional


class WideLinear(Linear):
    """A linear layer with one adapter that is added to its weights before tokens are multiplied."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # In 16 bits the sum would round the adapter away.
        weight = None if torch.is_autocast_enabled(x.device.type) else self._summed()
        if weight is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        bias: Any = self.base_layer.bias
        return functional.linear(x, weight, bias)

    def _summed(self) -> Tensor | None:
        """W + s B A; None where PEFT's own way has to be taken."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1 or self.lora_variant:
            return None
        (name,) = self.active_adapters
        layers: list[Any] = [self.base_layer, self.lora_A[name], self.lora_B[name]]
        weights: list[Tensor] = [layer.weight for layer in layers]
        # Dropout takes values from the adapter's input alone. ZeRO stage 3 cuts up the weights.
        if (
            not isinstance(self.lora_dropout[name], nn.Identity)
            or {weight.dtype for weight in weights} != {torch.float32}
            or any(hasattr(weight, "ds_id") for weight in weights)
        ):
            return None
        summed: Tensor = torch.add(weights[0], weights[2] @ weights[1], alpha=self.scaling[name])
        return summed


def is_wide(n_in: int, n_out: int, rank: int) -> bool:
    """Whether the sum is cheaper.

    For each token, in multiply-adds: PEFT's way takes 2 n_in n_out (forwards, and backwards to the input) and
    3 rank (n_in + n_out); the sum takes 3 n_in n_out, as the gradient of all weights is computed.
    """
    return 3 * rank * (n_in + n_out) > n_in * n_out


def sum_wide_adapters(model: nn.Module) -> None:
    """Change PEFT's layers in a model where that is cheaper: those whose weights are not packed in 4 bits."""
    for layer in model.modules():
        if type(layer) is Linear and type(layer.base_layer) is nn.Linear:
            ranks, (n_out, n_in) = list(layer.r.values()), layer.base_layer.weight.shape
            if len(ranks) == 1 and is_wide(n_in, n_out, ranks[0]):
                layer.__class__ = WideLinear
