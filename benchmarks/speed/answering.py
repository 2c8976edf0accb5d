"""Scores all answers to all questions of a trial, against generating them with the same model, in one run.

    python benchmarks/speed/answering.py [--bundle URI] [--size 1B] [--trials 64] [--batch 16] [--rounds 3]

--bundle: model; by default the demo's.
--size: what the ratios would be with a Gemma of that size. A network of its shape with random weights reads, in 16
    bits, all that the bundle's model reads; the answers are those of the bundle.

The last line is JSON. A movement is read once for all its questions, so the ratios depend on how many these are.
Each task is asked of every trial, as the server does with `tasks=all`; names with `own_` are about the questions
that apply to the trial, as in an evaluation.
ratio_vs_generate, ratio_vs_batched_generate: answers a second of `Answerer.score_candidates`, divided by those of
    `generate` one by one, and in batches of similar length.
tokens_ratio, tokens_ratio_batched: tokens that generation reads, divided by those that scoring reads. On a CPU,
    where time goes by tokens, the ratio of speeds is near this one.
passes_ratio, passes_ratio_batched: the same of passes of the model. On a GPU that few tokens do not fill, the ratio
    of speeds is nearer to this one.
max_score_error: largest difference of a log probability from that of a separate pass.
max_quantile_error: largest difference of a median or interval end from that of the full distribution, in units of
    the number's last decimal.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from gpu_memory import SIZES
from transformers import DynamicCache, Gemma3ForCausalLM, Gemma3TextConfig

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.calibration import INTERVAL_SHARES
from biomechgpt.answering.library import find_model
from biomechgpt.answering.scores import quantile
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.core import artifact
from biomechgpt.language import network
from biomechgpt.prompts.answer_trie import AnswerTrie
from biomechgpt.prompts.encoding import MotionTokens, Query
from biomechgpt.questions.dataset import read_questions, read_tasks
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.tokens import Tokens


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--alone", type=int, default=40, help="questions generated one by one")
    parser.add_argument("--batch", type=int, default=16, help="trials at once; prompts: 4 times as many")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    network.quiet()
    uri = options.bundle or find_model("demo")
    bundle = artifact.load(uri, "model")
    parts = ModelBundle(bundle.uri).parts
    scoring = parts.info.scoring.model_copy(update={"templates": 1})  # generation uses one
    answerer = Answerer(replace(parts, info=parts.info.model_copy(update={"scoring": scoring})))
    error, quantile_error = _errors(answerer, _trials(bundle, 6))
    if options.size:
        read_along(answerer.model, options.size)
    own_questions = _trials(bundle, options.trials)
    singles = [t for t in answerer.tasks.values() if isinstance(t, PredictionTask)]
    all_tasks = [
        (tokens, [(task.name, task.templates[0]) for task in singles]) for tokens, _ in own_questions
    ]
    result: dict[str, Any] = {}
    for prefix, trials in (("", all_tasks), ("own_", own_questions)):
        ratios = _ratios(answerer, trials, options)
        ratios["questions_a_trial"] = round(sum(len(pairs) for _, pairs in trials) / len(trials), 1)
        result |= {f"{prefix}{name}": value for name, value in ratios.items()}
    size = options.size or "the bundle's"
    errors = {"max_score_error": error, "max_quantile_error": quantile_error}
    print(json.dumps(result | errors | {"size": size, "data": bundle.provenance}))


def _ratios(answerer: Answerer, trials: list[Any], options: argparse.Namespace) -> dict[str, float]:
    """The ratios of the module's docstring; those of speeds are medians over rounds."""
    n_questions = sum(len(pairs) for _, pairs in trials)
    encoder = answerer.encoder
    # Batches hold prompts of similar length, or trials of similar length with all their questions.
    trials = sorted(trials, key=lambda t: len(t[0]) + sum(len(encoder.question(q)) for _, q in t[1]))
    prompts = [(tokens, question) for tokens, pairs in trials for _, question in pairs]
    prompts.sort(key=lambda prompt: len(prompt[0]) + len(encoder.question(prompt[1])))

    rng = np.random.default_rng(0)

    def random_prompts() -> list[Any]:
        """A few prompts, because one by one is slow. Every n-th of them could always be the same question."""
        return [prompts[i] for i in sorted(rng.permutation(n_questions)[: options.alone])]

    def score_all() -> float:
        started = time.perf_counter()
        for begin in range(0, len(trials), options.batch):
            batch = trials[begin : begin + options.batch]
            answerer.score_candidates(
                [
                    Query([MotionTokens(tokens)], "single", task, question)
                    for tokens, pairs in batch
                    for task, question in pairs
                ]
            )
        return n_questions / (time.perf_counter() - started)

    def generate(given: list[Any], size: int) -> float:
        started = time.perf_counter()
        for begin in range(0, len(given), size):
            answerer.generate(
                [
                    Query([MotionTokens(tokens)], "single", None, question)
                    for tokens, question in given[begin : begin + size]
                ]
            )
        return len(given) / (time.perf_counter() - started)

    def generate_in_batches() -> float:
        return generate(prompts, 4 * options.batch)

    # Once before the clock counts: a GPU is slow with shapes that it has not seen.
    counts, few_prompts = {}, random_prompts()
    for name, run in (
        ("score", score_all),
        ("alone", lambda: generate(few_prompts, 1)),
        ("batches", generate_in_batches),
    ):
        with _counted(answerer.model) as counts[name]:
            run()
    # Few of all questions are generated one by one.
    scale = {"alone": n_questions / len(few_prompts), "batches": 1.0}
    ratios = {
        f"{unit}_{name}": counts[name][unit] * scale[name] / counts["score"][unit]
        for name in scale
        for unit in counts[name]
    }
    alone, batched = [], []
    for _ in range(options.rounds):
        scored, one_by_one, in_batches = score_all(), generate(random_prompts(), 1), generate_in_batches()
        alone.append(scored / one_by_one)
        batched.append(scored / in_batches)
        print(
            f"{n_questions / len(trials):.1f} questions a trial, answers a second: scored {scored:.1f}, generated "
            f"in batches {in_batches:.1f}, one by one {one_by_one:.1f}",
            flush=True,
        )
    return {
        "ratio_vs_generate": round(statistics.median(alone), 2),
        "ratio_vs_batched_generate": round(statistics.median(batched), 2),
        "tokens_ratio": round(ratios["tokens_alone"], 2),
        "passes_ratio": round(ratios["passes_alone"], 1),
        "tokens_ratio_batched": round(ratios["tokens_batches"], 2),
        "passes_ratio_batched": round(ratios["passes_batches"], 1),
    }


@contextmanager
def _counted(model: Any) -> Iterator[dict[str, int]]:
    """Counts the passes of a model and the tokens (padding too) that it reads."""
    read = {"passes": 0, "tokens": 0}

    def count(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        read["passes"] += 1
        read["tokens"] += named["input_ids"].numel()

    hook = model.get_decoder().register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


def read_along(model: Any, size: str) -> None:
    """From now on a network of this size with random weights reads whatever `model` reads, too."""
    with torch.device(model.device):
        large = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES[size], tie_word_embeddings=True))
    large = large.to(torch.bfloat16).eval()
    decoder, head, rows = large.get_decoder(), large.get_output_embeddings(), network.tokens_at_once(large)
    select = DynamicCache.batch_select_indices

    def select_both(cache: Any, at: torch.Tensor) -> None:
        select(cache, at)
        if hasattr(cache, "along"):
            select(cache.along, at)

    def read(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        past = named["past_key_values"]
        if not hasattr(past, "along"):
            past.along = DynamicCache(config=large.config) if past.layers else DynamicCache()
        given = ("input_ids", "attention_mask", "position_ids", "use_cache")
        decoder(**{name: named.get(name) for name in given}, past_key_values=past.along)

    def read_out(_module: Any, arguments: tuple[torch.Tensor]) -> None:
        states = arguments[0].new_zeros(
            (arguments[0].shape[:-1].numel(), large.config.hidden_size), dtype=torch.bfloat16
        )
        for batch in states.split(rows):
            head(batch).float().log_softmax(dim=-1)

    DynamicCache.batch_select_indices = select_both  # type: ignore[method-assign]
    model.get_decoder().register_forward_pre_hook(read, with_kwargs=True)
    model.get_output_embeddings().register_forward_pre_hook(read_out)


def _trials(bundle: artifact.Artifact, count: int) -> list[tuple[list[int], list[tuple[str, str]]]]:
    """Held-out trials: motion tokens and (task, question) pairs."""
    rows = read_questions(bundle.input("questions")).to_pandas()
    tasks = read_tasks(bundle.uri)
    single = [name for name, task in tasks.items() if isinstance(task, PredictionTask)]
    rows = rows[(rows["split"] == "test") & rows["task"].isin(single)]
    tokens = pd.Series(Tokens(bundle.input("tokens")).codes())
    names = sorted(rows["trial"].unique())[:count]
    groups = rows[rows["trial"].isin(names)].groupby("trial")
    return [
        (tokens[trial].tolist(), list(zip(mine["task"], mine["question"], strict=True)))
        for trial, mine in groups
    ]


@torch.inference_mode()
def _errors(answerer: Answerer, trials: list[tuple[list[int], list[tuple[str, str]]]]) -> tuple[float, float]:
    """(max_score_error, max_quantile_error) of the module's docstring."""
    prefixes = [answerer.encoder.prefix([tokens]) for tokens, _ in trials]
    queries = [
        [CandidateQuery(answerer.encoder.question(q), answerer.tries[task]) for task, q in pairs]
        for _, pairs in trials
    ]
    full_queries = [[query._replace(full_distribution=True) for query in of_trial] for of_trial in queries]
    error = quantile_error = 0.0
    searched_scores = score(answerer.model, prefixes, queries)
    full_scores = score(answerer.model, prefixes, full_queries, min_probability=0)
    for prefix, *of_trial in zip(prefixes, queries, searched_scores, full_scores, strict=True):
        for (question, trie, *_), searched, full in zip(*of_trial, strict=True):
            if trie.is_numeric:
                numbers = np.asarray(trie.answers)
                step = numbers[1] - numbers[0]
                for share in INTERVAL_SHARES:
                    values = [quantile(numbers, s.probability, share) for s in (searched, full)]
                    quantile_error = max(quantile_error, abs(values[0] - values[1]) / step)
            scores = full if trie.is_numeric else searched
            for answer in np.argsort(-scores.probability)[:4]:
                if scores.probability[answer] > 0:
                    alone = _separate_pass(answerer, np.concatenate([prefix, question]), trie, int(answer))
                    together = float(np.log(scores.probability[answer] * scores.valid_probability))
                    error = max(error, abs(alone - together))
    return error, round(quantile_error, 6)


def _separate_pass(answerer: Answerer, prompt: np.ndarray, trie: AnswerTrie, answer: int) -> float:
    """Log probability of an answer by a pass of its own.

    Each token of a number but the first is conditional on those that may stand there.
    """
    path = [int(trie.leaves[answer])]
    while path[0] >= 0:
        path.insert(0, int(trie.parent[path[0]]))
    ids = torch.from_numpy(np.concatenate([prompt, trie.token[path[1:]]])).long()[None]
    logits = answerer.model(input_ids=ids.to(answerer.model.device)).logits[0, -len(path) : -1]
    total = 0.0
    for k, log_p in enumerate(logits.float().log_softmax(dim=-1).cpu()):
        total += float(log_p[trie.token[path[k + 1]]])
        if k and trie.is_numeric:
            total -= float(log_p[trie.token[trie.parent == path[k]]].logsumexp(dim=0))
    return total


if __name__ == "__main__":
    main()
