"""The local stand-in base: a small Gemma 3 and its tokenizer, made here from the questions' own words.

For machines where no weights can be downloaded. It knows no language beyond the tasks' phrasings, and
every report calls it what it is.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from pydantic import Field
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from biomechgpt.core.settings import Settings
from biomechgpt.language import network

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]

SPEAKERS = ["user", "model"]

# Gemma's, without the parts for images and system turns.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


class StandInSettings(Settings):
    """Size of the small Gemma 3; the defaults have 5 M parameters."""

    vocabulary: int = Field(1024, ge=300)
    hidden_size: int = 256
    intermediate_size: int = 896
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 64
    sliding_window: int = 512


def train_text_tokenizer(texts: Iterable[str], vocabulary: int) -> "transformers.PreTrainedTokenizerFast":
    """A byte-level BPE with Gemma's special tokens; as in Gemma's, digits stand apart and who speaks is a token."""
    texts = sorted(texts)
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
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts + SPEAKERS * len(texts), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: Any, settings: StandInSettings) -> "transformers.Gemma3ForCausalLM":
    """A Gemma 3 of the settings' size with random weights (torch's seed decides them)."""
    config = transformers.Gemma3TextConfig(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        head_dim=settings.head_dim,
        query_pre_attn_scalar=settings.head_dim,
        sliding_window=settings.sliding_window,
        # As in Gemma's pattern of six the last sees everything, however few there are.
        layer_types=[
            "full_attention" if (layer + 1) % 6 == 0 or layer + 1 == settings.layers else "sliding_attention"
            for layer in range(settings.layers)
        ],
        max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
        tie_word_embeddings=True,
        attn_implementation=network.sdpa(),  # type: ignore[call-arg]
    )
    return transformers.Gemma3ForCausalLM(config)


def save(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """Weights (safetensors), configuration and tokenizer into a local folder."""
    model.save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
