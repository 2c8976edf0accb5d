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
from biomechgpt.tokenizer.layout import TokenLayout


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
    layout: TokenLayout,
    longest: int,
    settings: SamplingSettings,
) -> list[list[int]]:
    """The motion tokens of a movement for each description.

    descriptions: whole questions, such as `Show TUG, stroke, cane.`
    layout: which tokens can stand where.
    longest: most tokens of a movement that the model does not end.
    """
    opening = answerer.encoder.prefix([])
    start = answerer.encoder.text(MOTION_START)
    prompts = [np.concatenate([opening, answerer.encoder.question(text), start]) for text in descriptions]
    return _sample(answerer, prompts, layout, 0, [longest] * len(prompts), True, settings)


def continue_motion(
    answerer: Answerer,
    movements: Sequence[Sequence[int]],
    n_tokens: Sequence[int],
    layout: TokenLayout,
    settings: SamplingSettings,
) -> list[list[int]]:
    """The motion tokens that follow each movement, without the movement itself.

    movements: the posture tokens, if there are any, and whole steps of motion tokens.
    n_tokens: how many follow, for each movement.
    layout: which tokens can stand where.
    """
    # Without the prefix's last token, which ends the movement.
    prompts = [answerer.encoder.prefix([tokens])[:-1] for tokens in movements]
    return _sample(answerer, prompts, layout, layout.n_posture, n_tokens, False, settings)


def _sample(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    layout: TokenLayout,
    n_before: int,
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    """The tokens after each prompt, in batches of similar length. n_before: as in `_Grammar`."""
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
                answerer,
                [prompts[i] for i in batch],
                layout,
                n_before,
                [longest[i] for i in batch],
                may_end,
                settings,
            )
            for i, tokens in zip(batch, drawn, strict=True):
                sampled[i] = tokens
    return sampled


def _sample_batch(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    layout: TokenLayout,
    n_before: int,
    longest: Sequence[int],
    may_end: bool,
    settings: SamplingSettings,
) -> list[list[int]]:
    pad = answerer.tokenizer.pad_token_id
    first_id = answerer.tokenizer.convert_tokens_to_ids(motion_token(0))
    end_id = answerer.tokenizer.convert_tokens_to_ids(MOTION_END)
    step = len(layout.sizes)
    # The fewest whole steps that hold MIN_MOTION_TOKENS: a shorter movement is none.
    least = layout.n_posture - n_before + -(-MIN_MOTION_TOKENS // step) * step
    grammar = _Grammar(first_id, layout, n_before, end_id if may_end else None, max(map(len, prompts)), least)
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
        whole_steps = ids[: layout.whole(min(len(ids), n) + n_before) - n_before]
        movements.append([token_id - first_id for token_id in whole_steps if token_id != pad])
    return movements


class _Grammar:
    """A logits processor that allows only tokens with which a movement can go on.

    These are posture tokens at a movement's beginning, then the codes of the token's place in its step, and the end
    token between steps.
    first_id: id of the first motion token.
    layout: which tokens can stand where.
    n_before: tokens of the movement that the prompt has already, up to the end of the posture or of a step.
    end_id: id of the end token; None: the movement may not end.
    prompt_length: tokens before the first generated one.
    least: generated tokens after which the movement may end.
    """

    def __init__(
        self,
        first_id: int,
        layout: TokenLayout,
        n_before: int,
        end_id: int | None,
        prompt_length: int,
        least: int,
    ) -> None:
        self.edges = first_id + np.cumsum([0, *layout.sizes, layout.posture_size])
        self.n_posture = layout.n_posture - n_before
        self.end_id, self.prompt_length, self.least = end_id, prompt_length, least

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """The logits (B, V), -inf for the tokens that are not allowed."""
        n_generated = input_ids.shape[1] - self.prompt_length
        n_places = len(self.edges) - 2  # the last range is the posture's
        n_motion = n_generated - self.n_posture
        place = n_places if n_motion < 0 else n_motion % n_places
        allowed = torch.full_like(scores, -torch.inf)
        codes = slice(int(self.edges[place]), int(self.edges[place + 1]))
        allowed[:, codes] = scores[:, codes]
        if self.end_id is not None and place == 0 and n_generated >= self.least:
            allowed[:, self.end_id] = scores[:, self.end_id]
        return allowed
