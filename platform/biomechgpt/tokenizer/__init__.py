"""The motion tokenizer: a VQ-VAE, its training, and movement to tokens and back."""

from biomechgpt.tokenizer.encode import (
    MotionTokenizer,
    TokensSettings,
    is_mirrored,
    make_tokens,
    read_tokens,
    read_views,
    require_same_tokenizer,
)
from biomechgpt.tokenizer.train import TokenizerSettings, make_tokenizer

__all__ = [
    "MotionTokenizer",
    "TokenizerSettings",
    "TokensSettings",
    "is_mirrored",
    "make_tokenizer",
    "make_tokens",
    "read_tokens",
    "read_views",
    "require_same_tokenizer",
]
