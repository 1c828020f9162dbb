"""Errors, atomic writing, locks, processes, GPUs and live histories: what every part may use. In no path's digest."""
