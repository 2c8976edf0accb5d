"""The answerer: a model that is asked questions about movements, one batch at a time.

A task's question is answered by weighing every answer that it can have; any other by free generation.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biomechgpt.answering.answer import Answer
from biomechgpt.answering.bundle import ModelBundle, ModelParts
from biomechgpt.answering.calibration import (
    INTERVAL_SHARES,
    TaskCalibration,
    apply_temperature,
    prediction_set,
)
from biomechgpt.answering.scoring import Asked, Scores, quantile, score
from biomechgpt.core import storage
from biomechgpt.core.settings import InputError
from biomechgpt.language import network
from biomechgpt.language.families import family_of
from biomechgpt.prompts.answer_trie import AnswerTrie, answer_trie
from biomechgpt.prompts.encoding import (
    SHORTEST,
    Encoder,
    Mirrored,
    Motion,
    Movement,
    Person,
    Question,
    as_it_is,
    mirror_image,
    movements_of,
)
from biomechgpt.questions.tasks import AnnotatedTask, ComparisonTask, LabelTask, NumberTask, PredictionTask
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.tokens import mirror_movement


class Answerer:
    """A loaded model; the same movement and question get the same answer, whatever else is asked with them (where
    the model computes in 16 bits, to rounding).

    cache: folder for downloads of remote weights; by default one that all processes of this machine share.
    """

    def __init__(self, parts: ModelParts, cache: str | None = None) -> None:
        self.info, self.tasks, self.calibration = parts.info, parts.tasks, parts.calibration
        base = storage.local_copy(parts.base, cache)
        weights: Path | None = None if parts.adapter is None else storage.local_copy(parts.adapter, cache)
        self.tokenizer = network.load_tokenizer(base)
        self.model = network.load_merged(
            base, weights, self.info.quantization, self.info.compute_dtype
        ).eval()
        self.encoder = Encoder(self.tokenizer, family_of(self.model.config).turns)
        self.stop = self.tokenizer.convert_tokens_to_ids(self.encoder.turns.answer_end)
        longest = [
            task.answer(label)
            for task in self.tasks.values()
            if isinstance(task, LabelTask)
            for label in task.labels or ()
        ]  # numbers and open labels are short phrases
        self.max_new_tokens = max(
            [
                16,
                self.info.longest_answer,
                *(len(self.encoder.answer(text)) for text in longest),
            ]
        )

    @classmethod
    def load(cls, uri: str) -> "Answerer":
        """The answerer of a model artifact, or of a copy of its folder."""
        return cls(ModelBundle(uri).parts)

    @cached_property
    def choices(self) -> dict[str, AnswerTrie]:
        """{task: every answer that it can have}; labels of a task without its own are those of training."""
        return {
            name: answer_trie(self.encoder, task, self.info.labels.get(name, ()))
            for name, task in self.tasks.items()
            if isinstance(task, AnnotatedTask)
        }

    def read(
        self, tokenizer: MotionTokenizer, movements: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> list[Movement]:
        """Movements (T, 34) radians at the tokenizer's rate, and which joints (34,) of each were recorded, as
        questions are asked about them: with their mirror images where answers are about those too."""
        own = [tokens.tolist() for tokens in tokenizer.encode(movements, masks)]
        if not self.info.scoring.mirrored:
            return list(own)
        seen = [mirror_movement(angles, mask) for angles, mask in zip(movements, masks, strict=True)]
        images = tokenizer.encode([angles for angles, _ in seen], [mask for _, mask in seen])
        return [Mirrored(tokens, image.tolist()) for tokens, image in zip(own, images, strict=True)]

    def reconstruction_errors(
        self,
        tokenizer: MotionTokenizer,
        movements: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        motions: Sequence[Movement],
    ) -> list[float]:
        """`MotionTokenizer.reconstruction_errors` of movements that `read` turned into `motions`."""
        own = [np.asarray(as_it_is(motion)[0]) for motion in motions]
        return tokenizer.reconstruction_errors(movements, own, masks)

    def read_checked(
        self, tokenizer: MotionTokenizer, angles_rad: np.ndarray, joint_mask: np.ndarray
    ) -> tuple[Movement, bool]:
        """A movement as `read` gives it, and whether its reconstruction error marks it as out of distribution.

        The log-likelihood is checked with each answer. Here it is infinite, so that only the error counts.
        """
        (motion,) = self.read(tokenizer, [angles_rad], [joint_mask])
        (error_deg,) = self.reconstruction_errors(tokenizer, [angles_rad], [joint_mask], [motion])
        return motion, self.calibration.is_ood(np.inf, error_deg)

    def answer(self, asked: Sequence[tuple[Motion | Person, str | None, Question]]) -> list[Answer]:
        """Answers to (motion, task, question), as one batch: weighed where a task has answers to choose from, else
        generated, about one movement or two. Raises InputError for a person asked what is generated."""
        choose = [
            (i, task)
            for i, (_, task, _) in enumerate(asked)
            if task and isinstance(self.tasks[task], AnnotatedTask)
        ]
        weighed = self.weigh([(asked[i][0], task, asked[i][2]) for i, task in choose]) if choose else []
        found = {i: answer for (i, _), answer in zip(choose, weighed, strict=True)}
        free = [i for i in range(len(asked)) if i not in found]
        if free:
            motions = [motion for motion, _, _ in (asked[i] for i in free) if not isinstance(motion, Person)]
            if len(motions) < len(free):
                raise InputError("several movements of a person: expected a task with answers to choose from")
            texts = self.generate(motions, [asked[i][2] for i in free])
            found |= {i: Answer(text) for i, text in zip(free, texts, strict=True)}
        return [found[i] for i in range(len(asked))]

    def weigh(
        self, asked: Sequence[tuple[Motion | Person, str, Question]], whole: bool = False
    ) -> list[Answer]:
        """Answers to (motion, task, question), as one batch; tasks whose truth is an annotation.

        Probabilities are the mean over the question and other phrasings of its task, as many as the bundle says,
        and over a movement and its mirror image where the bundle says so. whole: with the mean of numbers, for
        which more of them has to be read than for their median and interval.
        Two movements are compared by what is said of each alone, where there is a task that asks it; the question's
        words do not matter then. Of a person only tasks in `calibration.people` are asked. A movement longer than
        fine-tuning ever saw loses its end, as it would have there; a conversation its beginning.
        """
        parts = [self._parts(*one, whole) for one in asked]
        scores = iter(self._read([part for of_one in parts for part in of_one]))
        found = []
        for (motion, task, _), of_one in zip(asked, parts, strict=True):
            each = list(islice(scores, len(of_one)))
            fitted = self.calibration.tasks.get(task, TaskCalibration())
            if isinstance(motion, Person):
                ways, fitted = [_mean(way) for way in zip(*each, strict=True)], self.calibration.people[task]
            elif self._alone(task) is not None:
                ways = [self._compared(task, *both) for both in zip(*each, strict=True)]
            else:
                (ways,) = each
            found.append(self._weighed(task, ways, fitted, whole))
        return found

    def _parts(
        self, motion: Motion | Person, task: str, question: Question, whole: bool
    ) -> list[tuple[Motion, str, Question, bool]]:
        """What is read for an answer: (motion, task, question, whether the whole distribution is wanted)."""
        if isinstance(motion, Person):
            return [(movement, task, question, whole) for movement in motion.movements]
        alone = self._alone(task)
        if alone is None:
            return [(motion, task, question, whole)]
        return [(movement, alone, self.tasks[alone].templates[0], True) for movement in movements_of(motion)]

    def _read(self, asked: Sequence[tuple[Motion, str, Question, bool]]) -> list[list[Scores]]:
        """Scores of each phrasing of what is asked; of a movement with its mirror image the mean over both. A
        movement is read once for all that is asked of it, and what is asked of it twice is weighed once."""
        motions: dict[tuple[tuple[int, ...], ...], Motion] = {}
        together: dict[
            tuple[tuple[int, ...], ...], dict[tuple[Any, str, tuple[str, ...], bool], list[int]]
        ] = {}
        for i, (motion, task, question, whole) in enumerate(asked):
            turns = (question,) if isinstance(question, str) else tuple(question)
            image = mirror_image(motion) if self.info.scoring.mirrored else []
            both = {tuple(map(tuple, as_it_is(m))): m for m in ([motion, image] if image else [motion])}
            motions.update(both)
            for key in both:
                together.setdefault(key, {}).setdefault((tuple(both), task, turns, whole), []).append(i)
        prefixes, questions, owners = [], [], []
        for key, of_motion in together.items():
            motion = motions[key]
            texts = [[self._question(motion, w) for w in self._ways(task, t)] for _, task, t, _ in of_motion]
            longest = max(len(text) for of_one in texts for text in of_one)
            prefixes.append(self.encoder.fit(motion, self.info.max_length - longest - self.max_new_tokens))
            ways = [
                (one, way, text)
                for one, of_one in zip(of_motion, texts, strict=True)
                for way, text in enumerate(of_one)
            ]
            questions.append([Asked(text, self.choices[one[1]], one, one[3]) for one, _, text in ways])
            owners.append([(of_motion[one], way) for one, way, _ in ways])
        found: list[dict[int, list[Scores]]] = [{} for _ in asked]
        for of_row, row in zip(owners, score(self.model, prefixes, questions), strict=True):
            for (mine, way), scores in zip(of_row, row, strict=True):
                for i in mine:
                    found[i].setdefault(way, []).append(scores)
        return [[_mean(scores) for scores in of_one.values()] for of_one in found]

    def _alone(self, name: str) -> str | None:
        """The task that asks of one movement what task `name` compares two by; None where none does."""
        task = self.tasks[name]
        if not isinstance(task, ComparisonTask):
            return None
        singles = ((n, t) for n, t in self.tasks.items() if isinstance(t, PredictionTask))
        return next((n for n, t in singles if task.is_derivable_from(t, self.choices[n].answers)), None)

    def _compared(self, name: str, a: Scores, b: Scores) -> Scores:
        """Scores of a comparison from those of either movement alone."""
        task, known = self.tasks[name], self.choices[str(self._alone(name))]
        assert isinstance(task, ComparisonTask)
        likely = task.derive(self.choices[name].answers, known.answers, a.probability, b.probability)
        return Scores(
            likely, a.valid_probability * b.valid_probability, min(a.log_likelihood, b.log_likelihood)
        )

    def _ways(self, task: str, question: Question) -> list[Question]:
        """A question and the same in other phrasings."""
        turns = [question] if isinstance(question, str) else list(question)
        others = [words for words in self.tasks[task].templates if words != turns[-1]]
        return [question, *([*turns[:-1], words] for words in others[: self.info.scoring.templates - 1])]

    def _weighed(self, name: str, ways: Sequence[Scores], fitted: TaskCalibration, whole: bool) -> Answer:
        task, tree, scores = self.tasks[name], self.choices[name], _mean(ways)
        is_ood = self.calibration.is_ood(scores.log_likelihood)
        if isinstance(task, NumberTask):
            numbers = np.asarray(tree.answers)
            low, middle, high = (quantile(numbers, scores.probability, q) for q in INTERVAL_SHARES)
            alone = [quantile(numbers, way.probability, INTERVAL_SHARES[1]) for way in ways]
            more = fitted.interval_offset or 0.0
            return Answer(
                task.answer(middle),
                low=round(max(min(low - more, middle), task.plausible[0]), task.decimals),
                high=round(min(max(high + more, middle), task.plausible[1]), task.decimals),
                mean=float(numbers @ scores.probability) if whole else None,
                valid_probability=scores.valid_probability,
                coverage_guaranteed=fitted.coverage_guaranteed,
                log_likelihood=scores.log_likelihood,
                is_ood=is_ood,
                template_answers=[task.answer(number) for number in alone],
            )
        assert isinstance(task, LabelTask)
        probability = apply_temperature(scores.probability, fitted.temperature)
        order = np.argsort(-probability, kind="stable")
        labels = [str(tree.answers[i]) for i in order]
        likely = dict(zip(labels, probability[order].tolist(), strict=True))
        return Answer(
            task.answer(labels[0]),
            labels=labels,
            probabilities=list(likely.values()),
            prediction_set=prediction_set(likely, fitted),
            selective_risk=fitted.selective_risk(float(probability.max())),
            valid_probability=scores.valid_probability,
            temperature=fitted.temperature,
            coverage_guaranteed=fitted.coverage_guaranteed,
            log_likelihood=scores.log_likelihood,
            is_ood=is_ood,
            template_answers=[task.answer(str(tree.answers[int(way.probability.argmax())])) for way in ways],
        )

    @property
    def longest_movement(self) -> int:
        """Motion tokens of a movement that is read whole, whichever task is asked about it."""
        asked = max(len(self.encoder.question(p)) for t in self.tasks.values() for p in t.templates)
        return self._room - asked

    @property
    def longest_question(self) -> int:
        """Tokens (`encoder.question`'s) of a question that leaves room for a movement; `generate` refuses more."""
        return self._room - SHORTEST

    @property
    def _room(self) -> int:
        """Tokens for a movement and a question."""
        return self.info.max_length - self.max_new_tokens - len(self.encoder.prefix([]))

    def _question(self, motion: Motion, question: Question) -> np.ndarray:
        """Ids of a question; a conversation loses its earliest turns where it leaves no room for the motion, all
        of them where the model never saw any."""
        turns = [question] if isinstance(question, str) else list(question)
        if not self.info.history:
            turns = turns[-1:]
        most = self._room - SHORTEST * len(movements_of(motion))
        while len(ids := self.encoder.question(turns)) > most and len(turns) > 2:
            turns = turns[2:]
        return ids

    def generate(self, motions: Sequence[Motion], questions: Sequence[Question]) -> list[str]:
        """One answer a question, about the motion beside it.

        A movement longer than fine-tuning ever saw loses its end, as it would have there; a conversation its
        beginning. Raises InputError for a question longer than `longest_question`.
        """
        prompts = []
        for motion, question in zip(motions, questions, strict=True):
            asked = self._question(motion, question)
            room = self.info.max_length - len(asked) - self.max_new_tokens
            prompts.append(np.concatenate([self.encoder.fit(motion, room), asked]))
        made = self.write(
            prompts,
            do_sample=False,
            top_k=None,
            top_p=None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.stop,
        )
        texts: list[str] = self.tokenizer.batch_decode(made, skip_special_tokens=True)
        return texts

    @torch.inference_mode()
    def write(self, prompts: Sequence[np.ndarray], **how: Any) -> torch.Tensor:
        """What the model writes after each prompt (ids, of any length), as one batch: (B, n) ids, padded after
        their end. how: as transformers' `generate` takes it."""
        pad, length = self.tokenizer.pad_token_id, max(map(len, prompts))
        ids = np.full((len(prompts), length), pad, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = prompt
        batch = torch.from_numpy(ids).to(self.model.device)
        made = self.model.generate(
            input_ids=batch, attention_mask=(batch != pad).long(), pad_token_id=pad, **how
        )
        written: torch.Tensor = made[:, length:]
        return written


def _mean(scores: Sequence[Scores]) -> Scores:
    """The mean over several; the movement is as likely as in the least likely of them."""
    return Scores(
        np.mean([one.probability for one in scores], axis=0),
        float(np.mean([one.valid_probability for one in scores])),
        min(one.log_likelihood for one in scores),
    )
