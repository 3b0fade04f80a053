"""Explanations and scores as tables, in every schema."""
