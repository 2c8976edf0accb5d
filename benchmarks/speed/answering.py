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
from biomechgpt.answering.scores import quantile
from biomechgpt.answering.scoring import CandidateQuery, score
from biomechgpt.core import artifact
from biomechgpt.experiment.results import demo_model
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
    uri = options.bundle or demo_model()
    bundle = artifact.load(uri, "model")
    parts = ModelBundle(bundle.uri).parts
    scoring = parts.info.scoring.model_copy(update={"templates": 1})  # generating asks in one
    answerer = Answerer(replace(parts, info=parts.info.model_copy(update={"scoring": scoring})))
    error, quantile_error = _errors(answerer, _trials(bundle, 6))
    if options.size:
        read_along(answerer.model, options.size)
    own = _trials(bundle, options.trials)
    singles = [t for t in answerer.tasks.values() if isinstance(t, PredictionTask)]
    every = [(tokens, [(task.name, task.templates[0]) for task in singles]) for tokens, _ in own]
    result: dict[str, Any] = {}
    for prefix, trials in (("", every), ("own_", own)):
        found = _ratios(answerer, trials, options)
        found["questions_a_trial"] = round(sum(len(pairs) for _, pairs in trials) / len(trials), 1)
        result |= {f"{prefix}{name}": value for name, value in found.items()}
    size = options.size or "the bundle's"
    errors = {"max_score_error": error, "max_quantile_error": quantile_error}
    print(json.dumps(result | errors | {"size": size, "data": bundle.provenance}))


def _ratios(answerer: Answerer, trials: list[Any], options: argparse.Namespace) -> dict[str, float]:
    """Answers a second weighed, over generated prompt by prompt and in batches: medians over rounds. And how many
    times the tokens, and the passes of the model, those take."""
    asked = sum(len(pairs) for _, pairs in trials)
    encoder = answerer.encoder
    # Of alike length together: prompts here, trials with all that is asked of them there.
    trials = sorted(trials, key=lambda t: len(t[0]) + sum(len(encoder.question(q)) for _, q in t[1]))
    prompts = [(tokens, question) for tokens, pairs in trials for _, question in pairs]
    prompts.sort(key=lambda prompt: len(prompt[0]) + len(encoder.question(prompt[1])))

    rng = np.random.default_rng(0)

    def few() -> list[Any]:
        """Prompts drawn at random: one by one is slow, and every so many-th may always be the same question."""
        return [prompts[i] for i in sorted(rng.permutation(asked)[: options.alone])]

    def weigh() -> float:
        started = time.perf_counter()
        for at in range(0, len(trials), options.batch):
            some = trials[at : at + options.batch]
            answerer.score_candidates(
                [
                    Query([MotionTokens(tokens)], "single", task, question)
                    for tokens, pairs in some
                    for task, question in pairs
                ]
            )
        return asked / (time.perf_counter() - started)

    def generate(some: list[Any], size: int) -> float:
        started = time.perf_counter()
        for at in range(0, len(some), size):
            answerer.generate(
                [
                    Query([MotionTokens(tokens)], "single", None, question)
                    for tokens, question in some[at : at + size]
                ]
            )
        return len(some) / (time.perf_counter() - started)

    def batches() -> float:
        return generate(prompts, 4 * options.batch)

    # Once before the clock counts: a GPU takes its time with shapes that it has not seen.
    read, some = {}, few()
    for name, answer in (("weigh", weigh), ("alone", lambda: generate(some, 1)), ("batches", batches)):
        with _counted(answerer.model) as read[name]:
            answer()
    more = {"alone": asked / len(some), "batches": 1.0}
    ratios = {
        f"{of}_{name}": read[name][of] * more[name] / read["weigh"][of] for name in more for of in read[name]
    }
    alone, batched = [], []
    for _ in range(options.rounds):
        mine, one, many = weigh(), generate(few(), 1), batches()
        alone.append(mine / one)
        batched.append(mine / many)
        print(
            f"{asked / len(trials):.1f} questions a trial, answers a second: weighed {mine:.1f}, generated in "
            f"batches {many:.1f}, alone {one:.1f}",
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

    def weigh(_module: Any, arguments: tuple[torch.Tensor]) -> None:
        states = arguments[0].new_zeros(
            (arguments[0].shape[:-1].numel(), large.config.hidden_size), dtype=torch.bfloat16
        )
        for some in states.split(rows):
            head(some).float().log_softmax(dim=-1)

    DynamicCache.batch_select_indices = select_both  # type: ignore[method-assign]
    model.get_decoder().register_forward_pre_hook(read, with_kwargs=True)
    model.get_output_embeddings().register_forward_pre_hook(weigh)


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
    """Largest difference of log probability between all at once and a full pass for each answer; and of a number's
    quantiles from those of all numbers weighed, in units of its last decimal."""
    prefixes = [answerer.encoder.prefix([tokens]) for tokens, _ in trials]
    asked = [
        [CandidateQuery(answerer.encoder.question(q), answerer.tries[task]) for task, q in pairs]
        for _, pairs in trials
    ]
    every = [[one._replace(full_distribution=True) for one in of_trial] for of_trial in asked]
    error = quantile_error = 0.0
    found = (score(answerer.model, prefixes, *how) for how in ((asked,), (every, 0)))
    for prefix, questions, *both in zip(prefixes, asked, *found, strict=True):
        for (question, tree, *_), told, whole in zip(questions, *both, strict=True):
            if tree.is_numeric:
                step = tree.answers[1] - tree.answers[0]
                for share in INTERVAL_SHARES:
                    apart = [quantile(np.asarray(tree.answers), s.probability, share) for s in (told, whole)]
                    quantile_error = max(quantile_error, abs(apart[0] - apart[1]) / step)
            scores = whole if tree.is_numeric else told
            for answer in np.argsort(-scores.probability)[:4]:
                if scores.probability[answer] > 0:
                    alone = _alone(answerer, np.concatenate([prefix, question]), tree, int(answer))
                    together = float(np.log(scores.probability[answer] * scores.valid_probability))
                    error = max(error, abs(alone - together))
    return error, round(quantile_error, 6)


def _alone(answerer: Answerer, prompt: np.ndarray, tree: AnswerTrie, answer: int) -> float:
    """Log probability of an answer by a pass of its own; of a number's tokens but the first among those that may
    follow."""
    path = [int(tree.leaves[answer])]
    while path[0] >= 0:
        path.insert(0, int(tree.parent[path[0]]))
    ids = torch.from_numpy(np.concatenate([prompt, tree.token[path[1:]]])).long()[None]
    logits = answerer.model(input_ids=ids.to(answerer.model.device)).logits[0, -len(path) : -1]
    total = 0.0
    for k, log_p in enumerate(logits.float().log_softmax(dim=-1).cpu()):
        total += float(log_p[tree.token[path[k + 1]]])
        if k and tree.is_numeric:
            total -= float(log_p[tree.token[tree.parent == path[k]]].logsumexp(dim=0))
    return total


if __name__ == "__main__":
    main()
