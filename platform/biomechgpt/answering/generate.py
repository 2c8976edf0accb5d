"""Movements made by the language model, as motion tokens: from a description, or going on from where one ends.

Tokens are drawn one after another among those that a movement can have there. Knows nothing about files.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import Field

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.prompts.encoding import MOTION_END, MOTION_START, SHORTEST, motion_token


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
    answerer: Answerer, wanted: Sequence[str], sizes: Sequence[int], longest: int, settings: SamplingSettings
) -> list[list[int]]:
    """Motion tokens of a movement as each description (a whole question, `Show TUG, stroke, cane.`) wants it.

    sizes: codes of each of a step's tokens. longest: motion tokens of a movement, where the model does not end it.
    """
    opening = answerer.encoder.prefix(None)
    start = answerer.encoder.text(MOTION_START)
    prompts = [np.concatenate([opening, answerer.encoder.question(q), start]) for q in wanted]
    return _sample(answerer, prompts, sizes, [longest] * len(prompts), True, settings)


def go_on(
    answerer: Answerer,
    movements: Sequence[Sequence[int]],
    more: Sequence[int],
    sizes: Sequence[int],
    settings: SamplingSettings,
) -> list[list[int]]:
    """As many motion tokens after each movement as `more` says; not the movement itself."""
    prompts = [answerer.encoder.prefix(movement)[:-1] for movement in movements]
    return _sample(answerer, prompts, sizes, more, False, settings)


def _sample(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    sizes: Sequence[int],
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    room = answerer.info.max_length
    for number, (prompt, n) in enumerate(zip(prompts, longest, strict=True)):
        if len(prompt) + n > room:
            raise InputError(
                f"movement {number}: expected at most {room} tokens with what comes before it, "
                f"found {len(prompt) + n}"
            )
    made: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for at in range(0, len(order), settings.batch_size):
            some = order[at : at + settings.batch_size]
            drawn = _draw(
                answerer, [prompts[i] for i in some], sizes, [longest[i] for i in some], may_end, settings
            )
            for i, tokens in zip(some, drawn, strict=True):
                made[i] = tokens
    return made


def _draw(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    sizes: Sequence[int],
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    pad = answerer.tokenizer.pad_token_id
    first = answerer.tokenizer.convert_tokens_to_ids(motion_token(0))
    end = answerer.tokenizer.convert_tokens_to_ids(MOTION_END)
    # Whole steps only, and none so short that it is no movement.
    least = -(-SHORTEST // len(sizes)) * len(sizes)
    grammar = _Grammar(first, sizes, end if may_end else None, max(map(len, prompts)), least)
    made = answerer.write(
        prompts,
        logits_processor=transformers.LogitsProcessorList([grammar]),
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=0,
        max_new_tokens=max(longest),
        eos_token_id=end,
    )
    found = []
    for row, n in zip(made.tolist(), longest, strict=True):
        codes = row[: row.index(end)] if end in row else row
        found.append([code - first for code in codes[:n][: n // len(sizes) * len(sizes)] if code != pad])
    return found


class _Grammar:
    """Lets through what a movement can go on with: a code of the token's place in its step, or the end between
    steps."""

    def __init__(self, first: int, sizes: Sequence[int], end: int | None, prompt: int, least: int) -> None:
        self.edges = first + np.cumsum([0, *sizes])
        self.end, self.prompt, self.least = end, prompt, least

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        done = input_ids.shape[1] - self.prompt
        place = done % (len(self.edges) - 1)
        allowed = torch.full_like(scores, -torch.inf)
        here = slice(int(self.edges[place]), int(self.edges[place + 1]))
        allowed[:, here] = scores[:, here]
        if self.end is not None and place == 0 and done >= self.least:
            allowed[:, self.end] = scores[:, self.end]
        return allowed
