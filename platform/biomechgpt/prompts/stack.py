"""One position of a prompt for all motion tokens of a step.

A tokenizer may give each step several motion tokens, for instance the levels of a residual quantizer. In a stack
they share one position: a model reads the sum of their embeddings, and predicts each with rows of its own in the
output layer. So a prompt gets no longer. A stack has one id, beyond those of the vocabulary.

Worked example: 3 different tokens in each of 2 places, the first motion token has id 100 and the last has 105. The
tokens `2 4` are a stack with the number 2 + 3 * (4 - 3) = 5 and the id 106 + 5 = 111.

Knows numbers only. What it does to ids works for numpy arrays and for tensors.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np


class Stack(NamedTuple):
    """The ids of motion tokens that share a position, and of those that have one of their own (posture tokens)."""

    first_id: int
    """Id of the first motion token in the vocabulary."""
    n_tokens: int
    """Number of different tokens of movements, posture tokens among them."""
    sizes: tuple[int, ...]
    """How many tokens each place of a step chooses from."""

    @property
    def first_stack(self) -> int:
        """Id of the first stack. Smaller ids are tokens of the vocabulary."""
        return self.first_id + self.n_tokens

    @property
    def first_of_place(self) -> list[int]:
        """Id of the first token of each place of a step."""
        return [self.first_id + before for before in accumulate(self.sizes[:-1], initial=0)]

    def ids(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """The ids (n,) int64 of a movement's positions: its posture tokens one by one, its steps as stacks.

        A step without its end is left out.
        """
        ids, begins, motion = self._parts(tokens)
        ids[motion] = self.join(ids[motion[:, None] + np.arange(len(self.sizes))])
        return np.asarray(ids[begins])

    def positions(self, tokens: Sequence[int] | np.ndarray) -> list[list[int]]:
        """The tokens of each position: one posture token, or all of a step. A step without its end is left out."""
        ids, begins, motion = self._parts(tokens)
        per_step = np.where(np.isin(begins, motion), len(self.sizes), 1)
        return [
            (ids[begin : begin + n] - self.first_id).tolist()
            for begin, n in zip(begins, per_step, strict=True)
        ]

    def _parts(self, tokens: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids of tokens, where each position begins among them, and which of these begin a whole step."""
        tokens = np.asarray(tokens, dtype=np.int64)
        is_motion, per_step = tokens < sum(self.sizes), len(self.sizes)
        motion = np.flatnonzero(is_motion)
        steps = motion[: len(motion) // per_step * per_step : per_step]
        return self.first_id + tokens, np.sort(np.concatenate([np.flatnonzero(~is_motion), steps])), steps

    def tokens(self, one: int) -> list[int]:
        """The ids of the tokens of one position."""
        return [int(i) for i in self.split(one)] if one >= self.first_stack else [one]

    def join(self, step_ids: Any) -> Any:
        """The ids (...) of the stacks of steps, from the ids (..., places) of their tokens."""
        number, radix = 0, 1
        for place, (first, size) in enumerate(zip(self.first_of_place, self.sizes, strict=True)):
            number = number + radix * (step_ids[..., place] - first)
            radix *= size
        return self.first_stack + number

    def split(self, ids: Any) -> list[Any]:
        """The ids (...) of the tokens of stacks (...), for each place. An id that is no stack stands in each."""
        is_stack, number, result = ids >= self.first_stack, ids - self.first_stack, []
        for first, size in zip(self.first_of_place, self.sizes, strict=True):
            result.append(ids + is_stack * (first + number % size - ids))
            number = number // size
        return result
