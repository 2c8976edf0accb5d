"""A dialogue as token ids: Gemma's chat template, and the question trees that training runs over.

All questions about a trial share its motion. A `Tree` holds the shared prefix once and each question with its
answer as a branch; every branch sees the prefix and itself. Its loss and gradient equal those of separate
samples. Knows token ids, not models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biomechgpt.core.settings import InputError

MOTION_START, MOTION_END = "<motion_start>", "<motion_end>"


def motion_token(code: int) -> str:
    return f"<motion_{code}>"


def motion_vocabulary(codes: int) -> list[str]:
    """Every token that motion adds to a language model's vocabulary: start, end, one a code."""
    return [MOTION_START, MOTION_END, *(motion_token(code) for code in range(codes))]


def motion_text(tokens: Iterable[int]) -> str:
    """A movement as a language model's tokenizer reads it."""
    return "".join(motion_token(code) for code in tokens)


@dataclass(frozen=True)
class TurnMarkers:
    """Control text around the turns of a dialogue, as a model family's chat template writes it; here Gemma's."""

    dialogue_start: str = "<bos><start_of_turn>user\n"
    """Opens a dialogue; a movement or the first question follows."""
    question_end: str = "<end_of_turn>\n<start_of_turn>model\n"
    """Between a question and its answer."""
    answer_end: str = "<end_of_turn>"
    """Ends an answer: one token, at which generation stops."""
    next_question: str = "<end_of_turn>\n<start_of_turn>user\n"
    """Between an answer and the next question."""


GEMMA_TURNS = TurnMarkers()
TEXT_PREFIX, QUESTION_END = TurnMarkers.dialogue_start, TurnMarkers.question_end
ANSWER_END, TURN_END = TurnMarkers.answer_end, TurnMarkers.next_question


def prefix_text(tokens: Sequence[int]) -> str:
    """The opening of a dialogue about a movement, up to where a question follows."""
    return f"{TEXT_PREFIX}{MOTION_START}{motion_text(tokens)}{MOTION_END}"


LETTERS = "ABCDEFGH"
"""What several movements are called."""

SHORTEST = 8
"""Motion tokens that there must be room for, whatever is asked."""


@dataclass(frozen=True)
class Mirrored:
    """A movement and its mirror image as motion tokens: an answer is about the one, and the mean over both."""

    tokens: Sequence[int]
    image: Sequence[int]


Movement = Sequence[int] | Mirrored
"""A movement as its motion tokens, some with those of its mirror image."""
Motion = Movement | Sequence[Movement]
"""What a dialogue is about: a movement, or some movements, which it calls A, B, ..."""


@dataclass(frozen=True)
class Person:
    """Somebody of whom there are several movements: an answer is about the person, and the mean over them."""

    movements: Sequence[Movement]


Question = str | Sequence[str]
"""What is asked: words, or a conversation that ends with a question: question, answer, ..., question."""
Answer = str | Sequence[int]
"""What is answered: words, or a movement as its motion tokens."""


def movements_of(motion: Motion | None) -> list[Movement]:
    """The movements that a dialogue is about, none of a dialogue without."""
    if motion is None:
        return []
    if isinstance(motion, Mirrored):
        return [motion]
    several = len(motion) > 0 and isinstance(motion[0], Sequence | np.ndarray | Mirrored)
    return list(motion) if several else [motion]  # type: ignore[arg-type,list-item]


def as_it_is(motion: Motion | None) -> list[Sequence[int]]:
    """The motion tokens of each movement that a dialogue is about."""
    return [m.tokens if isinstance(m, Mirrored) else m for m in movements_of(motion)]


def mirror_image(motion: Motion) -> list[Sequence[int]]:
    """The motion tokens of each movement's mirror image; none where a movement comes without."""
    movements = movements_of(motion)
    images = [m.image for m in movements if isinstance(m, Mirrored)]
    return images if len(images) == len(movements) else []


def question_text(question: str) -> str:
    return question + QUESTION_END


def answer_text(answer: str) -> str:
    return answer + ANSWER_END


Branch = tuple[np.ndarray, np.ndarray]
"""Ids of a question and of its answer."""


@dataclass(frozen=True)
class Tree:
    """Token ids of one trial's dialogue: the shared prefix and (question, answer) branches. worth: what a token of
    each branch's answer counts in the loss; None: as much as any other."""

    prefix: np.ndarray
    branches: list[Branch]
    worth: list[float] | None = None

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(q) + len(a) for q, a in self.branches)


class Encoder:
    """Turns dialogues into token ids with a language model's own tokenizer and its family's turn markers."""

    def __init__(self, tokenizer: Any, turns: TurnMarkers = GEMMA_TURNS) -> None:
        self.tokenizer = tokenizer
        self.turns = turns
        self._known: dict[str, np.ndarray] = {}

    def text(self, text: str) -> np.ndarray:
        """Ids of a text of this module's; control tokens in it are control tokens."""
        if text not in self._known:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._known[text] = np.asarray(ids, dtype=np.int64)
        return self._known[text]

    def question(self, question: Question) -> np.ndarray:
        """Ids of `question_text`, after the turns before it where it has some; a control or motion token that
        somebody typed is read as its letters."""
        parts = []
        for number, words in enumerate([question] if isinstance(question, str) else question):
            parts += [
                self._words(words),
                self.text(self.turns.next_question if number % 2 else self.turns.question_end),
            ]
        return np.concatenate(parts)

    def answer(self, answer: Answer) -> np.ndarray:
        """Ids of an answer with its end; words are read as a question's, motion tokens are a movement."""
        said = self._words(answer) if isinstance(answer, str) else self.motion(answer)
        return np.concatenate([said, self.text(self.turns.answer_end)])

    def _words(self, words: str) -> np.ndarray:
        # Not kept: a server would keep whatever it is asked.
        ids = self.tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return np.asarray(ids, dtype=np.int64)

    def motion(self, tokens: Sequence[int]) -> np.ndarray:
        """Ids of a movement from its start to its end; looked up by number, which is exact and quick."""
        first = self.tokenizer.convert_tokens_to_ids(motion_token(0))
        codes = np.asarray(tokens, dtype=np.int64) + first
        return np.concatenate([self.text(MOTION_START), codes, self.text(MOTION_END)])

    def prefix(self, motion: Motion | None) -> np.ndarray:
        """Ids of the prefix; of several movements each has its letter before it."""
        movements = as_it_is(motion)
        if len(movements) < 2:
            said = [self.motion(movement) for movement in movements]
        else:
            named = zip(LETTERS, movements, strict=False)
            said = [
                part
                for letter, movement in named
                for part in (self.text(f"{letter}: "), self.motion(movement), self.text("\n"))
            ]
        return np.concatenate([self.text(self.turns.dialogue_start), *said])

    def fit(self, motion: Motion | None, room: int) -> np.ndarray:
        """The prefix in at most `room` ids: a movement's end is left out, where there are several the longest's."""
        movements = as_it_is(motion)
        if not movements:
            return self.prefix(None)
        many = len(movements) > 1
        spare = room - len(self.prefix([[]] * len(movements) if many else []))
        if spare < SHORTEST * len(movements):
            raise InputError(
                f"max_length: its questions and answers leave {room} tokens for a movement, "
                f"expected at least {room - spare + SHORTEST * len(movements)}"
            )
        kept = [0] * len(movements)
        for done, i in enumerate(sorted(range(len(movements)), key=lambda i: len(movements[i]))):
            kept[i] = min(len(movements[i]), spare // (len(movements) - done))
            spare -= kept[i]
        cut = [movement[:n] for movement, n in zip(movements, kept, strict=True)]
        return self.prefix(cut if many else cut[0])

    def tree(self, motion: Motion | None, pairs: Sequence[tuple[Question, Answer]], max_length: int) -> Tree:
        """A dialogue's tree. A movement too long for `max_length` with its longest branch loses its end (see
        `fit`), never a question or an answer in words; so does a movement that is an answer."""
        return self.grow(motion, self.branches(pairs, max_length), max_length)

    def branches(self, pairs: Sequence[tuple[Question, Answer]], max_length: int) -> list[Branch]:
        """Ids of questions and answers."""
        made = []
        for asked, answer in pairs:
            question = self.question(asked)
            if not isinstance(answer, str):
                around = len(self.answer([])) + len(self.prefix(None)) + len(question)
                answer = answer[: max(max_length - around, SHORTEST)]
            made.append((question, self.answer(answer)))
        return made

    def grow(
        self, motion: Motion | None, branches: list[Branch], max_length: int, worth: list[float] | None = None
    ) -> Tree:
        """The tree of a dialogue whose branches are known."""
        longest = max(len(q) + len(a) for q, a in branches)
        return Tree(self.fit(motion, max_length - longest), branches, worth)
