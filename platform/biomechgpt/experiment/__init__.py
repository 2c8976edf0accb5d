"""Experiments: whole paths from recordings to a report."""
