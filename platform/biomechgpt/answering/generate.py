"""Movements that the language model generates as motion tokens: from a description, or continuing a movement.

Each token is sampled among those that a movement can have there. Knows nothing about files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import Field

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.prompts.encoding import MIN_MOTION_TOKENS, MOTION_END, MOTION_START, motion_token


class SamplingSettings(Settings):
    """How tokens are sampled."""

    temperature: float = Field(1.0, gt=0)
    """Temperature of the distribution of tokens. 1: as trained; lower values prefer likely tokens."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus sampling: tokens are drawn from the most likely ones that have this total probability."""
    seed: int = 0
    """Seed of the random numbers."""
    batch_size: int = Field(16, ge=1, exclude=True)
    """Movements that are generated at the same time."""


def describe_to_motion(
    answerer: Answerer,
    descriptions: Sequence[str],
    sizes: Sequence[int],
    longest: int,
    settings: SamplingSettings,
) -> list[list[int]]:
    """The motion tokens of a movement for each description.

    descriptions: whole questions, such as `Show TUG, stroke, cane.`
    sizes: codebook size of each token of a step.
    longest: most motion tokens of a movement that the model does not end.
    """
    opening = answerer.encoder.prefix([])
    start = answerer.encoder.text(MOTION_START)
    prompts = [np.concatenate([opening, answerer.encoder.question(text), start]) for text in descriptions]
    return _sample(answerer, prompts, sizes, [longest] * len(prompts), True, settings)


def continue_motion(
    answerer: Answerer,
    movements: Sequence[Sequence[int]],
    n_tokens: Sequence[int],
    sizes: Sequence[int],
    settings: SamplingSettings,
) -> list[list[int]]:
    """The motion tokens that follow each movement, without the movement itself.

    n_tokens: how many, for each movement.
    sizes: codebook size of each token of a step.
    """
    # Without the prefix's last token, which ends the movement.
    prompts = [answerer.encoder.prefix([tokens])[:-1] for tokens in movements]
    return _sample(answerer, prompts, sizes, n_tokens, False, settings)


def _sample(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    sizes: Sequence[int],
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    """Motion tokens after each prompt, in batches of similar length."""
    max_length = answerer.info.max_length
    for number, (prompt, n) in enumerate(zip(prompts, longest, strict=True)):
        if len(prompt) + n > max_length:
            raise InputError(
                f"movement {number}: expected at most {max_length} tokens with what comes before it, "
                f"found {len(prompt) + n}"
            )
    sampled: list[list[int]] = [[] for _ in prompts]
    shortest_first = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for begin in range(0, len(prompts), settings.batch_size):
            batch = shortest_first[begin : begin + settings.batch_size]
            drawn = _sample_batch(
                answerer, [prompts[i] for i in batch], sizes, [longest[i] for i in batch], may_end, settings
            )
            for i, tokens in zip(batch, drawn, strict=True):
                sampled[i] = tokens
    return sampled


def _sample_batch(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    sizes: Sequence[int],
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    pad = answerer.tokenizer.pad_token_id
    first_id = answerer.tokenizer.convert_tokens_to_ids(motion_token(0))
    end_id = answerer.tokenizer.convert_tokens_to_ids(MOTION_END)
    step = len(sizes)
    # The fewest whole steps that hold MIN_MOTION_TOKENS: a shorter movement is none.
    least = -(-MIN_MOTION_TOKENS // step) * step
    grammar = _Grammar(first_id, sizes, end_id if may_end else None, max(map(len, prompts)), least)
    generated = answerer.generate_tokens(
        prompts,
        logits_processor=transformers.LogitsProcessorList([grammar]),
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=0,
        max_new_tokens=max(longest),
        eos_token_id=end_id,
    )
    movements = []
    for row, n in zip(generated.tolist(), longest, strict=True):
        ids = row[: row.index(end_id)] if end_id in row else row
        whole_steps = ids[:n][: n // step * step]
        movements.append([token_id - first_id for token_id in whole_steps if token_id != pad])
    return movements


class _Grammar:
    """A logits processor that allows only tokens with which a movement can go on.

    These are the codes of the token's place in its step, and the end token between steps.
    first_id: id of the first motion token.
    sizes: codebook size of each token of a step.
    end_id: id of the end token; None: the movement may not end.
    prompt_length: tokens before the first generated one.
    least: motion tokens after which the movement may end.
    """

    def __init__(
        self, first_id: int, sizes: Sequence[int], end_id: int | None, prompt_length: int, least: int
    ) -> None:
        self.edges = first_id + np.cumsum([0, *sizes])
        self.end_id, self.prompt_length, self.least = end_id, prompt_length, least

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The logits (B, V), -inf for the tokens that are not allowed."""
        n_generated = input_ids.shape[1] - self.prompt_length
        place = n_generated % (len(self.edges) - 1)
        allowed = torch.full_like(scores, -torch.inf)
        codes = slice(int(self.edges[place]), int(self.edges[place + 1]))
        allowed[:, codes] = scores[:, codes]
        if self.end_id is not None and place == 0 and n_generated >= self.least:
            allowed[:, self.end_id] = scores[:, self.end_id]
        return allowed
