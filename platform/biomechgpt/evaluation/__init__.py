"""Evaluation: scores by participant, baselines, calibration, the report, the codebook page and the audit."""
