"""Words of questions: normal forms, spelling, and the concepts that words of several languages share.

Knows nothing about tasks.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

import yaml

MIN_CORRECTED = 5
"""Shortest word that a misspelt one can stand for. Shorter ones have too many neighbours."""

MIN_STEM = 3
"""Shortest beginning of a word that stands for all its endings."""

M = TypeVar("M")
"""What a phrase stands for."""

_BETWEEN = re.compile(r"[.!?;:,\n]+(?:\s|$)")
_TOKEN = re.compile(r"m/s|y/n|[\w%]+")


@cache
def read_vocabulary(name: str) -> Any:
    """The content of a YAML file of this package."""
    return yaml.safe_load(resources.files("biomechgpt.questions").joinpath(name).read_text("utf-8"))


def tokens_of(text: str) -> list[str]:
    """The words of a text in lower case, without accents, apostrophes and hyphens."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _TOKEN.findall("".join(c for c in plain if not unicodedata.combining(c)))


def _with_one_letter_less(word: str) -> set[str]:
    """The word, and the word without each of its letters.

    Two words share one of these if they differ by one letter that is added, left out, replaced or swapped with its
    neighbour.
    """
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _same_letters(a: str, b: str) -> int:
    """Number of letters that two words have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class Spelling:
    """Corrects words that are one letter away from an expected one.

    known: words that are right as they are.
    expected: words that a misspelt one can stand for.
    """

    def __init__(self, known: Iterable[str], expected: Iterable[str]) -> None:
        self._known = set(known)
        self._expected: dict[str, set[str]] = {}
        for word in expected:
            if len(word) >= MIN_CORRECTED:
                for variant in _with_one_letter_less(word):
                    self._expected.setdefault(variant, set()).add(word)

    def correct(self, word: str) -> str:
        """The expected word that this one is closest to; the word itself if it is known or none is close."""
        if len(word) < MIN_CORRECTED - 1 or word in self._known or not word.isalpha():
            return word
        # A slip rarely changes the beginning of a word.
        close = {w for v in _with_one_letter_less(word) for w in self._expected.get(v, ()) if w[0] == word[0]}
        return min(close, key=lambda w: (-_same_letters(w, word), abs(len(w) - len(word)), w), default=word)


@dataclass(frozen=True)
class _Phrase(Generic[M]):
    """Words that stand for something, one after the other."""

    words: tuple[str, ...]
    meaning: M


class Phrases(Generic[M]):
    """Finds phrases in a list of words.

    meanings: {meaning: its phrases}. A word that ends with a star stands for every ending, and one that also begins
        with a star for every word that holds it, such as the compounds of German and Dutch.
    """

    def __init__(self, meanings: Mapping[M, Iterable[str]]) -> None:
        self._by_first: dict[str, list[_Phrase[M]]] = {}
        self._stems: dict[str, list[M]] = {}
        self._inside: dict[str, list[M]] = {}
        for meaning, texts in meanings.items():
            for text in texts:
                words = tuple(tokens_of(text))
                if text.startswith("*") and len(words) == 1:
                    self._inside.setdefault(words[0], []).append(meaning)
                elif text.endswith("*") and len(words) == 1:
                    self._stems.setdefault(words[0], []).append(meaning)
                elif words:
                    self._by_first.setdefault(words[0], []).append(_Phrase(words, meaning))

    @property
    def words(self) -> set[str]:
        """Every word that alone stands for something."""
        return {p.words[0] for phrases in self._by_first.values() for p in phrases if len(p.words) == 1}

    @property
    def parts(self) -> set[str]:
        """Every word of a phrase."""
        return {word for phrases in self._by_first.values() for phrase in phrases for word in phrase.words}

    def find(self, words: Sequence[str]) -> list[tuple[int, int, M]]:
        """(begin, end, meaning) of each phrase that is within no longer one, in the order of the words."""
        found = []
        for begin, word in enumerate(words):
            for phrase in self._by_first.get(word, ()):
                end = begin + len(phrase.words)
                if tuple(words[begin:end]) == phrase.words:
                    found.append((begin, end, phrase.meaning))
            for length in range(MIN_STEM, len(word) + 1):
                found += [(begin, begin + 1, meaning) for meaning in self._stems.get(word[:length], ())]
            for part, meanings in self._inside.items():
                if part in word:
                    found += [(begin, begin + 1, meaning) for meaning in meanings]
        return [
            (begin, end, meaning)
            for begin, end, meaning in dict.fromkeys(found)
            if not any(b <= begin and end <= e and e - b > end - begin for b, e, _ in found)
        ]


@cache
def word_list(name: str) -> frozenset[str]:
    """A list of function_words.yaml."""
    return frozenset(tokens_of(read_vocabulary("function_words.yaml")[name]))


@cache
def _wrapping() -> Phrases[str]:
    return Phrases({"": read_vocabulary("function_words.yaml")["wrapping"].splitlines()})


def unwrapped(words: Sequence[str]) -> list[str]:
    """The words without phrases around the question, such as `can you tell me`; all words if none are left."""
    wrapped = {i for begin, end, _ in _wrapping().find(words) for i in range(begin, end)}
    return [word for i, word in enumerate(words) if i not in wrapped] or list(words)


def sentences_of(text: str) -> list[str]:
    """The parts of a text between its punctuation marks that have at least two words; [] if it is one part."""
    parts = [part for part in _BETWEEN.split(text) if len(tokens_of(part)) > 1]
    return parts if len(parts) > 1 or (parts and len(tokens_of(parts[0])) < len(tokens_of(text))) else []


def asks_for_more_than_yes_or_no(words: Sequence[str]) -> bool:
    """True if a question has a question word, such as `which`."""
    words = list(words)
    if words[:2] in (["how", "likely"], ["how", "probable"]):
        return False
    if words[:3] in (["est", "ce", "que"], ["est", "ce", "qu"]):
        words = words[3:]
    # English `was` begins a yes/no question; German `was` asks for a thing.
    german = bool({"ist", "hat", "macht", "der", "die", "das", "fur", "tut", "kann", "fehlt"} & set(words))
    first = {w for w in words[:2] if w in word_list("question_first") and (w != "was" or german)}
    return bool(first or set(words) & word_list("question"))
