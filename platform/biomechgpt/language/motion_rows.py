"""PEFT's trained rows of an embedding, without its copy of the whole embedding in every step.

The layers stay PEFT's: their names, their files and merging are PEFT's too. Only their forward differs. Importing
this module loads PEFT (4 s).
"""

from typing import Any

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from torch.nn import functional

from biomechgpt.language.output_layer import SplitWeights, split_embedding


class SplitTokensLayer(TrainableTokensLayer):
    """An embedding or output layer some of whose rows, which follow each other, are trained."""

    def split_weights(self) -> SplitWeights | None:
        """The frozen and the trained rows; None where PEFT's own way has to be taken.

        That is so without exactly one adapter in use, and where ZeRO stage 3 cuts up the weights.
        """
        frozen = self.base_layer.weight
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1 or hasattr(frozen, "ds_id"):
            return None
        (name,) = self.active_adapters
        if frozen.requires_grad or getattr(self.base_layer, "bias", None) is not None:
            return None
        return SplitWeights(frozen, self.trainable_tokens_delta[name], self.token_indices[name][0])

    def forward_adapters(self, x: Tensor, active_adapters: Any, *args: Any, **kwargs: Any) -> Tensor:
        split = self.split_weights()
        if split is None:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        if isinstance(self.base_layer, nn.Embedding):
            rows = split_embedding(x, split)
            # Gemma's embedding has a factor.
            scale = self._get_embed_scale()  # type: ignore[no-untyped-call]
            return rows if scale is None else rows * scale.to(rows.dtype)
        logits = functional.linear(x, split.frozen.detach())
        trained = functional.linear(x, split.trained.to(split.frozen.dtype))
        parts = [logits[..., : split.first], trained, logits[..., split.columns.stop :]]
        return torch.cat(parts, dim=-1)


def split_rows(model: nn.Module) -> None:
    """Change PEFT's trained rows in a model. Rows that do not follow each other stay PEFT's."""
    for layer in model.modules():
        if type(layer) is TrainableTokensLayer:
            ids = [list(rows) for rows in layer.token_indices.values()]
            if all(rows == list(range(rows[0], rows[0] + len(rows))) for rows in ids):
                layer.__class__ = SplitTokensLayer
