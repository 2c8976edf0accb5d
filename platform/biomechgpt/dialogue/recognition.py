"""Which task a question in somebody's own words asks.

A linear model of words and of pieces of words, fitted on the tasks' phrasings, with those of a refusal as what is
none of them. Knows words alone; nothing about movements or language models.
"""

from collections.abc import Collection

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from biomechgpt.tasks import Tasks

SURE = 0.5
"""Probability from which on a question is taken to be a task's."""


class Recognizer:
    """Of a bundle's tasks. Without a refusal among them nothing shows what none of them is: none is recognised."""

    def __init__(self, tasks: Tasks) -> None:
        known = {name: task for name, task in tasks.items() if task.kind != "generation"}
        self._refusals = {name for name, task in known.items() if task.kind == "refusal"}
        self._model = None
        if self._refusals:
            pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            linear = LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced")
            pairs = [(p, name) for name, task in known.items() for p in task.phrasings]
            self._model = make_pipeline(make_union(pieces, words), linear)
            self._model.fit([p for p, _ in pairs], [name for _, name in pairs])

    def task(self, question: str, among: Collection[str]) -> str | None:
        """The task of `among` that a question asks; None where it is none of them, or that is not sure."""
        if self._model is None:
            return None
        likely = self._model.predict_proba([question])[0]
        name = str(self._model.classes_[int(np.argmax(likely))])
        return name if likely.max() >= SURE and name in among and name not in self._refusals else None
