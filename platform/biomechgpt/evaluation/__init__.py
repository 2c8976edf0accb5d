"""Evaluation: answers measured by participant, beside XGBoost and chance, and the report of it."""

from biomechgpt.evaluation.evaluate import EvaluationSettings, make_evaluation
from biomechgpt.evaluation.report import paper, summary, write_report

__all__ = ["EvaluationSettings", "make_evaluation", "paper", "summary", "write_report"]
