"""Means over seeds with their uncertainty."""

import math

import numpy as np
from scipy import stats


def mean_and_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the mean and half the width of its `level` confidence interval (Student's t); nan for one value."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan")
    quantile = stats.t.ppf(0.5 + level / 2, len(values) - 1)
    return mean, float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def with_interval(mean: float, half: float, signed: bool = False) -> str:
    """Return `mean ± half` to two digits, as tables show it; the mean alone where there is no interval (nan)."""
    text = f"{mean:+.2f}" if signed else f"{mean:.2f}"
    return text if math.isnan(half) else f"{text} ± {half:.2f}"
