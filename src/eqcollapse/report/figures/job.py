"""Every figure: which function draws it, and the files that it is saved to."""

import pandas as pd
from matplotlib.figure import Figure

from eqcollapse.report.figures import curves, features, solver, stages, theory
from eqcollapse.report.figures.style import save
from eqcollapse.runtime.errors import EqcollapseError


def run(spec: dict, inputs: list[str], outputs: list[str]) -> None:
    """Draw the figure of `spec` from the files `inputs` to `outputs` (pdf, png, svg)."""
    if spec["kind"] not in KINDS:
        raise EqcollapseError(f"--spec: kind: {spec['kind']!r} is not allowed: must be one of {', '.join(KINDS)}")
    save(KINDS[spec["kind"]](spec, inputs), outputs, spec["style"]["dpi"])


def _theory(draw):
    def from_files(spec: dict, inputs: list[str]) -> Figure:
        return draw(pd.concat([pd.read_csv(path) for path in inputs]), width=spec["style"]["width"])

    return from_files


KINDS = {
    "curves": curves.draw,
    "features": features.draw,
    "solver": solver.draw,
    "stages": stages.draw,
    "descent": _theory(theory.descent),
    "low-rank": _theory(theory.low_rank),
    "layer-peeled": _theory(theory.layer_peeled),
}
