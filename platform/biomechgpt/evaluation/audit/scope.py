"""Which questions in free words a model refuses: those out of scope that nobody was trained with, and new ways of
asking what it can answer.

    python -m biomechgpt.evaluation.audit.scope [--bundle URI] [--trials 20]

Each question is asked about movements of held-out participants, as the server asks it: without saying which task it
is. One that is recognised is weighed as its task; any other the language model may refuse. The last line is JSON:
share refused of each list of scope.yaml, and of the refusal's own held-out questions, `held_out`; share recognised,
and of those as the right task, where the list says which; `language_...` is what the language model would refuse by
itself.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from biomechgpt.answering.answerer import Answerer
from biomechgpt.core import artifact, storage
from biomechgpt.core.settings import read_yaml
from biomechgpt.language import network
from biomechgpt.questions.dataset import read_tasks
from biomechgpt.questions.intent import IntentClassifier
from biomechgpt.questions.tasks import REFUSED, RefusalTask, askable
from biomechgpt.tokenizer.tokens import Tokens

QUESTIONS = Path(__file__).with_name("scope.yaml")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", help="URI of a model artifact; by default the demo's")
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    network.quiet()
    uri = options.bundle or storage.read_json("results/demo/metrics.json")["model"]["uri"]
    bundle = artifact.load(uri, "model")
    tasks = read_tasks(bundle.uri)
    (refusal,) = [task for task in tasks.values() if isinstance(task, RefusalTask)]
    known = {text for task in tasks.values() for text in [*task.templates, *task.paraphrases]}
    answerer = Answerer.load(bundle.uri)
    table = Tokens(bundle.input("tokens")).table().to_pandas()
    held_out = table[table["split"] == "test"].sort_values("trial")
    movements = [
        tokens.tolist() for tokens in held_out["tokens"].iloc[:: max(len(held_out) // options.trials, 1)]
    ]
    classifier = IntentClassifier(tasks)
    result: dict[str, float] = {}
    free = read_yaml(QUESTIONS)
    meant = {question: task for task, questions in free["freely"].items() for question in questions}
    lists = {**free, "freely": list(meant), "held_out": refusal.test_templates}
    for name, questions in lists.items():
        new = [question for question in questions if question not in known]
        recognised = [classifier.task(question, askable(tasks, 1)) for question in new]
        refused: dict[str, int] = dict.fromkeys(new, 0)
        for movement in movements:
            for question, text in zip(new, answerer.generate([movement] * len(new), new), strict=True):
                refused[question] += refusal.parse(text) == REFUSED
        counts = np.array([refused[question] for question in new]) / len(movements)
        by_both = np.where([task is None for task in recognised], counts, 0.0)
        refusable = name in ("out_of_scope", "held_out")
        wrong = np.argsort(by_both if refusable else -by_both, kind="stable")[:8]
        print(f"{name}: {len(new)} questions x {len(movements)} movements; most often wrong:")
        print("\n".join(f"  {by_both[i]:.2f} {new[i]}  ({recognised[i]})" for i in wrong), flush=True)
        said = [task == meant[q] for q, task in zip(new, recognised, strict=True) if task and q in meant]
        result |= {f"{name}_right": round(float(np.mean(said)), 4)} if said else {}
        result |= {
            name: round(float(by_both.mean()), 4),
            f"{name}_recognised": round(float(np.mean([task is not None for task in recognised])), 4),
            f"language_{name}": round(float(counts.mean()), 4),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
