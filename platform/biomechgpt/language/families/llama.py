"""Llama 3: every layer sees everything before a token; answers end with <|eot_id|>.

The turn markers are those of Llama 3 Instruct. Llama 3.1 and later put a system turn with the date before them by
default; their models read a dialogue without it as well.
"""

from typing import Any

from biomechgpt.language.families.family import Family, TinyFamily, full_attention, tiny_config
from biomechgpt.language.settings import TinyModelSettings
from biomechgpt.prompts.encoding import TurnMarkers


def _header(speaker: str) -> str:
    return f"<|start_header_id|>{speaker}<|end_header_id|>\n\n"


# Llama 3's, without the part for tools.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def _new_model(tokenizer: Any, settings: TinyModelSettings) -> Any:
    import transformers

    config = transformers.LlamaConfig(
        **tiny_config(tokenizer, settings),
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")],
    )
    return transformers.LlamaForCausalLM(config)


LLAMA = Family(
    name="llama",
    label="Llama",
    model_types=("llama",),
    turns=TurnMarkers(
        dialogue_start="<|begin_of_text|>" + _header("user"),
        question_end="<|eot_id|>" + _header("assistant"),
        answer_end="<|eot_id|>",
        next_question="<|eot_id|>" + _header("user"),
    ),
    attention_masks=full_attention,
    lora_layers="(?:[qkvo]|gate|up|down)_proj",
    tiny=TinyFamily(
        special_tokens=(
            "<|finetune_right_pad_id|>",
            "<|end_of_text|>",
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        roles={
            "pad_token": "<|finetune_right_pad_id|>",
            "eos_token": "<|end_of_text|>",
            "bos_token": "<|begin_of_text|>",
        },
        speakers=("user", "assistant"),
        chat_template=CHAT_TEMPLATE,
        new_model=_new_model,
    ),
)
