"""Evaluation: answers measured by participant, beside baselines; the report of it, and the codebook's."""

from biomechgpt.evaluation.codebook import write_codebook
from biomechgpt.evaluation.evaluate import EvaluationSettings, make_evaluation
from biomechgpt.evaluation.report import paper, summary, write_report

__all__ = ["EvaluationSettings", "make_evaluation", "paper", "summary", "write_codebook", "write_report"]
