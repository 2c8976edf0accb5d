"""The audit of one model: coverage, out-of-distribution detection, scope, explanations."""
