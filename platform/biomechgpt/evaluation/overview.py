"""The first screen of a report: sentences made from the metrics, a forest plot, and what the model is not for.

Pure functions of metrics.json and an answers table. Knows nothing about files.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from biomechgpt.evaluation.baselines import BASELINES
from biomechgpt.evaluation.intervals import MIN_PARTICIPANTS
from biomechgpt.evaluation.metrics import METRICS, main_score
from biomechgpt.evaluation.statistics import MODEL, REFERENCES, competitors
from biomechgpt.questions.replies import task_title
from biomechgpt.questions.tasks import Tasks

UNINFORMATIVE_SET = 0.7
"""A prediction set with this share of all labels, or more, hardly rules anything out."""
UNINFORMATIVE_WIDTH = 2.8
"""An interval as wide as this many standard deviations of the truth, or wider, hardly narrows anything down.

The middle 90 % of a normal distribution are 3.3 standard deviations wide: knowing nothing needs no more.
"""
_SAME = 0.005
"""Scores that differ by less are shown as equal."""
_GUESSES = {
    "majority": "always giving the commonest answer",
    "chance": "a model trained on shuffled answers",
    "no correlation": "no relation at all",
}


@cache
def glossary() -> list[dict[str, str]]:
    """The entries of the glossary: term, name, text."""
    text = resources.files("biomechgpt.evaluation").joinpath("glossary.yaml").read_text()
    entries: list[dict[str, str]] = yaml.safe_load(text)
    return entries


def title(task: str) -> str:
    """A task's name as a heading: `falls_history` is Falls history."""
    words = task_title(task)
    return words[0].upper() + words[1:]


def full_name(text: str) -> str:
    """The full names of the abbreviations in a text, such as "TUG: timed up and go test"; empty without any."""
    names = {entry["term"]: entry["name"] for entry in glossary() if entry["term"].isupper()}
    return "; ".join(f"{word}: {names[word]}" for word in text.split() if word in names)


def sentences(metrics: Mapping[str, Any], about: Mapping[str, Any], participants: int) -> list[str]:
    """Three sentences: how many people the model was asked about, how it compares with simpler methods, and what it
    is not usable for.

    participants: number of people whom the model was asked about.
    """
    tasks = metrics["tasks"]
    kind = "synthetic" if "synthetic" in metrics["data"] else "recorded"
    people = f"{participants} {'person' if participants == 1 else 'people'}"
    who = f"{people} who {'was' if participants == 1 else 'were'} not used in training"
    origin = about.get("other_cohorts")
    if not origin or origin.get("unchecked") or origin.get("participants"):
        who = people
    questions = sum(by_source[MODEL]["n"] for by_source in tasks.values())
    first = (
        f"On {who}, the model answered {questions} questions of {len(tasks)} "
        f"kind{'s' * (len(tasks) != 1)} about {kind} movements."
    )
    judged = [name for name in tasks if _is_judged(tasks[name])]
    failed = {name: tasks[name][MODEL]["failed"] for name in judged if tasks[name][MODEL].get("failed")}
    second = ""
    if judged:
        second = f"It was better than guessing in {len(judged) - len(failed)} of {len(judged)} tasks"
        rivals = {name: best_competitor(tasks[name]) for name in judged}
        behind = [name for name, rival in rivals.items() if rival and _is_better(rival[2], tasks[name])]
        if any(rivals.values()):
            tested = sum(1 for rival in rivals.values() if rival)
            second += (
                f", but in {len(behind)} of {tested} the best of the simpler methods, each trained for one task, "
                "scored higher"
            )
        clear = [
            c["difference"]
            for c in metrics["comparisons"]
            if (rival := rivals.get(c["task"])) and rival[0] == c["against"]
            if c["p_holm"] is not None and c["p_holm"] < 0.05
        ]
        if metrics["comparisons"]:
            worse = sum(1 for difference in clear if difference < 0)
            second += (
                f" ({worse} of these differences {'is' if worse == 1 else 'are'} clear after adjustment for the "
                f"number of comparisons, and {len(clear) - worse} in favour of the model)"
            )
        second += "."
    if failed:
        reasons = listed(f"{task_title(name)} ({reason_in_words(reason)})" for name, reason in failed.items())
        third = f"It is not usable for {reasons}, and not for decisions about patients."
    else:
        third = "It is not usable for decisions about patients."
    return [sentence for sentence in (first, second, third) if sentence]


def reason_in_words(reason: str) -> str:
    """A reason of failure in plain words: "not above majority (0.65)" names no method that a reader knows."""
    relation, _, rest = reason.partition(" above " if reason.startswith("not above") else " reaches ")
    guess = next((words for name, words in _GUESSES.items() if rest.startswith(name)), rest)
    return f"{'no better than' if relation == 'not' else 'perhaps no better than'} {guess}"


def best_competitor(by_source: Mapping[str, Any]) -> tuple[str, str, float] | None:
    """(name, heading, score) of the simpler method with the best main score in a task; None without any."""
    metric, _ = main_score(by_source[MODEL])
    scores = [(name, by_source[name].get(metric)) for name in competitors() if name in by_source]
    known = [(name, score) for name, score in scores if score is not None]
    if not known:
        return None
    name, score = max(known, key=lambda pair: pair[1])
    return name, BASELINES[name].label, float(score)


def _is_better(score: float, by_source: Mapping[str, Any]) -> bool:
    value = main_score(by_source[MODEL])[1]
    return value is not None and score > value + _SAME


def _is_judged(by_source: Mapping[str, Any]) -> bool:
    """Whether a task's result can be compared with guessing."""
    metric, value = main_score(by_source[MODEL])
    has_reference = any(name in by_source for name in REFERENCES) or METRICS[metric].bounds == (-1.0, 1.0)
    return value is not None and has_reference


def forest(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the forest plot: of each task the model, the simpler methods, and the best guess.

    A row: title, note (the metric), scale (lowest and highest value), lines. A line: label, css, value, low, high,
    dots (further values, without an interval), text. `low` and `high` are None without an interval.
    """
    rows = []
    for name, by_source in metrics["tasks"].items():
        metric, value = main_score(by_source[MODEL])
        interval = by_source[MODEL].get(f"{metric}_ci")
        lines = [line("Model", "model", value, interval)]
        rival = best_competitor(by_source)
        if rival:
            others = [by_source[source].get(metric) for source in competitors() if source in by_source]
            dots = [score for score in others if score is not None and score != rival[2]]
            best = by_source[rival[0]]
            lines.append(
                line(f"Best simpler method: {rival[1]}", "rival", rival[2], best.get(f"{metric}_ci"), dots)
            )
        guesses = {source: by_source[source].get(metric) for source in REFERENCES if source in by_source}
        known = {source: score or 0.0 for source, score in guesses.items()}
        if known:
            guess = max(known, key=lambda source: known[source])
            lines.append(line(f"Guessing: {_GUESSES.get(guess, guess)}", "guess", known[guess], None))
        rows.append(row(title(name), METRICS[metric].label, lines))
    return rows


def row(title: str, note: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of a forest plot; its scale is 0 to 1, or wider if a value lies outside."""
    values = [v for line in lines for v in (line["value"], *line["dots"]) if v is not None]
    return {
        "title": title,
        "note": note,
        "lines": list(lines),
        "scale": (min(0.0, *values, 0.0), max(1.0, *values, 1.0)),
    }


def line(
    label: str, css: str, value: float | None, interval: Sequence[float] | None, dots: Sequence[float] = ()
) -> dict[str, Any]:
    """A line of a row of a forest plot, with its text."""
    low, high = interval or (None, None)
    text = "undefined" if value is None else f"{value:.2f}"
    if low is not None and high is not None:
        text += f" ({low:.2f} to {high:.2f})"
    return {
        "label": label, "css": css, "value": value, "low": low, "high": high, "dots": list(dots), "text": text,
    }  # fmt: skip


def fairness(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{"title", "note", "rows"}]: the subgroups of each task as rows of a forest plot, one row a column."""
    drawn: dict[str, dict[str, list[dict[str, Any]]]] = {}
    notes: dict[str, str] = {}
    for group in metrics["subgroups"]:
        label = f"{group['group']}: {group['participants']} {'person' if group['participants'] == 1 else 'people'}"
        lines = drawn.setdefault(group["task"], {}).setdefault(group["by"], [])
        lines.append(line(label, "model", group["value"], group["value_ci"]))
        notes[group["task"]] = METRICS[group["metric"]].label
    return [
        {
            "title": title(task),
            "note": notes[task],
            "rows": [row(by.replace("_", " "), notes[task], lines) for by, lines in columns.items()],
        }
        for task, columns in drawn.items()
    ]


def not_for(metrics: Mapping[str, Any], about: Mapping[str, Any], comments: Mapping[str, str]) -> list[str]:
    """What the model must not be used for, one sentence each. comments: of `set_comments`."""
    tasks = metrics["tasks"]
    said = [
        "Decisions about a person's diagnosis or treatment. This is research software, not a medical device."
    ]
    if "synthetic" in metrics["data"]:
        said.append("Statements about patients. All movements here are synthetic: a program made them.")
    if about.get("stand_in"):
        said.append("Judging Gemma 3. The language model is a small stand-in that was trained here.")
    for name, by_source in tasks.items():
        reason = by_source[MODEL].get("failed")
        if reason:
            said.append(f"{title(name)}: it was {reason_in_words(reason)}.")
        elif by_source[MODEL]["participants"] < MIN_PARTICIPANTS:
            people = by_source[MODEL]["participants"]
            said.append(f"{title(name)}: {people} test participants are too few to say anything.")
    if comments:
        said.append(
            f"Ruling out a label or a value in {listed(task_title(name) for name in comments)}: see Calibration."
        )
    said.append(
        "Movements unlike those that it learned from."
        if about.get("restraint", {}).get("unlike", {}).get("checked")
        else "Movements unlike those that it learned from. Whether it recognises these was not tested."
    )
    return said


def set_comments(metrics: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, str]:
    """{task: a comment} of the tasks whose prediction sets or intervals say next to nothing.

    rows: of the answers table.
    """
    comments = {}
    for name, by_source in metrics["tasks"].items():
        calibration = by_source[MODEL].get("calibration") or {}
        answers = rows[(rows["task"] == name) & (rows["source"] == MODEL)]
        if (size := calibration.get("set_size")) is not None:
            count = max((len(labels) for labels in answers["labels"] if labels is not None), default=0)
            if count and size / count >= UNINFORMATIVE_SET:
                comments[name] = (
                    f"its prediction sets hold {size:.1f} of {count} labels on average, so they rule out little"
                )
        if (width := calibration.get("width")) is not None:
            spread = float(answers["value_true"].std())
            if spread > 0 and width / spread >= UNINFORMATIVE_WIDTH:
                comments[name] = (
                    f"its intervals are {width / spread:.1f} standard deviations of the measured values wide, "
                    "so they narrow down little"
                )
    return comments


def units(tasks: Tasks) -> dict[str, str]:
    """{task: unit of its answers}; empty text for an answer without a unit."""
    return {name: task.answer_unit or "" for name, task in tasks.items()}


def duration(seconds: float) -> str:
    """Seconds for people: "36 min", "2 h 5 min", "40 s"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def listed(parts: Iterable[str]) -> str:
    """Parts as a list in a sentence: "a, b and c"."""
    *most, last = [*parts] or [""]
    return f"{', '.join(most)} and {last}" if most else last
