"""The answerer: a model that is asked questions about movements, one batch at a time.

For a task's question it scores every possible answer and returns the most probable one. Any other question is
answered by free generation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from biomechgpt.answering.gates import Condition, condition_tasks, conditions_of, mean_probabilities
from biomechgpt.answering.gates import gate as judge_gate
from biomechgpt.answering.ood import worst
from biomechgpt.answering.prompt_plan import ScoreRequest, View, average, requests_by_view, score_request
from biomechgpt.answering.scores import Scores, mean_scores, quantile
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.answering.status import with_status
from biomechgpt.core import artifact
from biomechgpt.core.settings import InputError
from biomechgpt.language import network
from biomechgpt.language.families import family_of
from biomechgpt.language.stacked import stack_of
from biomechgpt.motion.features import kinematic_features
from biomechgpt.motion.statistics import measure_statistics
from biomechgpt.prompts.answer_trie import AnswerTrie, answer_trie
from biomechgpt.prompts.encoding import MIN_MOTION_TOKENS, MotionTokens, PromptEncoder, Query
from biomechgpt.questions.tasks import (
    AnnotatedTask,
    ComparisonTask,
    LabelTask,
    MeasuredTask,
    NumberTask,
    PredictionTask,
)
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer
from biomechgpt.tokenizer.tokens import view


@dataclass(frozen=True)
class _PromptRow:
    """One prompt and what is scored after it.

    prefix: ids up to where a question follows.
    queries: each template of each request.
    owners: the request and the number of the template of each query.
    """

    prefix: np.ndarray
    queries: list[CandidateQuery]
    owners: list[tuple[ScoreRequest, int]]


class Answerer:
    """A loaded model.

    The same query gets the same answer, whatever else is asked with it; to rounding, if the model computes in 16
    bits.
    parts: what the model consists of.
    cache: folder for downloads of remote weights; by default one that all processes of this machine share.
    """

    def __init__(self, parts: ModelParts, cache: str | None = None) -> None:
        self.info, self.tasks, self.calibration = parts.info, parts.tasks, parts.calibration
        self.reference = parts.reference
        base = artifact.local_copy(parts.base, cache)
        weights: Path | None = None if parts.adapter is None else artifact.local_copy(parts.adapter, cache)
        self.tokenizer = network.load_tokenizer(base)
        self.model = network.load_merged(
            base, weights, self.info.quantization, self.info.compute_dtype
        ).eval()
        self.encoder = PromptEncoder(
            self.tokenizer, family_of(self.model.config).turns, stack_of(self.model.config)
        )
        self.stop = self.tokenizer.convert_tokens_to_ids(self.encoder.turns.answer_end)
        # Numbers, and labels that are known from training only, are short phrases: 16 tokens are enough.
        label_answers = [
            task.answer(label)
            for task in self.tasks.values()
            if isinstance(task, LabelTask)
            for label in task.labels or ()
        ]
        self.max_new_tokens = max(
            16, self.info.longest_answer, *(len(self.encoder.answer(text)) for text in label_answers)
        )

    @classmethod
    def load(cls, uri: str) -> "Answerer":
        """The answerer of a model artifact, or of a copy of its folder."""
        return cls(ModelBundle(uri).parts)

    @cached_property
    def tries(self) -> dict[str, AnswerTrie]:
        """{task: all its answers}. Labels of a task without its own are those of training."""
        return {
            name: answer_trie(self.encoder, task, self.info.labels.get(name, ()))
            for name, task in self.tasks.items()
            if isinstance(task, AnnotatedTask)
        }

    def tokenize(
        self, tokenizer: MotionTokenizer, movements: Sequence[np.ndarray], masks: Sequence[np.ndarray]
    ) -> list[MotionTokens]:
        """Movements as motion tokens, with the other views that answers are averaged over.

        movements: (T, 34) radians at the tokenizer's frame rate.
        masks: (34,) bool of each movement, True for each recorded joint.
        """
        numbers = range(self.info.scoring.views)
        pairs = [
            view(angles, mask, number, tokenizer.downsampling)
            for angles, mask in zip(movements, masks, strict=True)
            for number in numbers
        ]
        tokens = iter(tokenizer.encode([angles for angles, _ in pairs], [mask for _, mask in pairs]))
        of_movements = [[next(tokens).tolist() for _ in numbers] for _ in movements]
        return [MotionTokens(own, others) for own, *others in of_movements]

    def analyse(
        self,
        tokenizer: MotionTokenizer,
        movements: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        provenance: str | None = None,
    ) -> list[MotionTokens]:
        """As `tokenize`, with the statistics that the checks before each answer need.

        provenance: of the recordings: recorded or synthetic; None if it is not known.
        """
        motions = self.tokenize(tokenizer, movements, masks)
        tokens = [np.asarray(motion.tokens) for motion in motions]
        errors = tokenizer.reconstruction_errors(movements, tokens, masks)
        rate_hz = tokenizer.frame_rate_hz
        return [
            replace(
                motion,
                statistics=replace(
                    measure_statistics(angles, mask, rate_hz),
                    distance=self._distance(kinematic_features(angles, rate_hz, mask)),
                    rmse_deg=error,
                    provenance=provenance,
                ),
            )
            for motion, angles, mask, error in zip(motions, movements, masks, errors, strict=True)
        ]

    def _distance(self, features: np.ndarray) -> float | None:
        return None if self.reference is None else self.reference.distance(features)

    def answer(
        self,
        queries: Sequence[Query],
        only_status: Sequence[bool] | None = None,
        writes_text: bool = True,
    ) -> list[Answer]:
        """The answers to queries, as one batch: scored if the task has answers to choose from, else generated.

        only_status: as `score_candidates`.
        writes_text: False: what would be generated gets an empty text, for a base model that cannot write.
        Raises InputError for a query about a person that is not scored, and for a measured quantity
        (`answering.measured` answers it).
        """
        for query in queries:
            if query.task and isinstance(self.tasks[query.task], MeasuredTask):
                raise InputError(f"task {query.task!r}: expected one that the language model answers")
        scored = [i for i, query in enumerate(queries) if self._is_scored(query)]
        generated = [i for i, query in enumerate(queries) if not self._is_scored(query)]
        if any(queries[i].relation == "same_person" for i in generated):
            raise InputError("several movements of a person: expected a task with answers to choose from")
        answers: dict[int, Answer] = {}
        if scored:
            skipped = None if only_status is None else [only_status[i] for i in scored]
            found = self.score_candidates([queries[i] for i in scored], only_status=skipped)
            answers |= zip(scored, found, strict=True)
        if generated:
            free = [queries[i] for i in generated]
            texts = self.generate(free) if writes_text else [""] * len(free)
            for i, text in zip(generated, texts, strict=True):
                unlike = worst([self.calibration.judge(m.statistics, None) for m in queries[i].motions])
                answers[i] = Answer(text, status="unlike" if unlike.unlike else "answered", unlike=unlike)
        return [answers[i] for i in range(len(queries))]

    def _is_scored(self, query: Query) -> bool:
        return bool(query.task) and isinstance(self.tasks[str(query.task)], AnnotatedTask)

    def score_candidates(
        self,
        queries: Sequence[Query],
        full_distribution: bool = False,
        only_status: Sequence[bool] | None = None,
    ) -> list[Answer]:
        """The answers to queries whose tasks have answers to choose from, as one batch.

        Probabilities are the mean over templates and over views of a movement, as the model's scoring settings say.
        Two movements are compared by the answers about each alone, if a task asks for them; the
        words of the question do not matter then. Queries about a person need a task in `calibration.people`.
        A movement that is longer than any of fine-tuning loses its end, a conversation its beginning.
        full_distribution: with the mean of numbers, for which more of them has to be read.
        only_status: for each query, whether only its status is wanted: whether the question applies, and whether
            the movement is like the training data. None: for no query.
        """
        skipped = only_status or [False] * len(queries)
        requests = [
            [] if skip else self._requests(query, full_distribution)
            for query, skip in zip(queries, skipped, strict=True)
        ]
        conditions = [self._conditions[str(query.task)] for query in queries]
        gate_requests = [
            self._gate_requests(query, of_task) for query, of_task in zip(queries, conditions, strict=True)
        ]
        template_scores = self._score(
            [request for of_query in requests for request in of_query]
            + [
                request
                for of_query in gate_requests
                for of_motion in of_query
                for request in of_motion.values()
            ]
        )
        answers = []
        for query, of_query, of_task, of_gate in zip(
            queries, requests, conditions, gate_requests, strict=True
        ):
            scores = [template_scores[request] for request in of_query]
            answer = self._combine(query, scores, full_distribution) if scores else Answer("")
            movements = [
                {
                    task: self._label_probabilities(task, template_scores[request])
                    for task, request in row.items()
                }
                for row in of_gate
            ]
            if not scores:  # any question about a movement gives the log-likelihood of its tokens
                scores = [
                    template_scores[next(iter(row.values()))] for row in of_gate if len(of_gate) == 1 and row
                ]
            answers.append(self._checked(query, answer, of_task, movements, scores))
        return answers

    @cached_property
    def _conditions(self) -> dict[str, list[Condition]]:
        """{task: its conditions}."""
        return {name: conditions_of(name, self.tasks) for name in self.tasks}

    def _gate_requests(self, query: Query, conditions: Sequence[Condition]) -> list[dict[str, ScoreRequest]]:
        """For each movement of a query: {condition's task: its request}."""
        tasks = condition_tasks(conditions)
        views = self.info.scoring.views
        return [
            {
                task: score_request([motion], task, [self.tasks[task].templates[0]], False, views)
                for task in tasks
            }
            for motion in query.motions
        ]

    def _label_probabilities(self, task: str, template_scores: Sequence[Scores]) -> dict[str, float]:
        """{label: calibrated probability} of a task with labels."""
        fitted = self.calibration.of_task(task)
        calibrated = apply_temperature(mean_scores(template_scores).probability, fitted.temperature)
        return {str(label): float(p) for label, p in zip(self.tries[task].answers, calibrated, strict=True)}

    def _checked(
        self,
        query: Query,
        answer: Answer,
        conditions: Sequence[Condition],
        movements: Sequence[dict[str, dict[str, float]]],
        scores: Sequence[list[Scores]],
    ) -> Answer:
        """The answer with its status: whether the question applies, and whether the movement is like training data.

        movements: the label probabilities of each movement, for the tasks of `conditions`.
        scores: of each request of the query.
        """
        name = str(query.task)
        known = [motion.statistics for motion in query.motions if motion.statistics is not None]
        if query.relation == "same_person":  # one person: what each recording shows counts equally
            movements = [mean_probabilities(movements)] if movements else []
        gate = judge_gate(self.tasks, name, conditions, movements, known, self.calibration.threshold(name))
        # The log-likelihood is calibrated for prompts with a single movement.
        likelihoods = [mean_scores(of_motion).log_likelihood for of_motion in scores]
        if len(likelihoods) != len(query.motions):
            likelihoods = [None] * len(query.motions)  # type: ignore[list-item]
        unlike = worst(
            [
                self.calibration.judge(motion.statistics, log_likelihood)
                for motion, log_likelihood in zip(query.motions, likelihoods, strict=True)
            ]
        )
        return with_status(answer, self.tasks[name], gate, unlike, known, self.calibration.provenance)

    def _requests(self, query: Query, full_distribution: bool) -> list[ScoreRequest]:
        """What is scored for a query: one request, or one about each of its movements."""
        task, turns, views = str(query.task), query.turns, self.info.scoring.views
        if query.relation == "same_person":
            return [
                score_request([motion], task, turns, full_distribution, views) for motion in query.motions
            ]
        single_task = self._single_task(task)
        if single_task is None:
            return [score_request(query.motions, task, turns, full_distribution, views)]
        # The probabilities of a comparison are computed from the whole distributions of both movements.
        turns = [self.tasks[single_task].templates[0]]
        return [score_request([motion], single_task, turns, True, views) for motion in query.motions]

    def _score(self, requests: Sequence[ScoreRequest]) -> dict[ScoreRequest, list[Scores]]:
        """{request: the scores with each template, the mean over views}."""
        rows = [self._prompt_row(view, of_view) for view, of_view in requests_by_view(requests).items()]
        scores = score(self.model, [row.prefix for row in rows], [row.queries for row in rows])
        return average(
            (request, template, template_scores)
            for row, row_scores in zip(rows, scores, strict=True)
            for (request, template), template_scores in zip(row.owners, row_scores, strict=True)
        )

    def _prompt_row(self, view: View, requests: Sequence[ScoreRequest]) -> _PromptRow:
        """The prompt of a view, with each template of each request after it."""
        owners, queries = [], []
        for request in requests:
            for template, turns in enumerate(self._wordings(request)):
                question = self._question_ids(turns, len(view))
                trie = self.tries[request.task]
                # One group for each request: its answer is the mean over all views and templates.
                queries.append(CandidateQuery(question, trie, request, request.full_distribution))
                owners.append((request, template))
        longest = max(len(query.question) for query in queries)
        max_tokens = self.info.max_length - longest - self.max_new_tokens
        return _PromptRow(self.encoder.truncated_prefix(view, max_tokens), queries, owners)

    def _wordings(self, request: ScoreRequest) -> Iterator[list[str]]:
        """The conversation of a request, and the same with the question in other templates of its task."""
        *history, question = request.turns
        further = [text for text in self.tasks[request.task].templates if text != question]
        for text in [question, *further[: self.info.scoring.templates - 1]]:
            yield [*history, text]

    def _combine(self, query: Query, scores: Sequence[list[Scores]], full_distribution: bool) -> Answer:
        """The answer to a query. scores: of each of its requests, with each template."""
        task = str(query.task)
        fitted = self.calibration.of_task(task)
        if query.relation == "same_person":
            template_scores = [mean_scores(of_template) for of_template in zip(*scores, strict=True)]
            fitted = self.calibration.of_person(task, len(scores))
        elif self._single_task(task) is not None:
            template_scores = [self._compare(task, *both) for both in zip(*scores, strict=True)]
        else:
            (template_scores,) = scores
        definition = self.tasks[task]
        if isinstance(definition, NumberTask):
            numbers = np.asarray(self.tries[task].answers)
            return self._number_answer(definition, numbers, template_scores, fitted, full_distribution)
        assert isinstance(definition, LabelTask)
        labels = [str(label) for label in self.tries[task].answers]
        return self._label_answer(definition, labels, template_scores, fitted)

    def _single_task(self, name: str) -> str | None:
        """The task about one movement whose answers decide the comparison `name`; None if there is none."""
        comparison = self.tasks[name]
        if not isinstance(comparison, ComparisonTask):
            return None
        for single, task in self.tasks.items():
            if isinstance(task, PredictionTask) and comparison.is_derivable_from(
                task, self.tries[single].answers
            ):
                return single
        return None

    def _compare(self, name: str, a: Scores, b: Scores) -> Scores:
        """The scores of a comparison, from those of each movement alone."""
        task, single_trie = self.tasks[name], self.tries[str(self._single_task(name))]
        assert isinstance(task, ComparisonTask)
        probability = task.derive(self.tries[name].answers, single_trie.answers, a.probability, b.probability)
        return Scores(
            probability, a.valid_probability * b.valid_probability, min(a.log_likelihood, b.log_likelihood)
        )

    def _number_answer(
        self,
        task: NumberTask,
        numbers: np.ndarray,
        template_scores: Sequence[Scores],
        fitted: TaskCalibration,
        full_distribution: bool,
    ) -> Answer:
        scores = mean_scores(template_scores)
        least, most = task.plausible
        numbers = np.clip(fitted.corrected(numbers), least, most)
        low, median, high = (quantile(numbers, scores.probability, share) for share in INTERVAL_SHARES)
        medians = [quantile(numbers, s.probability, INTERVAL_SHARES[1]) for s in template_scores]
        # The calibrated interval is wider, or narrower if the offset is negative. It keeps the median, and stays
        # within the plausible range.
        offset = fitted.interval_offset or 0.0
        return Answer(
            task.answer(median),
            low=round(max(min(low - offset, median), least), task.decimals),
            high=round(min(max(high + offset, median), most), task.decimals),
            mean=float(numbers @ scores.probability) if full_distribution else None,
            valid_probability=scores.valid_probability,
            coverage_guaranteed=fitted.coverage_guaranteed,
            log_likelihood=scores.log_likelihood,
            template_answers=[task.answer(number) for number in medians],
        )

    def _label_answer(
        self,
        task: LabelTask,
        labels: Sequence[str],
        template_scores: Sequence[Scores],
        fitted: TaskCalibration,
    ) -> Answer:
        scores = mean_scores(template_scores)
        calibrated = apply_temperature(scores.probability, fitted.temperature)
        most_probable_first = np.argsort(-calibrated, kind="stable")
        probability = {labels[i]: float(calibrated[i]) for i in most_probable_first}
        return Answer(
            task.answer(next(iter(probability))),
            labels=list(probability),
            probabilities=list(probability.values()),
            prediction_set=prediction_set(probability, fitted),
            selective_risk=fitted.selective_risk(float(scores.probability.max())),
            valid_probability=scores.valid_probability,
            temperature=fitted.temperature,
            coverage_guaranteed=fitted.coverage_guaranteed,
            log_likelihood=scores.log_likelihood,
            template_answers=[task.answer(labels[int(s.probability.argmax())]) for s in template_scores],
        )

    def longest_movement(self, n_posture: int) -> int:
        """Tokens of a movement, `n_posture` of them posture tokens, that is read completely, whatever is asked."""
        # A measured quantity is never asked of the language model.
        asked = [task for task in self.tasks.values() if not isinstance(task, MeasuredTask)]
        templates = [text for task in asked for text in task.templates]
        longest = max(len(self.encoder.question(text)) for text in templates)
        return self.encoder.tokens_in(self._max_motion_and_question - longest, n_posture)

    @property
    def longest_question(self) -> int:
        """Tokens (`encoder.question`'s) of the longest question that leaves space for a movement."""
        return self._max_motion_and_question - MIN_MOTION_TOKENS

    @property
    def _max_motion_and_question(self) -> int:
        """Tokens for a movement and a question together."""
        return self.info.max_length - self.max_new_tokens - len(self.encoder.prefix([[]]))

    def _question_ids(self, turns: Sequence[str], n_movements: int) -> np.ndarray:
        """Ids of a conversation. It loses its earliest turns if it leaves too little space for the movements.

        It loses all earlier turns if the model was trained without any.
        """
        turns = list(turns) if self.info.history else list(turns[-1:])
        max_tokens = self._max_motion_and_question - MIN_MOTION_TOKENS * n_movements
        while len(ids := self.encoder.question(turns)) > max_tokens and len(turns) > 2:
            turns = turns[2:]  # a question and its answer
        return ids

    def generate(self, queries: Sequence[Query]) -> list[str]:
        """The most probable text after each query's question, token by token, as one batch. Tasks do not matter.

        A movement that is longer than any of fine-tuning loses its end, a conversation its beginning.
        Raises InputError for a question longer than `longest_question`.
        """
        prompts = []
        for query in queries:
            question = self._question_ids(query.turns, len(query.motions))
            max_tokens = self.info.max_length - len(question) - self.max_new_tokens
            prefix = self.encoder.truncated_prefix(query.tokens, max_tokens)
            prompts.append(np.concatenate([prefix, question]))
        generated = self.generate_tokens(
            prompts,
            do_sample=False,
            top_k=None,
            top_p=None,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.stop,
        )
        texts: list[str] = self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return texts

    @torch.inference_mode()
    def generate_tokens(self, prompts: Sequence[np.ndarray], **options: Any) -> torch.Tensor:
        """Ids (B, n) that follow each prompt, as one batch, padded after their end.

        prompts: ids, of any length.
        options: as transformers' `generate` takes them.
        """
        ids, is_prompt = self.padded(prompts)
        generated: torch.Tensor = self.model.generate(
            input_ids=ids,
            attention_mask=is_prompt.long(),
            pad_token_id=self.tokenizer.pad_token_id,
            **options,
        )
        return generated[:, ids.shape[1] :]

    def padded(self, prompts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts as one batch: ids (B, L), padded before each prompt so that all end together, and (B, L) bool,
        True where a prompt is."""
        pad, length = self.tokenizer.pad_token_id, max(map(len, prompts))
        ids = np.full((len(prompts), length), pad, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = prompt
        batch = torch.from_numpy(ids).to(self.model.device)
        return batch, batch != pad
