"""How every figure looks, and how it is saved to the same bytes each time."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from eqcollapse.runtime.files import replacing

# Okabe and Ito's colours, told apart by colour-blind eyes; lightness and line style tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

SETTINGS: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "savefig.bbox": "standard",
    "svg.fonttype": "path",
    "svg.hashsalt": "eqcollapse",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
_METADATA = {
    ".pdf": {"CreationDate": None, "ModDate": None},
    ".png": {"Software": None},
    ".svg": {"Date": None},
}


def new_figure(rows: int, columns: int, *, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure of `width` x `height` inches and its axes (an array rows x columns)."""
    _start_from_defaults()
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **options)


def _start_from_defaults() -> None:
    """Set matplotlib's own defaults and SETTINGS over them: nothing of a user's matplotlibrc stays."""
    matplotlib.rcdefaults()  # which leaves the backend as it is
    matplotlib.rcParams.update(SETTINGS)


def look(position: int) -> dict:
    """Return colour, line and marker of the `position`-th series."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "linestyle": LINES[position % len(LINES)],
        "marker": MARKERS[position % len(MARKERS)],
    }


def band(axis: Axes, values: pd.DataFrame, style: dict, label: str | None) -> None:
    """Draw a line and its band over the index of `values`, whose columns are the middle, lowest and highest value."""
    middle, low, high = (values[column] for column in values)
    axis.plot(values.index, middle, label=label, **style)
    axis.fill_between(values.index, low, high, color=style["color"], alpha=0.2, linewidth=0)


def log_scale(axes: Axes, which: str) -> None:
    """Make the `which` ("x" or "y") axis logarithmic, with plain numbers where less than two decades show.

    To be called after plotting: what is drawn decides on the ticks.
    """
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    if low > 0 and high / low < 100:
        locator = LogLocator(subs=(1, 2, 5) if high / low > 4 else range(1, 10))
        seen = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        axis.set_major_locator(locator if len(seen) > 2 else MaxNLocator(4))  # one tick says nothing of the scale
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def save(figure: Figure, paths: Iterable[str | Path], dpi: int) -> None:
    """Save `figure` to each path (.pdf, .png or .svg) without dates, so that the bytes repeat; then close it."""
    with matplotlib.rc_context():
        _start_from_defaults()
        for path in map(Path, paths):
            with replacing(path) as temporary:
                figure.savefig(temporary, format=path.suffix[1:], dpi=dpi, metadata=_METADATA[path.suffix])
    plt.close(figure)
