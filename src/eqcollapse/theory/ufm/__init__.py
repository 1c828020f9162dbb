"""Unconstrained features models and their extensions (Tirer & Bruna 2022): descents and closed forms."""
