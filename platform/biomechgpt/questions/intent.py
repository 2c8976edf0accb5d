"""The intent classifier: what a question in a user's own words asks.

A logistic regression over TF-IDF features (characters, words, and concepts that words of several languages share),
fitted on the wordings of the tasks and of the conversation. The refusal task's wordings are the "none of these"
class. Labels are found by their words. Knows words; nothing about movements or language models.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from biomechgpt.questions.label_words import WALKING, LabelWords, Mention, positions
from biomechgpt.questions.tasks import BaseTask, GenerationTask, RefusalTask, Tasks
from biomechgpt.questions.wording import (
    Phrases,
    Spelling,
    asks_for_more_than_yes_or_no,
    read_vocabulary,
    sentences_of,
    tokens_of,
    unwrapped,
    word_list,
)

CLEAR = 0.65
"""Least probability of a task for its question to be answered.

This and the next two were chosen by cross-validation over all wordings. In the first of five folds, .65, .5 and
.85 gave 85 % of the questions the right task and 2.5 % another one, and refused 93.5 % of the refusals. With .6, .3
and .8 it was 86, 3.2 and 93.1 %; with .7, .5 and .9 it was 84, 2.3 and 93.5 %."""
CLEAR_LABEL = 0.5
"""The same where the question also names a label of the task."""
CLEAR_DESPITE = 0.85
"""The same where the question names something that no task answers, such as pain or a price, or has a word that no
wording of a task has, and for tasks that need another number of recordings."""
POSSIBLE = 0.1
"""Least probability of a task to be suggested."""
MAX_SUGGESTIONS = 3
REFUSAL_WEIGHT = 4.0
"""Weight of the refusals' wordings. An earlier cross-validation over all wordings chose it: it raised the share of
refusals that are refused from .894 to .917 and lowered that of the right tasks from .874 to .867."""
MIN_UNANSWERED = 7
"""Shortest word without an answer, such as a condition that no task knows, that a misspelt word may stand for."""
MAX_WORDS_OF_LABEL_QUESTION = 12
"""Longest question, in words, that is recognised by its label and words without a topic alone."""

IntentKind = Literal[
    "task", "label", "unknown_label", "list", "why", "confidence", "unclear", "movements", "out_of_scope"
]


@dataclass(frozen=True)
class Intent:
    """What a question asks.

    kind:
        task: the question of `task`.
        label: whether `label` of `task` is true.
        unknown_label: whether a label is true that is none of `task`'s.
        list: what can be asked.
        why: what the last answer rests on.
        confidence: how sure the last answer is.
        unclear: one of `suggestions`, but it is not clear which.
        movements: the question of `task`, which needs another number of recordings.
        out_of_scope: no task answers it.
    task: the task.
    label: the label, or the name of one that is none of the task's. Of a question out of scope: what it asks for,
        if that is a property of the person that no task answers.
    suggestions: the nearest tasks, most probable first.
    about_movement: whether a question that is out of scope is about the body or its movement.
    assumed: whether `task` is the only likely one, but not clear. It may be answered, if the answer says so.
    """

    kind: IntentKind
    task: str | None = None
    label: str | None = None
    suggestions: tuple[str, ...] = ()
    about_movement: bool = True
    assumed: bool = False


Topic = tuple[str, str]
"""Group and name of something that no task answers."""


@dataclass(frozen=True)
class _Reading:
    """A question as the classifier reads it.

    words: its words with their spelling corrected.
    mentions: the labels that they name.
    topics: (begin, end, (group, name)) of what they name that no task answers, as in not_answered.yaml.
    strange: words that no wording of a task has.
    """

    words: list[str]
    mentions: list[Mention]
    topics: list[tuple[int, int, Topic]]
    strange: list[str]

    @property
    def is_closed(self) -> bool:
        """True if the question asks for yes or no."""
        return not asks_for_more_than_yes_or_no(self.words)

    def has(self, words: str) -> bool:
        """True if the question has a word of a list of function_words.yaml."""
        return bool(set(self.words) & word_list(words))

    @property
    def unknown_labels(self) -> list[Mention]:
        """The labels that it names and no task has."""
        return [mention for mention in self.mentions if not mention.known]

    @property
    def not_measured(self) -> str | None:
        """The property of the person that the question names and no task answers; None if it names none."""
        return next((name for _, _, (group, name) in self.topics if group == "not_measured"), None)


class IntentClassifier:
    """The intent classifier of a bundle's tasks. It recognises nothing unless one of them is a refusal task.

    labels: {task: the labels that training knew}, for tasks without labels of their own.
    """

    def __init__(self, tasks: Tasks, labels: Mapping[str, Sequence[str]] | None = None) -> None:
        self.tasks: Tasks = {n: task for n, task in tasks.items() if not isinstance(task, GenerationTask)}
        self._refusals = {name for name, task in self.tasks.items() if isinstance(task, RefusalTask)}
        self._tasks_of_class: dict[str, list[str]] = {}
        for name, task in self.tasks.items():
            self._tasks_of_class.setdefault(_class_of(name, task), []).append(name)
        self._concepts = Phrases(read_vocabulary("concepts.yaml"))
        self._label_words = LabelWords(self.tasks, labels or {})
        self._not_answered: Phrases[Topic] = Phrases(
            {
                (group, name): [name, *words]
                for group, names in read_vocabulary("not_answered.yaml").items()
                for name, words in names.items()
            }
        )
        self._model: Pipeline | None = None
        if self._refusals:
            self._fit()

    @property
    def labels(self) -> dict[str, list[str]]:
        """{task: labels that it can be answered with}."""
        return self._label_words.labels

    def task(self, question: str, candidates: Collection[str]) -> str | None:
        """The task that a question asks; None if it asks none of the candidates, or it is not clear which."""
        intent = self.recognise(question, candidates)
        return intent.task if intent.kind in ("task", "label") else None

    def recognise(self, question: str, candidates: Collection[str]) -> Intent:
        """What a question asks. candidates: names of the tasks that can be asked here."""
        if self._model is None:
            return Intent("out_of_scope")
        whole = self._recognise(question, candidates)
        if whole.kind not in ("unclear", "out_of_scope") and not whole.assumed:
            return whole
        # "My father is slow. How fast does he walk?": what one part asks clearly, if no other part asks for more.
        parts = {self._recognise(part, candidates) for part in sentences_of(question)}
        kinds = ("task", "label", "unknown_label")
        clear = [intent for intent in parts if intent.kind in kinds and not intent.assumed]
        return clear[0] if len(clear) == 1 else whole

    def _recognise(self, question: str, candidates: Collection[str]) -> Intent:
        """What one sentence asks."""
        reading = self._read(question)
        if (named := self._label_alone(reading, candidates)) is not None:
            return named
        probabilities = self._probabilities(reading, candidates)
        likely = sorted(probabilities, key=lambda name: -probabilities[name])
        best = likely[0]
        is_doubtful = bool(reading.topics or reading.strange)
        clear_label = CLEAR_DESPITE if is_doubtful else CLEAR_LABEL
        clear = CLEAR_DESPITE if is_doubtful or reading.unknown_labels else CLEAR
        if best in candidates and probabilities[best] >= clear_label:
            of_label = self._label_question(reading, best, candidates) or self._test_question(
                reading, best, candidates
            )
            if of_label is not None:
                return of_label
        nearest = [name for name in likely if name in candidates][:MAX_SUGGESTIONS]
        possible = tuple(name for name in nearest if probabilities[name] >= POSSIBLE)
        if probabilities[best] >= clear and best not in self._refusals:
            if best not in self.tasks:
                return Intent(cast(IntentKind, best))
            return Intent("task" if best in candidates else "movements", best, suggestions=possible)
        # A label that no task has is refused in any case; saying so helps most. "Can she run?" names no activity.
        asks_what_is = reading.is_closed and not reading.has("capacity")
        for mention in reading.unknown_labels:
            if mention.task in candidates and (mention.task in _MASKED or asks_what_is):
                return Intent("unknown_label", mention.task, mention.label)
        likely_here = sum(probabilities[name] for name in likely if name in candidates)
        if best not in self._refusals and likely_here >= CLEAR and not reading.topics:
            if possible == (best,):
                likeliest = self._label_question(reading, best, candidates) or Intent("task", best)
                return replace(likeliest, suggestions=possible, assumed=True)
            return Intent("unclear", suggestions=possible)
        not_measured = reading.not_measured
        about_movement = not_measured is not None or any(
            name in _MOVEMENT for _, _, name in self._concepts.find(reading.words)
        )
        return Intent("out_of_scope", None, not_measured, tuple(nearest), about_movement)

    def _probabilities(self, reading: _Reading, candidates: Collection[str]) -> dict[str, float]:
        """{task or kind of question: its probability}. Tasks of one quantity count as the first candidate.

        Where no task is clear, the probability is that among the candidates, refusals and questions about the
        conversation.
        """
        assert self._model is not None
        values = map(float, self._model.predict_proba([self._document(reading)])[0])
        named = {}
        for name, probability in zip(self._model.classes_, values, strict=True):
            tasks = self._tasks_of_class.get(name, [str(name)])
            named[next((task for task in tasks if task in candidates), tasks[0])] = probability
        best = max(named, key=lambda name: named[name])
        is_elsewhere = best in self.tasks and best not in candidates and best not in self._refusals
        if named[best] >= (CLEAR_DESPITE if is_elsewhere else CLEAR):
            return named
        possible = {
            name: probability
            for name, probability in named.items()
            if name in candidates or name not in self.tasks or name in self._refusals
        }
        return {name: probability / sum(possible.values()) for name, probability in possible.items()}

    def _label_alone(self, reading: _Reading, candidates: Collection[str]) -> Intent | None:
        """The yes/no question of a text that names a label, and has no other word with a topic."""
        if not reading.mentions:
            return None
        # "Is he sitting in a wheelchair?" asks for the wheelchair.
        mention = min(reading.mentions, key=lambda m: (m.known, m.task == "activity"))
        without_topic = word_list("function")
        if mention.task == "diagnosis":
            without_topic |= word_list("possibility") | self._of_the_body(reading.words)
        if not self._label_words.is_only_a_label(reading.words, without_topic):
            return None
        # The name of a test alone, and with a unit of time, may ask for its time, too.
        is_result = mention.task == "activity" and mention.known and self._may_ask_for_a_result(reading)
        if is_result or len(reading.words) > MAX_WORDS_OF_LABEL_QUESTION or not reading.is_closed:
            return None
        return self._label_question(reading, mention.task, candidates)

    def _label_question(self, reading: _Reading, task: str, candidates: Collection[str]) -> Intent | None:
        """The question about a label of a task; None if the text names none, or asks for more."""
        mentions = [mention for mention in reading.mentions if mention.task == task]
        if task not in candidates or not mentions:
            return None
        if unknown := [mention.label for mention in mentions if not mention.known]:
            return Intent("unknown_label", task, unknown[0])
        if not reading.is_closed:
            return None
        labels = {mention.label for mention in mentions}
        # "Is it a cane or a walker?" and "Is it not a cane?" are answered better by the label itself. The words of
        # a label, such as `without a device`, deny nothing.
        of_labels = positions(mentions)
        others = {word for i, word in enumerate(reading.words) if i not in of_labels}
        if len(labels) > 1 or others & word_list("negation"):
            return Intent("task", task)
        return Intent("label", task, labels.pop())

    def _test_question(self, reading: _Reading, best: str, candidates: Collection[str]) -> Intent | None:
        """Whether a test was done, where the likeliest task is a result of this test: "Was the TUG done here?"."""
        title = set(best.split("_"))
        named = [m for m in reading.mentions if m.task == "activity" and title > set(tokens_of(m.label))]
        asks_for_more = not self._label_words.is_only_a_label(
            reading.words, word_list("function") | word_list("common")
        )
        if not named or asks_for_more or self._may_ask_for_a_result(reading) or not reading.is_closed:
            return None
        return self._label_question(reading, "activity", candidates)

    def _may_ask_for_a_result(self, reading: _Reading) -> bool:
        """True if a question that names a test has no verb, or a word for time: "And the TUG?", "TUG in s"."""
        times = any(concept in ("how_long", "speed") for _, _, concept in self._concepts.find(reading.words))
        return times or self._label_words.is_only_a_label(reading.words, word_list("more"))

    def _of_the_body(self, words: Sequence[str]) -> frozenset[str]:
        """The words for joints and sides: "Arthritis of the left knee?" asks for arthritis."""
        found = self._concepts.find(words)
        return frozenset(words[i] for begin, end, name in found if name in _BODY for i in range(begin, end))

    def _fit(self) -> None:
        pairs = self._wordings()
        self._prepare(pairs)
        names = [name for _, name in pairs]
        # Classes count alike, whatever their number of wordings; refusals count more, since most questions of the
        # world are out of scope.
        counts = Counter(names)
        weights = {
            name: len(names) / n / len(counts) * (REFUSAL_WEIGHT if name in self._refusals else 1)
            for name, n in counts.items()
        }
        regression = LogisticRegression(C=30.0, max_iter=2000, class_weight=weights)
        self._model = Pipeline([("features", _features()), ("regression", regression)])
        self._model.fit([self._document(self._read(text)) for text, _ in pairs], names)

    def _wordings(self) -> list[tuple[str, str]]:
        """(text, class) of everything that the classifier is fitted on."""
        pairs = [
            (text, _class_of(name, task))
            for name, task in self.tasks.items()
            for text in [*task.templates, *task.paraphrases]
            # A refused question about a label that no task has is recognised by the label.
            if name not in self._refusals
            or not self._label_words.is_only_a_label(tokens_of(text), word_list("function"))
        ]
        conversation = read_vocabulary("dialogue.yaml")
        return list(
            dict.fromkeys([*pairs, *((text, kind) for kind, texts in conversation.items() for text in texts)])
        )

    def _prepare(self, wordings: Sequence[tuple[str, str]]) -> None:
        """Collect the words that are known, and those that misspelt ones are corrected to.

        wordings: (text, class).
        """
        counts = Counter(word for text, _ in wordings for word in set(tokens_of(text)))
        lists = frozenset().union(*map(word_list, read_vocabulary("function_words.yaml")))
        with_topic = {word for word in counts if self._has_topic(word)}
        with_topic |= self._concepts.words | self._label_words.phrases.words
        # "corner" is no misspelt "correr", and "cerebal" a misspelt word of a name of two.
        with_topic = {word for word in with_topic if len(word) >= MIN_UNANSWERED or self._is_answered(word)}
        with_topic |= {word for word in self._label_words.phrases.parts if len(word) >= MIN_UNANSWERED}
        self._familiar = {word for word, n in counts.items() if n > 1} | lists
        answered = [text for text, name in wordings if name not in self._refusals]
        self._answered = lists | {word for text in answered for word in tokens_of(text)}
        parts = self._concepts.parts | self._label_words.phrases.parts | self._not_answered.parts
        self._spelling = Spelling(set(counts) | lists | parts, with_topic)

    def _has_topic(self, word: str) -> bool:
        return bool(self._concepts.find([word]) or self._label_words.phrases.find([word]))

    def _is_answered(self, word: str) -> bool:
        """True if a word is of a concept or of a label that a task has."""
        return bool(self._concepts.find([word]) or any(m.known for m in self._label_words.find([word])))

    def _read(self, text: str) -> _Reading:
        words = [self._spelling.correct(word) for word in unwrapped(tokens_of(text))]
        mentions = self._label_words.find(words)
        topics = [
            (begin, end, topic)
            for begin, end, topic in self._not_answered.find(words)
            # A head injury is a label, and says nothing about the head.
            if not any(m.begin <= begin and end <= m.end for m in mentions)
        ]
        named = positions(mentions)
        strange = [
            word
            for i, word in enumerate(words)
            if i not in named and not (word in self._answered or word.isdigit() or self._has_topic(word))
        ]
        return _Reading(words, mentions, topics, strange)

    def _document(self, reading: _Reading) -> tuple[str, list[str]]:
        """The input of the regression: the text with labels and unanswered topics masked, and its concepts."""
        masks = {i: group for begin, end, (group, _) in reading.topics for i in range(begin, end)}
        masks |= {
            i: f"{mention.task}_label"
            for mention in reading.mentions
            if mention.task in _MASKED
            for i in range(mention.begin, mention.end)
        }
        words = [
            masks.get(i, word)
            for i, word in enumerate(reading.words)
            if i not in masks or masks.get(i - 1) != masks[i]
        ]
        concepts = {concept for _, _, concept in self._concepts.find(reading.words)}
        concepts |= {f"label_of_{m.task}" for m in reading.mentions if m.label != WALKING}
        concepts |= {group for _, _, (group, _) in reading.topics}
        concepts.add("closed" if reading.is_closed else "open")
        if reading.has("capacity"):
            concepts.add("capacity")
        unfamiliar = [
            word
            for i, word in enumerate(reading.words)
            if i not in masks and not (word in self._familiar or word.isdigit() or self._has_topic(word))
        ]
        concepts |= {f"unfamiliar_{n}" for n in range(1, min(len(unfamiliar), 3) + 1)}
        return " ".join(words), sorted(concepts)


_MASKED = ("diagnosis", "assistive_device")
"""Tasks whose labels the regression reads as one word: what is asked about a label does not depend on which."""
_BODY = {"knee", "hip", "ankle", "shoulder", "arm", "side"}
"""Concepts of joints and sides."""
_MOVEMENT = {
    "speed", "cadence", "step", "stride", "stance", "swing", "symmetry", "knee", "hip", "ankle", "shoulder",
    "arm", "trunk", "lean", "pelvis", "flexion", "extension", "range", "tug", "fsst", "rise", "activity",
    "impaired", "device", "falls", "limp", "weak", "balance", "walk", "move", "side",
}  # fmt: skip
"""Concepts of the body and its movement."""


def _class_of(name: str, task: BaseTask) -> str:
    """The class of a task's wordings. A quantity that one task predicts and another measures is one class."""
    return str(getattr(task, "quantity", None) or getattr(task, "measured_as", None) or name)


def _text(document: tuple[str, list[str]]) -> str:
    return document[0]


def _concepts(document: tuple[str, list[str]]) -> list[str]:
    """The concepts, and each pair of them."""
    names = document[1]
    return [*names, *(f"{a} & {b}" for i, a in enumerate(names) for b in names[i + 1 :])]


def _features() -> FeatureUnion:
    characters = TfidfVectorizer(
        preprocessor=_text, analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True
    )
    words = TfidfVectorizer(preprocessor=_text, ngram_range=(1, 2), sublinear_tf=True)
    concepts = TfidfVectorizer(analyzer=_concepts, sublinear_tf=True)
    return FeatureUnion([("characters", characters), ("words", words), ("concepts", concepts)])
