"""The results of the BiomechGPT paper, shown beside ours for scale."""

from importlib import resources

import yaml

Results = dict[str, dict[str, list[float]]]
"""{row of the paper's tables: {task: [mean, standard deviation of three runs]}}; some have no deviation."""


def paper() -> Results:
    """The results of both tables of the paper, in its order of tasks."""
    text = resources.files("biomechgpt.evaluation").joinpath("paper.yaml").read_text()
    result: dict[str, dict[str, list[float]]] = yaml.safe_load(text)["rows"]
    return result
