"""How much motion tokens change if only the laboratory changes.

    python benchmarks/studies/laboratories.py [--tokenizer URI] [--people N]

The same simulated movements are recorded in two laboratories each, which differ in zero angles, ranges, noise and
joints. Prints the share of equal motion tokens at the same time, and the distance between their histograms (0: the
same, 1: nothing in common), beside those of the same movement in an exact laboratory and of another trial of the
same person. The last line is JSON.
"""

import argparse
import json
from itertools import islice

import numpy as np

from biomechgpt.answering.bundle import ModelBundle
from biomechgpt.answering.library import find_model
from biomechgpt.motion.trial import Trial
from biomechgpt.simulator import SimulatorSettings, participants, trials
from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer


def recorded(people: int, rate_hz: float, **laboratories: float) -> dict[tuple[str, int], Trial]:
    """{(participant, number): trial} of the first trials of some people, in these laboratories."""
    settings = SimulatorSettings.model_validate({"scale": 0.3, "seed": 11, "laboratories": laboratories})
    return {
        (person.name, k): t
        for person in participants(settings)[:people]
        for k, t in enumerate(islice(trials(settings, person, rate_hz), 3))
    }


def compare(first: list[np.ndarray], second: list[np.ndarray], codes: int) -> dict[str, float]:
    """Mean share of equal tokens, and mean distance between histograms, of pairs of token sequences."""
    equal, distance = [], []
    for a, b in zip(first, second, strict=True):
        n = min(len(a), len(b))
        equal.append(np.mean(a[:n] == b[:n]))
        one, other = (np.bincount(x, minlength=codes) / len(x) for x in (a, b))
        distance.append(0.5 * np.abs(one - other).sum())
    return {"equal": round(float(np.mean(equal)), 3), "distance": round(float(np.mean(distance)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", help="URI of a tokenizer artifact; the demo's by default")
    parser.add_argument("--people", type=int, default=30)
    options = parser.parse_args()
    tokenizer = MotionTokenizer.load(options.tokenizer or ModelBundle(find_model("demo")).motion_tokenizer)
    versions = {
        "here": recorded(options.people, tokenizer.frame_rate_hz, seed=1),
        "elsewhere": recorded(options.people, tokenizer.frame_rate_hz, seed=2),
        "exact": recorded(options.people, tokenizer.frame_rate_hz, variety=0, absent=0),
    }
    tokens = {
        name: dict(
            zip(
                made,
                (
                    codes[tokenizer.n_posture :]
                    for codes in tokenizer.encode(
                        [t.angles_rad for t in made.values()], [t.joint_mask for t in made.values()]
                    )
                ),
                strict=True,
            )
        )
        for name, made in versions.items()
    }
    codes = tokenizer.layout.codes
    keys = list(tokens["here"])
    others = [(name, (k + 1) % 3) for name, k in keys]
    pairs = {
        "another laboratory": ("elsewhere", keys),
        "an exact laboratory": ("exact", keys),
        "another trial of the person": (
            "here",
            [key if key in tokens["here"] else keys[0] for key in others],
        ),
    }
    result = {
        name: compare([tokens["here"][k] for k in keys], [tokens[where][k] for k in second], codes)
        for name, (where, second) in pairs.items()
    }
    for name, figures in result.items():
        print(f"{name}: {figures['equal']:.3f} of the tokens equal, distance {figures['distance']:.3f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
