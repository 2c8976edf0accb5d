"""Labels that a question names: those of the model's tasks, and well-known ones that no task has.

Knows words; nothing about which question is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from biomechgpt.questions.tasks import ClassificationTask, Tasks
from biomechgpt.questions.wording import Phrases, read_vocabulary, tokens_of

WALKING = "overground walking"
"""The activity that nearly every question mentions. It counts only where no label of another task is
named."""

AMBIGUOUS = {"als", "barren", "court", "rent", "scale", "sla", "trap"}
"""Words for a label that are common words of another language: they count only in a question of few words."""
MAX_WORDS_WITH_AMBIGUOUS = 2


@dataclass(frozen=True)
class Mention:
    """A label that a question names.

    task: the task that the label belongs to.
    label: the task's label; the name of a label that the task does not have.
    known: whether the task has it.
    begin, end: the words that name it.
    """

    task: str
    label: str
    known: bool
    begin: int
    end: int


def positions(mentions: Iterable[Mention]) -> set[int]:
    """The places of the words that name labels."""
    return {i for mention in mentions for i in range(mention.begin, mention.end)}


class LabelWords:
    """The words for labels of the tasks.

    labels: {task: its labels}, for tasks without labels of their own.
    """

    def __init__(self, tasks: Tasks, labels: Mapping[str, Sequence[str]]) -> None:
        self.labels = {
            name: list(task.labels or labels.get(name, ()) or task.synonyms)
            for name, task in tasks.items()
            if isinstance(task, ClassificationTask)
        }
        words: dict[tuple[str, str, bool], list[str]] = {}
        for name, task_labels in self.labels.items():
            task = tasks[name]
            assert isinstance(task, ClassificationTask)
            for label in task_labels:
                words[name, label, True] = _words_of(task, label)
        taken = {tuple(tokens_of(text)) for texts in words.values() for text in texts}
        for name, elsewhere in read_vocabulary("known_elsewhere.yaml").items():
            for label, texts in elsewhere.items() if name in self.labels else ():
                # A bundle may have a task whose label is well-known elsewhere, such as Parkinson's disease.
                if tuple(tokens_of(label)) not in taken:
                    new = [text for text in [label, *texts] if tuple(tokens_of(text)) not in taken]
                    words[name, label, False] = new
        self.phrases = Phrases(words)

    def find(self, words: Sequence[str]) -> list[Mention]:
        """The labels that some words name."""
        found = [
            Mention(*meaning, begin, end)
            for begin, end, meaning in self.phrases.find(words)
            if words[begin] not in AMBIGUOUS or len(words) <= MAX_WORDS_WITH_AMBIGUOUS
        ]
        elsewhere = any(mention.task != "activity" for mention in found)
        return [mention for mention in found if not (elsewhere and mention.label == WALKING)]

    def is_only_a_label(self, words: Sequence[str], without_topic: frozenset[str]) -> bool:
        """True if words name a label, and the others are among those without a topic."""
        named = positions(self.find(words))
        return bool(named) and all(i in named or word in without_topic for i, word in enumerate(words))


def _words_of(task: ClassificationTask, label: str) -> list[str]:
    """The words for a label: its text, its synonyms, and its name unless that is a common word."""
    texts = [(task.labels or {}).get(label, label), *task.synonyms.get(label, ())]
    return texts if label in ("yes", "no", "none") else [label, *texts]
