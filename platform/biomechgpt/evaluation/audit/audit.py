"""The audit artifact of a model: audit.json and a page, audit.html."""

import logging
from typing import Any

from biomechgpt.answering.conformal import COVERAGE
from biomechgpt.core import artifact, cluster, storage
from biomechgpt.core.artifact import Artifact
from biomechgpt.evaluation.audit.settings import AuditModelSettings, AuditSettings

logger = logging.getLogger("biomechgpt")

VERSION = 2
PAGE, RESULTS = "audit.html", "audit.json"


def make_audit(model: Artifact, settings: AuditSettings, root: str) -> Artifact:
    """The `audit` artifact of a model: `audit.json` ({check: results}) and `audit.html`, which shows them.

    Raises InputError if `settings.cohort` is not a cohort, or if the model cannot read its tokens.
    """
    inputs = {"model": model}
    if settings.cohort is not None:
        inputs["cohort"] = artifact.load(settings.cohort, "cohort")

    def build(uri: str) -> dict[str, Any]:
        results = _results(model, settings, root)
        storage.write_json(storage.join(uri, RESULTS), results)
        storage.write_bytes(storage.join(uri, PAGE), audit_page(model, settings, results).encode())
        return {"checks": sorted(results)}

    content = settings.model_dump(mode="json", exclude={"cohort"})
    return artifact.make("audit", VERSION, content, inputs, build, root)


def _results(model: Artifact, settings: AuditSettings, root: str) -> dict[str, Any]:
    from biomechgpt.answering.answerer import Answerer
    from biomechgpt.evaluation.audit.coverage import audit_coverage
    from biomechgpt.evaluation.audit.explanations import audit_explanations
    from biomechgpt.evaluation.audit.held_out import read_held_out
    from biomechgpt.evaluation.audit.ood import audit_ood
    from biomechgpt.evaluation.audit.scope import audit_scope
    from biomechgpt.tokenizer.motion_tokenizer import MotionTokenizer

    results: dict[str, Any] = {}
    # Coverage comes first: other processes answer for it, and need the memory that this one's model takes later.
    if "coverage" in settings.checks:
        logger.info("audit: coverage")
        cluster.connect()
        results["coverage"] = audit_coverage(model, settings, root)
    remaining = [check for check in ("ood", "scope", "explanations") if check in settings.checks]
    if not remaining:
        return results
    answerer = Answerer.load(model.uri)
    tokenizer = MotionTokenizer.load(model.path("motion_tokenizer"))
    movements = read_held_out(model, settings.trials)
    for check in remaining:
        logger.info("audit: %s", check)
        if check == "ood":
            results[check] = audit_ood(answerer, tokenizer, movements, settings.seed)
        elif check == "scope":
            angles, masks = [m.angles_rad for m in movements], [m.joint_mask for m in movements]
            results[check] = audit_scope(answerer, answerer.tokenize(tokenizer, angles, masks))
        else:
            questions = _questions(model, answerer)
            results[check] = audit_explanations(answerer, tokenizer, movements, questions, settings.seed)
    return results


def _questions(model: Artifact, answerer: Any) -> dict[str, list[tuple[str, str]]]:
    """{trial: [(task, question)]} of the model's own test participants, for tasks about one movement."""
    from biomechgpt.questions.dataset import read_questions
    from biomechgpt.questions.tasks import PredictionTask

    questions: dict[str, list[tuple[str, str]]] = {}
    for row in read_questions(model.input("questions")):
        if row["split"] == "test" and isinstance(answerer.tasks[row["task"]], PredictionTask):
            questions.setdefault(row["trial"], []).append((row["task"], row["question"]))
    return questions


def audit_page(model: Artifact, settings: AuditSettings, results: dict[str, Any]) -> str:
    """The page that shows the results of an audit."""
    from biomechgpt.evaluation.report import render
    from biomechgpt.language.tiny_model import is_stand_in

    return render(
        "audit/audit.html.j2",
        model=model,
        stand_in=is_stand_in(model.metrics["base"]),
        settings=settings,
        results=results,
        coverage=COVERAGE,
    )


def run_audit(settings: AuditModelSettings) -> Artifact:
    """Audit a model: the function of `biomechgpt audit` and of jobs/audit.py."""
    cluster.connect()
    return make_audit(artifact.load(settings.model, "model"), settings, settings.root)


def show_audit(audit: Artifact) -> str:
    """The main results of an audit as text, one line for each."""
    results, lines = audit.read_json(RESULTS), [f"page: {audit.path(PAGE)}"]
    for task, row in results.get("coverage", {}).items():
        value = (
            "too few participants"
            if row["coverage"] is None
            else f"{row['coverage']:.2f} (target {COVERAGE})"
        )
        lines.append(f"coverage      {task:24} {value}, {row['participants']} participants")
    for name, row in results.get("ood", {}).items():
        lines.append(f"ood           {name:24} {row['refused']:.0%} refused")
    for name, row in results.get("scope", {}).items():
        lines.append(
            f"scope         {name:24} {row['refused']:.0%} refused, {row['mapped']:.0%} mapped to a task"
        )
    for name, ratio in results.get("explanations", {}).get("ratios", {}).items():
        value = "undefined" if ratio is None else f"{ratio:.1f} times a random deletion"
        lines.append(f"explanations  {name:24} {value}")
    return "\n".join(lines)
