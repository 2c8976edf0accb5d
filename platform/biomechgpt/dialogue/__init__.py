"""Dialogue: questions and answers from annotations, as text and as token trees."""
