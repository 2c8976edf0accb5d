"""The order of a movement's tokens: posture tokens, if a tokenizer has any, then motion tokens.

Posture tokens say the mean angle of each joint, in bins. How somebody stands differs between people and between
laboratories by more than a codebook vector can say beside a movement. With posture tokens the motion tokens
describe the movement about its mean. Knows numpy only.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.motion.skeleton import N_JOINTS

_FREQUENCIES = 2.0 ** np.arange(0, 5)
"""Periods in a whole turn of the waves that make up the vector of an angle."""


class TokenLayout(NamedTuple):
    """Which tokens each place of a movement can have.

    In a movement posture tokens come first. In the vocabulary motion tokens come first.
    """

    n_posture: int
    """Posture tokens at the beginning of a movement; 0: the tokenizer has none."""
    posture_size: int
    """Number of different posture tokens."""
    sizes: tuple[int, ...]
    """Codebook size of each motion token of a step."""

    @property
    def codes(self) -> int:
        """Number of different motion tokens."""
        return sum(self.sizes)

    def example(self, n_steps: int) -> list[int]:
        """The tokens of some movement of so many steps."""
        step = [int(first) for first in np.cumsum([0, *self.sizes[:-1]])]
        return [self.codes] * self.n_posture + step * n_steps

    def whole(self, n_tokens: int) -> int:
        """The largest number of tokens, up to `n_tokens`, that ends with a whole step; 0 if there is no step."""
        per_step = len(self.sizes)
        steps = max(n_tokens - self.n_posture, 0) // per_step
        return self.n_posture + steps * per_step if steps else 0

    def check(self, tokens: Sequence[int] | np.ndarray) -> None:
        """Raise InputError for the first token that its place cannot have, and for a posture without its end."""
        tokens = np.asarray(tokens)
        posture, motion = tokens[: self.n_posture], tokens[self.n_posture :]
        parts = (
            (f"posture token {{}} of {self.n_posture}", posture, self.codes, self.codes + self.posture_size),
            ("motion token {}", motion, 0, self.codes),
        )
        for name, part, low, high in parts:
            for i in np.flatnonzero((part < low) | (part >= high))[:1]:
                raise InputError(f"{name.format(i + 1)}: expected {low} to {high - 1}, found {part[i]}")
        if len(posture) < self.n_posture:
            raise InputError(f"expected {self.n_posture} posture tokens, found {len(posture)} tokens")


class PostureCodes:
    """The tokens of the mean angles of some joints.

    A movement has `n_tokens` of them, one for each joint, in the skeleton's order. All joints share the same `size`
    codes: a bin for each angle from -180 to 180 degrees, and one code for a joint that was not recorded.
    """

    def __init__(self, bin_deg: float, joints: np.ndarray, first: int) -> None:
        """bin_deg: width of a bin. joints: (34,) bool, those that get a token. first: number of the first code."""
        self.width_rad = np.radians(bin_deg)
        self.joints, self.first = np.flatnonzero(joints), first
        self.outermost = int(180 // bin_deg)  # the bins are -outermost to outermost

    @property
    def n_tokens(self) -> int:
        """Posture tokens of a movement."""
        return len(self.joints)

    @property
    def size(self) -> int:
        """Number of different posture tokens: the bins, then "not recorded"."""
        return 2 * self.outermost + 2

    @property
    def absent(self) -> int:
        """The token of a joint that was not recorded."""
        return self.first + self.size - 1

    def encode(self, mean_rad: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The tokens (n_tokens,) int32 of mean angles (34,) in radians.

        mask: (34,), true where a joint was recorded.
        """
        bins = np.clip(np.round(mean_rad / self.width_rad), -self.outermost, self.outermost)
        tokens = np.where(mask.astype(bool), self.first + self.outermost + bins, self.absent)
        return np.asarray(tokens[self.joints].astype(np.int32))

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """The mean angles (34,) in radians of the tokens of `encode`; 0 for a joint without one."""
        mean_rad = np.zeros(N_JOINTS)
        bins = np.where(tokens == self.absent, 0, tokens - self.first - self.outermost)
        mean_rad[self.joints] = bins * self.width_rad
        return mean_rad

    def vectors(self, dimensions: int) -> np.ndarray:
        """(size, dimensions) float32: a vector for each code, similar for similar angles, with entries up to 1.

        They are sines and cosines of the angle with random phases. The vector of "not recorded" is zero.
        """
        rng = np.random.default_rng(0)
        angles = np.arange(-self.outermost, self.outermost + 1) * self.width_rad
        waves = rng.choice(_FREQUENCIES, dimensions) * angles[:, None] + rng.uniform(0, 2 * np.pi, dimensions)
        return np.concatenate([np.cos(waves), np.zeros((1, dimensions))]).astype(np.float32)
