"""Errors, atomic writing, locks and GPUs: what every part may use. In no path's digest."""
