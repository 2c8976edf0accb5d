"""Prompts as token ids: movements, questions and answers in a model family's chat template.

All questions about a trial share its movement. A `PrefixTree` holds the shared prefix once, and each question with
its answer as a branch. Every branch sees the prefix and itself, so its loss and gradient equal those of a separate
sample. Knows token ids. Knows nothing about models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from biomechgpt.core.settings import InputError
from biomechgpt.motion.statistics import MovementStatistics
from biomechgpt.prompts.stack import Stack

MOTION_START, MOTION_END = "<motion_start>", "<motion_end>"

LETTERS = "ABCDEFGH"
"""Names of the movements in a prompt with several."""

MIN_MOTION_TOKENS = 8
"""Positions of each movement that must fit into a prompt, whatever is asked."""


def motion_token(code: int) -> str:
    """The token of a codebook vector."""
    return f"<motion_{code}>"


def motion_vocabulary(codes: int) -> list[str]:
    """Every token that motion adds to a language model's vocabulary: start, end, one for each code."""
    return [MOTION_START, MOTION_END, *(motion_token(code) for code in range(codes))]


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


@dataclass(frozen=True)
class MotionTokens:
    """A movement as motion tokens.

    tokens: those of the movement itself.
    views: those of the same movement, read in other ways (`tokenizer.tokens.view`); none if answers are not
        averaged over views.
    statistics: figures of the recording, if it is known: no answer depends on them, only whether one is given.
    """

    tokens: Sequence[int]
    views: Sequence[Sequence[int]] = ()
    statistics: MovementStatistics | None = None


Relation = Literal["single", "compare", "same_person"]
"""How the movements of a query belong together: one movement, several that are compared in one prompt, or several
of one person, whose answer is the mean over them."""


@dataclass(frozen=True)
class Query:
    """One question about one or several movements.

    motions: the movements.
    relation: how they belong together.
    task: the task whose answers are scored; None: the answer is generated freely.
    question: the question in words.
    history: earlier turns of the conversation, question and answer in turn.
    """

    motions: Sequence[MotionTokens]
    relation: Relation
    task: str | None
    question: str
    history: Sequence[str] = field(default_factory=list)

    @property
    def turns(self) -> list[str]:
        """The conversation with the question as its last turn."""
        return [*self.history, self.question]

    @property
    def tokens(self) -> list[Sequence[int]]:
        """The motion tokens of each movement."""
        return [motion.tokens for motion in self.motions]


Question = str | Sequence[str]
"""A question in words, or a conversation that ends with one: question, answer, ..., question."""
Answer = str | Sequence[int]
"""An answer in words, or a movement as its motion tokens."""


class Branch(NamedTuple):
    """One question with its answer.

    question: ids up to where the answer begins.
    answer: ids with the end of the turn.
    """

    question: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True)
class PrefixTree:
    """Token ids of one trial's dialogue.

    prefix: ids that all branches share: the opening and the movement.
    branches: the questions with their answers.
    loss_weights: weight of each token of each branch's answer in the loss; None: 1.
    """

    prefix: np.ndarray
    branches: Sequence[Branch]
    loss_weights: list[float] | None = None

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(question) + len(answer) for question, answer in self.branches)


class PromptEncoder:
    """Turns dialogues into token ids, with a language model's own tokenizer and its family's turn markers."""

    def __init__(self, tokenizer: Any, turns: TurnMarkers = GEMMA_TURNS, stack: Stack | None = None) -> None:
        """stack: how the motion tokens of a step share a position; None: each has its own."""
        self.tokenizer = tokenizer
        self.turns = turns
        self.stack = stack
        self._ids_of_text: dict[str, np.ndarray] = {}

    def text(self, text: str) -> np.ndarray:
        """Ids of a text of this package; control tokens in it stay control tokens."""
        if text not in self._ids_of_text:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._ids_of_text[text] = np.asarray(ids, dtype=np.int64)
        return self._ids_of_text[text]

    def question(self, question: Question) -> np.ndarray:
        """Ids of a question up to where its answer begins, after the earlier turns of a conversation.

        A control token or motion token that somebody typed is read as its letters.
        """
        turns = [question] if isinstance(question, str) else question
        ids = []
        for number, words in enumerate(turns):
            # Turns alternate from the first question on: 0 is a question, 1 its answer, 2 the next question, ...
            turn_end = self.turns.next_question if number % 2 else self.turns.question_end
            ids += [self._words(words), self.text(turn_end)]
        return np.concatenate(ids)

    def answer(self, answer: Answer, longest: int | None = None) -> np.ndarray:
        """Ids of an answer with its end. Words are read as a question's are; motion tokens are a movement.

        longest: most positions of a movement, as in `motion`.
        """
        ids = self._words(answer) if isinstance(answer, str) else self.motion(answer, longest)
        return np.concatenate([ids, self.text(self.turns.answer_end)])

    def _words(self, words: str) -> np.ndarray:
        # Not cached: a server would keep everything that users type.
        ids = self.tokenizer(words, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return np.asarray(ids, dtype=np.int64)

    def motion(self, tokens: Sequence[int], longest: int | None = None) -> np.ndarray:
        """Ids of a movement from its start token to its end token.

        longest: most positions between these two; a longer movement loses its end.
        """
        return self._enclosed(self._positions(tokens)[:longest])

    def _enclosed(self, positions: np.ndarray) -> np.ndarray:
        return np.concatenate([self.text(MOTION_START), positions, self.text(MOTION_END)])

    @cached_property
    def first_motion_id(self) -> int:
        """Id of the first motion token. The others follow it."""
        return int(self.tokenizer.convert_tokens_to_ids(motion_token(0)))

    @property
    def _per_step(self) -> int:
        """Motion tokens of a position."""
        return 1 if self.stack is None else len(self.stack.sizes)

    def motion_tokens(self, ids: Sequence[int]) -> list[int]:
        """The motion tokens of a movement's positions: what `motion` made ids of, without its start and end."""
        positions = [[i] for i in ids] if self.stack is None else map(self.stack.tokens, ids)
        return [token - self.first_motion_id for position in positions for token in position]

    def positions_of(self, n_tokens: int, n_posture: int) -> int:
        """Positions of so many tokens, of which the first `n_posture` are posture tokens."""
        return min(n_tokens, n_posture) + max(n_tokens - n_posture, 0) // self._per_step

    def tokens_in(self, positions: int, n_posture: int) -> int:
        """Tokens of a movement, `n_posture` of them posture tokens, that has so many positions."""
        return n_posture + max(positions - n_posture, 0) * self._per_step

    def random_positions(self, tokens: Sequence[int], n: int, rng: np.random.Generator) -> list[int]:
        """The motion tokens of `n` positions of a movement, drawn with replacement."""
        if self.stack is None:
            return [int(token) for token in rng.choice(tokens, n)]
        positions = self.stack.positions(tokens)
        return [token for i in rng.integers(len(positions), size=n) for token in positions[i]]

    def _positions(self, tokens: Sequence[int]) -> np.ndarray:
        """The id of each position of a movement."""
        if self.stack is not None:
            return self.stack.ids(tokens)
        # Motion tokens have consecutive ids, so adding the first id is exact, and faster than tokenizing text.
        return np.asarray(np.asarray(tokens, dtype=np.int64) + self.first_motion_id)

    def prefix(self, movements: Sequence[Sequence[int]]) -> np.ndarray:
        """Ids from the start of a dialogue to where a question follows; several movements get a letter each.

        movements: motion tokens of each movement; empty for a dialogue without any.
        """
        return self._prefix([self.motion(tokens) for tokens in movements])

    def _prefix(self, movements: Sequence[np.ndarray]) -> np.ndarray:
        """As `prefix`, from the ids of each movement."""
        ids = [self.text(self.turns.dialogue_start)]
        if len(movements) < 2:
            ids += movements
        else:
            for letter, movement in zip(LETTERS, movements, strict=False):
                ids += [self.text(f"{letter}: "), movement, self.text("\n")]
        return np.concatenate(ids)

    def truncated_prefix(self, movements: Sequence[Sequence[int]], max_tokens: int) -> np.ndarray:
        """The prefix in at most `max_tokens` ids: a movement loses its end, of several the longest first.

        Raises InputError if less than MIN_MOTION_TOKENS of each movement would fit.
        """
        n_movements = len(movements)
        if not n_movements:
            return self.prefix([])
        available = max_tokens - len(self.prefix([[]] * n_movements))
        least = MIN_MOTION_TOKENS * n_movements
        if available < least:
            raise InputError(
                f"max_length: its questions and answers leave {max_tokens} tokens for a movement, "
                f"expected at least {max_tokens - available + least}"
            )
        # From the shortest movement on, each gets an equal share of what is left; what it does not need is left
        # for the longer ones.
        n_kept = [0] * n_movements
        positions = [self._positions(tokens) for tokens in movements]
        shortest_first = sorted(range(n_movements), key=lambda i: len(positions[i]))
        for n_done, i in enumerate(shortest_first):
            n_kept[i] = min(len(positions[i]), available // (n_movements - n_done))
            available -= n_kept[i]
        return self._prefix([self._enclosed(ids[:n]) for ids, n in zip(positions, n_kept, strict=True)])

    def build_tree(
        self,
        movements: Sequence[Sequence[int]],
        pairs: Sequence[tuple[Question, Answer]],
        max_length: int,
    ) -> PrefixTree:
        """The tree of a dialogue about some movements.

        max_length: most tokens of the prefix with any one branch. A movement that is too long loses its end (see
        `truncated_prefix`), and so does a movement that is an answer; a question or an answer in words never does.
        """
        return self.tree_of_branches(movements, self.branches(pairs, max_length), max_length)

    def branches(self, pairs: Sequence[tuple[Question, Answer]], max_length: int) -> list[Branch]:
        """Ids of questions and answers. A movement that is an answer fits into `max_length` with its question."""
        branches = []
        for question, answer in pairs:
            question_ids = self.question(question)
            n_other_tokens = len(self.answer([])) + len(self.prefix([])) + len(question_ids)
            longest = max(max_length - n_other_tokens, MIN_MOTION_TOKENS)
            branches.append(Branch(question_ids, self.answer(answer, longest)))
        return branches

    def tree_of_branches(
        self,
        movements: Sequence[Sequence[int]],
        branches: Sequence[Branch],
        max_length: int,
        loss_weights: list[float] | None = None,
    ) -> PrefixTree:
        """As `build_tree`, from branches that are encoded already."""
        longest = max(len(question) + len(answer) for question, answer in branches)
        return PrefixTree(self.truncated_prefix(movements, max_length - longest), branches, loss_weights)
