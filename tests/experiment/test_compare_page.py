"""The comparison page shows every task and variant, with seeds, intervals, cost and links."""

import re

from biomechgpt.experiment.compare import CompareSettings, _intervals
from biomechgpt.experiment.compare_page import _heat_map, comparison_page


def run(variant, seed, f1, seconds=100.0):
    scores = {"f1_weighted": f1, "f1_weighted_ci": [f1 - 0.1, f1 + 0.1], "n": 10, "participants": 8}
    tasks = {"activity": {"model": scores}, "my_new_task": {"model": scores | {"f1_weighted_ci": None}}}
    return {
        "variant": variant,
        "seed": seed,
        "model": "m",
        "evaluation": f"/x/artifacts/evaluation/{variant}{seed}",
        "data": "synthetic",
        "base": "a base",
        "seconds": seconds,
        "tasks": tasks,
    }


RUNS = [run("small", 0, 0.5), run("small", 1, 0.7), run("large", 0, 0.8, 7500.0), run("large", 1, 0.9)]
TASKS = ("activity", "my_new_task")


def row(name):
    runs = [run for run in RUNS if run["variant"] == name]
    values = {task: [run["tasks"][task]["model"]["f1_weighted"] for run in runs] for task in TASKS}
    return {"paper": None, "tasks": values}


ROWS = {name: row(name) for name in ("small", "large")}
PAIRED = [
    {"variant": "large", "against": "small", "task": "activity", "metric": "f1_weighted", "difference": 0.25,
     "difference_ci": [0.1, 0.4], "p": 0.01, "no_p": None, "p_holm": 0.02, "participants": 8}
]  # fmt: skip


def page(paired=PAIRED):
    settings = CompareSettings(variants={"small": {}, "large": {}}, seeds=[0, 1])
    metrics = dict.fromkeys(TASKS, "f1_weighted")
    uri = "/x/artifacts/comparison/c"
    return comparison_page(uri, ROWS, paired, RUNS, metrics, _intervals(settings, RUNS))


def test_every_task_has_a_row_with_each_variant_its_interval_and_its_seeds():
    html = page()
    rows = html.split('class="forest-row"')[1:]
    assert [re.search(r'forest-name">([^<]+)<', row)[1] for row in rows] == ["Activity", "My new task"]
    for row in rows:
        assert row.count('class="dot small"') == 4
        assert "small: 0.60" in row
        assert "large: 0.85" in row
    assert "0.60 (0.50 to 0.70)" in rows[0]
    assert "(" not in rows[1].split("forest-text")[1].split("<small>")[0]  # no seed has an interval


def test_the_heat_map_has_a_cell_for_each_variant_and_task():
    def difference(variant, task, value, interval):
        return PAIRED[0] | {"variant": variant, "task": task, "difference": value, "difference_ci": interval}

    paired = [
        difference("without a", "activity", 0.25, [0.1, 0.4]),
        difference("without a", "my_new_task", -0.5, [-1.0, 0.1]),
        difference("a alone", "activity", None, None),
    ]
    heat = _heat_map(paired, dict.fromkeys((*TASKS, "never_compared"), "f1_weighted"))
    assert heat["tasks"] == ["activity", "my_new_task"]
    assert heat["rows"] == [
        {
            "variant": "without a",
            "cells": [
                {"difference": 0.25, "sure": True, "strength": 0.5},
                {"difference": -0.5, "sure": False, "strength": -1.0},
            ],
        },
        {"variant": "a alone", "cells": [None, None]},
    ]
    assert _heat_map(paired[:2], dict.fromkeys(TASKS, "f1_weighted")) is None  # one variant needs no map
    html = page(paired)
    cells = re.findall(r'<td style="background: rgb\(([\d ]+) / (\d+)%\)">(.*?)</td>', html)
    assert cells == [("43 108 176", "28", "<b>+0.25</b>"), ("221 107 32", "55", "-0.50")]
    assert 'class="heat"' not in page()


def test_differences_cost_and_links_are_on_the_page():
    html = page()
    for text in (
        "0.10 to 0.40",
        "0.0200",
        "2 h 5 min",
        "2 min",
        'href="../../evaluation/large0/report.html"',
    ):
        assert text in html
    assert "synthetic" in html
    assert not {"nan", "None", "Undefined"} & set(re.split(r"[\s<>]", html))
