"""Unconstrained features models, extended and layer-peeled, with their closed-form optima."""
