"""Movements that the language model generates as motion tokens: from a description, or continuing a movement.

Each token is sampled among those that a movement can have there. Knows nothing about files.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import Field

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core.settings import InputError, Settings
from biomechgpt.prompts.encoding import MIN_MOTION_TOKENS, MOTION_END, MOTION_START
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
        n_positions = len(prompt) + answerer.encoder.positions_of(n, layout.n_posture - n_before)
        if n_positions > max_length:
            raise InputError(
                f"movement {number}: expected at most {max_length} tokens with what comes before it, "
                f"found {n_positions}"
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
    encoder = answerer.encoder
    end_id = answerer.tokenizer.convert_tokens_to_ids(MOTION_END)
    n_posture, may_be_last = layout.n_posture - n_before, end_id if may_end else None
    grammar = _Grammar(
        encoder.first_motion_id, layout, n_posture, may_be_last, stacked=encoder.stack is not None
    )
    n_positions = [encoder.positions_of(n, n_posture) for n in longest]
    drawn = _draw(answerer, prompts, grammar, max(n_positions), settings)
    movements = []
    for row, n in zip(drawn.tolist(), longest, strict=True):
        ids = row[: row.index(end_id)] if end_id in row else row
        tokens = encoder.motion_tokens(ids)
        movements.append(tokens[: layout.whole(min(len(tokens), n) + n_before) - n_before])
    return movements


@torch.inference_mode()
def _draw(
    answerer: Answerer,
    prompts: Sequence[np.ndarray],
    grammar: "_Grammar",
    n_positions: int,
    settings: SamplingSettings,
) -> torch.Tensor:
    """The ids (B, n) of the positions that follow each prompt: up to its end, or to `n_positions` of them.

    transformers' `generate` draws one token of the vocabulary at a time. Here one position may have several.
    """
    warpers: list[Any] = [
        transformers.TemperatureLogitsWarper(settings.temperature),
        transformers.TopPLogitsWarper(settings.top_p),
    ]
    stack = answerer.encoder.stack
    new_ids, is_prompt = answerer.padded(prompts)
    read = is_prompt.long()
    cache = transformers.DynamicCache(config=answerer.model.config)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=new_ids.device)
    drawn: list[torch.Tensor] = []
    while len(drawn) < n_positions and not ended.all():
        logits = (
            answerer.model(
                input_ids=new_ids,
                attention_mask=read,
                position_ids=(read.cumsum(1) - 1).clamp(min=0)[:, -new_ids.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        tokens = []
        for allowed in grammar.allowed(len(drawn)):
            masked = torch.full_like(logits, -torch.inf)
            masked[:, allowed] = logits[:, allowed]
            for warp in warpers:
                masked = warp(None, masked)  # these read no ids
            tokens.append(torch.multinomial(masked.softmax(dim=-1), 1)[:, 0])
        ids = tokens[0]
        if len(tokens) > 1 and stack is not None:
            ids = torch.where(ids == grammar.ended, ids, stack.join(torch.stack(tokens, dim=-1)))
        # After a movement's end comes padding, which nobody reads.
        ids = torch.where(ended, grammar.ended, ids)
        ended |= ids == grammar.ended
        drawn.append(ids)
        new_ids, read = ids[:, None], torch.cat([read, torch.ones_like(read[:, :1])], dim=1)
    return torch.stack(drawn, dim=1)


class _Grammar:
    """The tokens with which a movement can go on.

    These are posture tokens at a movement's beginning, then the codes of the places of a step, and the end token
    between steps.
    """

    def __init__(
        self, first_id: int, layout: TokenLayout, n_posture: int, end_id: int | None, stacked: bool
    ) -> None:
        """first_id: id of the first motion token.
        layout: which tokens can stand where.
        n_posture: posture tokens that are missing yet.
        end_id: id of the end token; None: the movement may not end.
        stacked: whether the places of a step share a position.
        """
        edges = first_id + np.cumsum([0, *layout.sizes, layout.posture_size])
        *self.places, self.posture = (list(range(*edge)) for edge in pairwise(edges.tolist()))
        self.n_posture, self.end_id, self.stacked = n_posture, end_id, stacked
        per_position = len(self.places) if stacked else 1
        # The fewest whole steps that hold MIN_MOTION_TOKENS: a shorter movement is none.
        self.least = n_posture + -(-MIN_MOTION_TOKENS // len(self.places)) * len(self.places) // per_position

    @property
    def ended(self) -> int:
        """The id that ends a movement; where none may end, an id that no token has."""
        return -1 if self.end_id is None else self.end_id

    def allowed(self, n_drawn: int) -> list[list[int]]:
        """The ids that can be drawn next, after so many positions: for each token of the position."""
        n_motion = n_drawn - self.n_posture
        if n_motion < 0:
            return [self.posture]
        first, *further = self.places if self.stacked else [self.places[n_motion % len(self.places)]]
        between_steps = self.stacked or n_motion % len(self.places) == 0
        if self.end_id is not None and between_steps and n_drawn >= self.least:
            first = [*first, self.end_id]
        return [first, *further]
