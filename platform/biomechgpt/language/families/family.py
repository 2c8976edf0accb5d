"""What differs from one family of language models to the next, as one record. Loads no torch, no transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biomechgpt.language.settings import TinyModelSettings
from biomechgpt.prompts.encoding import TurnMarkers

if TYPE_CHECKING:
    from torch import Tensor

MaskOf = Callable[[int | None], "Tensor"]
"""From a window (positions a token may look back; None: all) to a mask (B, 1, queries, keys), True where seen."""


@dataclass(frozen=True)
class TinyFamily:
    """How the local stand-in of a family is made."""

    special_tokens: tuple[str, ...]
    """Control tokens in the order of their ids."""
    roles: dict[str, str]
    """Names of these special tokens in transformers, e.g. {"bos_token": "<bos>"}."""
    speakers: tuple[str, ...]
    """Names of who speaks, each one token of the tokenizer."""
    chat_template: str
    """Jinja template of a dialogue; it must write the family's turn markers."""
    new_model: Callable[[Any, TinyModelSettings], Any]
    """From the tokenizer and the sizes to a model with random weights; torch's seed decides them."""


@dataclass(frozen=True)
class Family:
    """A family of language models: models of one architecture and one chat template."""

    name: str
    """Key in `FAMILIES`, and the value of the setting `family`."""
    label: str
    """Name in reports."""
    model_types: tuple[str, ...]
    """Values of `model_type` in the config.json of its checkpoints."""
    turns: TurnMarkers
    """Control text around the turns of a dialogue. `answer_end` is the token at which generation stops."""
    attention_masks: Callable[[Any, MaskOf], Any]
    """From a decoder's configuration and `MaskOf` to what the decoder takes as `attention_mask`."""
    lora_layers: str
    """Regular expression of the names of the linear layers that get adapters."""
    tiny: TinyFamily
    """How the local stand-in is made."""
    frozen_layers: str | None = None
    """Regular expression of parts that are never trained, such as a vision tower. None: there are none."""

    @property
    def lora_targets(self) -> str:
        """Regular expression of the whole names of the layers that get adapters, as PEFT matches them."""
        leave_out = f"(?!.*(?:{self.frozen_layers}))" if self.frozen_layers else ""
        return rf"{leave_out}.*\.{self.lora_layers}"


def full_attention(config: Any, mask_of: MaskOf) -> Any:
    """The mask of a model whose layers all see everything before a token."""
    return mask_of(None)


def attention_of_each_type(config: Any, mask_of: MaskOf) -> Any:
    """The masks of a model whose layers differ: some see everything before a token, some a sliding window."""
    masks = {"full_attention": mask_of(None)}
    if "sliding_attention" in config.layer_types:
        masks["sliding_attention"] = mask_of(config.sliding_window)
    return masks


def tiny_config(tokenizer: Any, settings: TinyModelSettings) -> dict[str, Any]:
    """What the configurations of all families' stand-ins have in common, as transformers names it."""
    return {
        # A multiple of 64, which a GPU multiplies faster.
        "vocab_size": (len(tokenizer) + 63) // 64 * 64,
        "hidden_size": settings.hidden_size,
        "intermediate_size": settings.intermediate_size,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.key_value_heads,
        "head_dim": settings.head_dim,
        "max_position_embeddings": 8192,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "tie_word_embeddings": True,
    }
