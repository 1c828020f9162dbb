"""Means over seeds with their uncertainty."""

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
