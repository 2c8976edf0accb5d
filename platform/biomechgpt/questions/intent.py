"""Which task a question in somebody's own words asks.

A linear model of words and of pieces of words, fitted on the tasks' phrasings and on what else they are asked with,
with those of a refusal as what is none of them. Knows words alone; nothing about movements or language models.
"""

from collections.abc import Collection

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from biomechgpt.questions.tasks import Tasks

ASKED = 0.6
"""Probability, of all tasks that can be asked together, from which on a question is taken to be the likeliest's."""


class Recognizer:
    """Of a bundle's tasks. Without a refusal among them nothing shows what none of them is: none is recognised."""

    def __init__(self, tasks: Tasks) -> None:
        known = {name: task for name, task in tasks.items() if task.kind != "generation"}
        self._refusals = {name for name, task in known.items() if task.kind == "refusal"}
        self._model = None
        if self._refusals:
            pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            linear = LogisticRegression(C=30.0, max_iter=2000, class_weight="balanced")
            pairs = [(p, name) for name, task in known.items() for p in [*task.phrasings, *task.also]]
            self._model = make_pipeline(make_union(pieces, words), linear)
            self._model.fit([p for p, _ in pairs], [name for _, name in pairs])

    def task(self, question: str, among: Collection[str]) -> str | None:
        """The task of `among` that a question asks; None where it is none of them, or that is not sure."""
        if self._model is None:
            return None
        known = [str(name) for name in self._model.classes_]
        asked = [i for i, name in enumerate(known) if name in among and name not in self._refusals]
        likely = self._model.predict_proba([question])[0][asked]
        return known[asked[int(np.argmax(likely))]] if likely.sum() >= ASKED else None
