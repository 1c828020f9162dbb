"""Figures: what is in them, and that they are the same bytes each time."""
