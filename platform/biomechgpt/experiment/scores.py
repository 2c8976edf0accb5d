"""A model's answers to its own cohort's questions, and its scores on held-out participants."""

from collections.abc import Mapping, Sequence
from typing import Any

from biomechgpt.answering.batch import make_answers
from biomechgpt.answering.settings import BatchAnswerSettings
from biomechgpt.core import artifact
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.evaluate import make_evaluation
from biomechgpt.evaluation.settings import EvaluationSettings


def own_answers(model: Artifact, settings: BatchAnswerSettings, root: str) -> Artifact:
    """A model's answers to its own cohort's questions of `settings.splits`."""
    return make_answers(model, model.input("questions"), model.input("tokens"), settings, root)


def measure(
    model: Artifact, answers: BatchAnswerSettings, evaluation: EvaluationSettings, root: str
) -> Artifact:
    """The evaluation of a model's answers to the questions of its own cohort, for the splits `answers.splits`."""
    return make_evaluation(own_answers(model, answers, root), evaluation, root)


def validate(model: Artifact, root: str) -> dict[str, Any]:
    """A model's scores on validation participants, never on those of the test split.

    score: mean of `tasks`. An undefined or negative r counts as 0.
    tasks: {task: weighted F1 or Pearson r}.
    model: its URI.
    data: provenance of its training data.
    seconds: that the model and all that it was made from took, and these scores.
    validation_loss: the lowest in fine-tuning; None if it was not measured.
    core_hours, gpu_hours: that the trainings held, of all that the model was made from. None: not all counted them.
    """
    evaluation = measure(
        model, BatchAnswerSettings(splits=["validation"]), EvaluationSettings(baselines=False), root
    )
    scores, chain = evaluation.metrics, artifact.chain(evaluation)
    score = sum(max(value or 0.0, 0.0) for value in scores.values()) / len(scores)
    return {
        "score": score,
        "tasks": scores,
        "model": model.uri,
        "data": model.provenance,
        "seconds": round(sum(made.manifest["seconds"] for made in chain), 1),
        "validation_loss": model.metrics.get("validation_loss"),
        "core_hours": _hours(chain, "seconds_cores"),
        "gpu_hours": _hours(chain, "seconds_gpus"),
    }


def ran_all_seeds(trial: Mapping[str, Any]) -> bool:
    """Whether a trial of a sweep, a row of its `trials.json`, neither failed nor was stopped early."""
    # Older sweeps have no entry `stopped_after`.
    return trial["score"] is not None and trial.get("stopped_after") is None


def mean_score(runs: Sequence[Mapping[str, Any]]) -> float:
    """Mean over seeds of what `validate` gave."""
    return sum(float(run["score"]) for run in runs) / len(runs)


def _hours(chain: list[Artifact], seconds: str) -> float | None:
    """Sum of a metric of trainings, in hours. A model repeats its adapter's metrics, so it does not count."""
    trained = [made.metrics for made in chain if made.kind != "model" and "seconds_training" in made.metrics]
    if not all(seconds in metrics for metrics in trained):
        return None  # made before it was counted
    return sum(float(metrics[seconds]) for metrics in trained) / 3600
