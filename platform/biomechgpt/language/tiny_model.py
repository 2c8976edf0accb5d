"""The local stand-in: a small model of a family and its tokenizer, made here from the questions' own words.

For machines where no weights can be downloaded. It knows no language beyond the tasks' questions and answers, and
every report calls it a stand-in.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from biomechgpt.language import network
from biomechgpt.language.families import FAMILIES
from biomechgpt.language.families.family import Family
from biomechgpt.language.families.gemma3 import GEMMA3
from biomechgpt.language.settings import TinyModelSettings


def stand_in_name(family: Family) -> str:
    """What reports call the local stand-in of a family."""
    return f"local stand-in (a small {family.label} trained here)"


def is_stand_in(name: str) -> bool:
    """Whether this is the name of a family's local stand-in."""
    return name in map(stand_in_name, FAMILIES.values())


def train_text_tokenizer(
    texts: Iterable[str], vocabulary: int, family: Family = GEMMA3
) -> "transformers.PreTrainedTokenizerFast":
    """A byte-level BPE with the family's special tokens.

    As in Gemma's tokenizer, every digit is a token of its own, so that a number is read digit by digit, and a line
    break and each speaker's name are one token.
    """
    texts, tiny = sorted(texts), family.tiny
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(tiny.special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Each speaker's name stands as often as there are texts: often enough to become a token.
    tokenizer.train_from_iterator(texts + list(tiny.speakers) * len(texts), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **tiny.roles,
        extra_special_tokens=[token for token in tiny.special_tokens if token not in tiny.roles.values()],
        chat_template=tiny.chat_template,
    )


def new_model(tokenizer: Any, settings: TinyModelSettings, family: Family = GEMMA3) -> Any:
    """A model of the settings' size with random weights; torch's seed decides them."""
    model = family.tiny.new_model(tokenizer, settings)
    model.set_attn_implementation(network.register_attention())
    return model


def save(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Weights (safetensors), configuration and tokenizer into a local folder."""
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
