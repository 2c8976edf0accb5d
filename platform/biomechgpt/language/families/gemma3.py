"""Gemma 3: text models (270M, 1B) and models with a vision tower (4B and larger)."""

from typing import Any

from biomechgpt.language.families.family import Family, TinyFamily, attention_of_each_type, tiny_config
from biomechgpt.language.settings import TinyModelSettings
from biomechgpt.prompts.encoding import GEMMA_TURNS

# Gemma's, without the parts for images and system turns.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' "
    "+ message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _new_model(tokenizer: Any, settings: TinyModelSettings) -> Any:
    import transformers

    config = transformers.Gemma3TextConfig(
        **tiny_config(tokenizer, settings),
        query_pre_attn_scalar=settings.head_dim,
        sliding_window=settings.sliding_window,
        # Gemma's pattern: five layers look through the window, the sixth sees everything. However few layers there
        # are, the last one sees everything.
        layer_types=[
            "full_attention" if (layer + 1) % 6 == 0 or layer + 1 == settings.layers else "sliding_attention"
            for layer in range(settings.layers)
        ],
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    return transformers.Gemma3ForCausalLM(config)


GEMMA3 = Family(
    name="gemma3",
    label="Gemma 3",
    model_types=("gemma3", "gemma3_text"),
    turns=GEMMA_TURNS,
    attention_masks=attention_of_each_type,
    lora_layers="(?:[qkvo]|gate|up|down)_proj",
    frozen_layers="vision_tower|multi_modal_projector",
    tiny=TinyFamily(
        special_tokens=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        roles={"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        speakers=("user", "model"),
        chat_template=CHAT_TEMPLATE,
        new_model=_new_model,
    ),
)
