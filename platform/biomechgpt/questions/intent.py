"""The intent classifier: which task a question in a user's own words asks.

A logistic regression over TF-IDF features (words and character n-grams), fitted on the tasks' templates and
paraphrases. The refusal task's wordings are the "none of these" class. Knows words; nothing about movements or
language models.
"""

from collections.abc import Collection

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from biomechgpt.questions.tasks import GenerationTask, RefusalTask, Tasks

MIN_INTENT_PROBABILITY = 0.6
"""Minimum summed probability of the tasks that can be asked for a question to be mapped to the most likely one."""


class IntentClassifier:
    """The intent classifier of a bundle's tasks. It recognises nothing unless one of them is a refusal task."""

    def __init__(self, tasks: Tasks) -> None:
        candidates = {name: task for name, task in tasks.items() if not isinstance(task, GenerationTask)}
        self._refusals = {name for name, task in candidates.items() if isinstance(task, RefusalTask)}
        self._model = None
        if self._refusals:
            characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
            words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
            regression = LogisticRegression(C=30.0, max_iter=2000, class_weight="balanced")
            pairs = [
                (text, name)
                for name, task in candidates.items()
                for text in [*task.templates, *task.paraphrases]
            ]
            self._model = make_pipeline(make_union(characters, words), regression)
            self._model.fit([text for text, _ in pairs], [name for _, name in pairs])

    def task(self, question: str, candidates: Collection[str]) -> str | None:
        """The task that a question asks; None if it asks none of the candidates, or the classifier is not sure.

        candidates: names of the tasks that can be asked here.
        """
        if self._model is None:
            return None
        names = [str(name) for name in self._model.classes_]
        possible = [i for i, name in enumerate(names) if name in candidates and name not in self._refusals]
        probabilities = self._model.predict_proba([question])[0][possible]
        if probabilities.sum() < MIN_INTENT_PROBABILITY:
            return None
        return names[possible[int(np.argmax(probabilities))]]
