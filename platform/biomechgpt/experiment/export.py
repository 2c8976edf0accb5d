"""Exports a model with its model card: the results of an evaluation beside the merged checkpoint."""

from collections.abc import Mapping
from typing import Any

from biomechgpt.core.artifact import Artifact
from biomechgpt.core.settings import InputError


def export_with_card(model: Artifact, root: str, evaluation: Artifact | None = None) -> Artifact:
    """The `checkpoint` artifact of a model (`language.export.export_model`), with the model card as `README.md`.

    evaluation: of this model; its results go into the card. Raises InputError if it is of another model.
    """
    from biomechgpt.language.export import export_model

    metrics: Mapping[str, Any] = {}
    if evaluation is not None:
        evaluated = evaluation.input("answers").manifest["inputs"]["model"]["fingerprint"]
        if evaluated != model.fingerprint:
            raise InputError(
                f"{evaluation.uri}: expected an evaluation of model {model.fingerprint}, found one of {evaluated}"
            )
        metrics = evaluation.read_json("metrics.json")["tasks"]
    return export_model(
        model, root, model_card(model, metrics), {"evaluation": evaluation} if evaluation else {}
    )


def model_card(model: Artifact, metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown. metrics: {task: {source: scores}} of an evaluation, or empty."""
    import jinja2

    from biomechgpt.evaluation.metrics import METRICS, main_score
    from biomechgpt.evaluation.statistics import sources
    from biomechgpt.questions.dataset import read_tasks

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biomechgpt.experiment", "."), trim_blocks=True, lstrip_blocks=True
    )

    def number(scores: Mapping[str, Any] | None) -> str:
        value = main_score(dict(scores))[1] if scores else None
        return "-" if value is None else f"{value:.2f}"

    def metric(by_source: Mapping[str, Any]) -> str:
        return METRICS[main_score(by_source["model"])[0]].label

    shown = [source for source in sources() if any(source in by for by in metrics.values())]
    return environment.get_template("model_card.md.j2").render(
        model=model,
        bundle=model.read_json("bundle.json"),
        tasks=read_tasks(model.uri),
        metrics=metrics,
        sources=shown,
        labels=sources(),
        number=number,
        metric=metric,
    )
