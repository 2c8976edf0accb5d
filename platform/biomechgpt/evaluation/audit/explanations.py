"""Do explanations say what an answer rests on? Deleting what they point at, against deleting as much at random.

Of held-out movements the tenth of the seconds, and of the joints, that weigh most for an answer are taken away
together, and as many drawn at random. Last line: JSON with how much further the former move the answer, a label's
probability or a number's mean: `seconds_ratio_labels`, `joints_ratio_labels` and the same of numbers.

    python -m biomechgpt.evaluation.audit.explanations [--bundle URI] [--trials 40]
"""

import argparse
import json

import numpy as np

from biomechgpt.answering.answerer import Answerer
from biomechgpt.answering.explain import (
    explain,
    strength,
    tenth_of,
    weigh_all,
    whole,
    without_joints,
    without_tokens,
)
from biomechgpt.cohort import Cohort
from biomechgpt.core import artifact, storage
from biomechgpt.motion.skeleton import INDEX
from biomechgpt.questions.dataset import read_questions
from biomechgpt.questions.tasks import PredictionTask
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

TIMES = 5
"""Random parts for each explained one."""


def movements(bundle, wanted):
    """{trial: (angles, joint mask)} of a bundle's cohort."""
    cohort = Cohort(bundle.input("tokens").input("cohort"))
    return {t.trial: (t.angles_rad, t.joint_mask) for t in cohort.trials(names=wanted)}


def most(weights, count, number):
    """Which weigh most for a label; for a number, those that make it larger, or smaller, whichever do more."""
    order = np.argsort(weights)
    up, down = order[::-1][:count], order[:count]
    return down if number and np.take(weights, down).sum() < -np.take(weights, up).sum() else up


def moved(answerer, tokenizer, angles, mask, asked, rng):
    """(question, kind) -> (moved by the explained tenth, moved by random ones), for one movement."""
    explained = explain(answerer, tokenizer, angles, mask, asked)
    read, parts = whole(answerer, answerer.read(tokenizer, [angles], [mask])[0])
    joints = [INDEX[name] for name in explained[0].joints]
    few, some = tenth_of(len(parts)), tenth_of(len(joints))
    found = []
    for told, (task, question) in zip(explained, asked, strict=True):
        number = answerer.tasks[task].answer_kind == "regression"
        top_parts = most([w for *_, w in told.seconds], few, number)
        top_joints = most(list(told.joints.values()), some, number)
        cut = [top_parts, *(rng.choice(len(parts), few, replace=False) for _ in range(TIMES))]
        held = [top_joints, *(rng.choice(len(joints), some, replace=False) for _ in range(TIMES))]
        left = [without_tokens(read, np.concatenate([parts[i] for i in chosen])) for chosen in cut]
        still = [without_joints(angles, [joints[i] for i in chosen]) for chosen in held]
        left += answerer.read(tokenizer, still, [mask] * len(still))
        first, *others = [row[0] for row in weigh_all(answerer, [read, *left], [(task, question)])]
        apart = [abs(strength(first, first) - strength(other, first)) for other in others]
        for kind, values in (("seconds", apart[: TIMES + 1]), ("joints", apart[TIMES + 1 :])):
            found.append((task, kind, values[0], float(np.mean(values[1:]))))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", help="URI of a model artifact; the demo's by default")
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    uri = options.bundle or storage.read_json("results/demo/metrics.json")["model"]["uri"]
    bundle = artifact.load(uri, "model")
    answerer, tokenizer = Answerer.load(uri), MotionTokenizer.load(storage.join(uri, "motion_tokenizer"))
    asked: dict[str, list[tuple[str, str]]] = {}
    for row in read_questions(bundle.input("questions")):
        task = answerer.tasks[row["task"]]
        if row["split"] == "test" and isinstance(task, PredictionTask):
            asked.setdefault(row["trial"], []).append((row["task"], row["question"]))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(sorted(asked))[: options.trials].tolist()
    rows = []
    for trial, (angles, mask) in movements(bundle, set(chosen)).items():
        rows += moved(answerer, tokenizer, angles, mask, asked[trial], rng)
    print(f"{bundle.provenance} data, {len(chosen)} held-out movements, {len(rows) // 2} answers")
    print(f"{'task':18}{'what':10}{'explained':>11}{'random':>9}{'ratio':>7}{'answers':>9}")
    moves: dict[str, list] = {}
    for name in answerer.tasks:
        for part in ("seconds", "joints"):
            mine = np.array([values for task_name, of, *values in rows if (task_name, of) == (name, part)])
            if not len(mine):
                continue
            explained, random = mine.mean(axis=0)
            ratio = explained / max(random, 1e-9)
            print(f"{name:18}{part:10}{explained:11.3f}{random:9.3f}{ratio:7.1f}{len(mine):9}")
            labels = answerer.tasks[name].answer_kind == "classification"
            # Numbers of all units together: in shares of what random parts move them.
            moves.setdefault(f"{part}_ratio_{'labels' if labels else 'numbers'}", []).append(
                mine if labels else mine / max(random, 1e-9)
            )
    print(json.dumps({name: _ratio(parts) for name, parts in moves.items()}))


def _ratio(parts):
    explained, random = np.concatenate(parts).mean(axis=0)
    return round(float(explained / max(random, 1e-9)), 2)


if __name__ == "__main__":
    main()
