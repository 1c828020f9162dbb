"""Every figure: which function draws it, and the files that it is saved to."""

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from eqcollapse.report.config import FeaturesFigure, RunsFigure, StagesFigure, TheoryFigure
from eqcollapse.report.figures import curves, features, solver, stages, theory
from eqcollapse.report.figures.style import save

Draw = Callable[..., Figure]
"""The function of one kind of figure: it takes the spec and the files to read."""


def run(spec: RunsFigure | StagesFigure | FeaturesFigure | TheoryFigure, inputs: list[str], outputs: list[str]) -> None:
    """Draw the figure of `spec` from the files `inputs` to `outputs` (pdf, png, svg)."""
    save(KINDS[spec.kind](spec, inputs), outputs, spec.style.dpi)


def _theory(draw: Callable[..., Figure]) -> Draw:
    def from_files(spec: TheoryFigure, inputs: list[str]) -> Figure:
        return draw(pd.concat([pd.read_csv(path) for path in inputs]), width=spec.style.width)

    return from_files


KINDS: dict[str, Draw] = {
    "curves": curves.draw,
    "features": features.draw,
    "solver": solver.draw,
    "stages": stages.draw,
    "descent": _theory(theory.descent),
    "low-rank": _theory(theory.low_rank),
    "layer_peeled": _theory(theory.layer_peeled),
}
