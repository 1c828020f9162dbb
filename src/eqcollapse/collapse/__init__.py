"""Neural collapse, measured: streaming moments, NC1 to NC4 pooled and by group, target frames, probes.

A library of its own: it knows torch, and nothing of studies, files' names or Snakemake. Definitions are
in docs/reference/metrics.md.
"""

from eqcollapse.collapse.features import Measured, measure
from eqcollapse.collapse.frames import orthogonal_frame, seli, simplex_etf, structure_error
from eqcollapse.collapse.metrics import COLUMNS, Metrics, class_metrics, collapse_metrics
from eqcollapse.collapse.moments import Moments
from eqcollapse.collapse.presets import PRESETS
from eqcollapse.collapse.probes import Probes

__all__ = [
    "COLUMNS",
    "PRESETS",
    "Measured",
    "Metrics",
    "Moments",
    "Probes",
    "class_metrics",
    "collapse_metrics",
    "measure",
    "orthogonal_frame",
    "seli",
    "simplex_etf",
    "structure_error",
]
