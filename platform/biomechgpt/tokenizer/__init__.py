"""The motion tokenizer: a VQ-VAE, its training, and movement to tokens and back."""

from biomechgpt.tokenizer.motion_tokenizer import (
    ERROR,
    MotionTokenizer,
    TokensSettings,
    is_mirrored,
    make_tokens,
    mirrored,
    read_images,
    read_tokens,
    read_views,
    require_same_tokenizer,
    rmse_deg,
)
from biomechgpt.tokenizer.train import TokenizerSettings, make_tokenizer

__all__ = [
    "ERROR",
    "MotionTokenizer",
    "TokenizerSettings",
    "TokensSettings",
    "is_mirrored",
    "make_tokenizer",
    "make_tokens",
    "mirrored",
    "read_images",
    "read_tokens",
    "read_views",
    "require_same_tokenizer",
    "rmse_deg",
]
