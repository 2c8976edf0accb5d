"""A Jupyter notebook beside the report: it loads the answers table and redraws the report's figures.

It reads `answers.parquet` of its own folder, so that it works wherever the folder is copied. Writing it needs no
Jupyter. Knows nothing about models.
"""

import json
from typing import Any

FILE = "report.ipynb"

_CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# Figures of the report

`answers.parquet` has a row for each question and each source of an answer: the model or a baseline. All scores and
figures of `report.html` come from it. Change a cell to draw another figure.

To open the notebook: `pip install jupyterlab`, then `jupyter lab report.ipynb`, where BiomechGPT is installed.""",
    ),
    (
        "code",
        """%matplotlib inline
from biomechgpt.evaluation import answers_table, figures, report, statistics
from biomechgpt.motion import plots

answers, about = answers_table.read("answers.parquet")
answers.head()""",
    ),
    ("markdown", "Scores of the model beside the baselines. `metrics` is the content of `metrics.json`."),
    (
        "code",
        """metrics = statistics.compute_metrics(answers, about)
print(report.summary(metrics))""",
    ),
    ("markdown", "Answers of the model against annotations."),
    (
        "code",
        """with plots.style():
    tasks = answers_table.tasks_of(about)
    rows_of = dict(tuple(answers.groupby("task")))
    for task in metrics["tasks"]:
        display(figures.task_figure(tasks[task], rows_of[task]))""",
    ),
    ("markdown", "Errors by participant."),
    (
        "code",
        """with plots.style():
    for task in metrics["tasks"]:
        figure = figures.participant_figure(tasks[task], rows_of[task])
        if figure:
            display(figure)""",
    ),
    ("markdown", "Calibration, and the error rate if only the most confident questions are answered."),
    (
        "code",
        """with plots.style():
    for task, calibration in figures.drawn_calibrations(metrics).items():
        display(figures.calibration_figure(task, calibration))""",
    ),
    ("markdown", "Reconstruction error of the motion tokenizer."),
    (
        "code",
        """rmse_deg = about["tokenizer"].get("rmse_deg_by_joint")
if rmse_deg:
    with plots.style():
        display(figures.joint_figure(rmse_deg))""",
    ),
)


def notebook() -> bytes:
    """The notebook's content (nbformat 4.5)."""
    cells = []
    for number, (kind, text) in enumerate(_CELLS):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    content = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return (json.dumps(content, indent=1) + "\n").encode()
