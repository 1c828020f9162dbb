"""What the solver figure draws, from made-up results."""

from eqcollapse.report.config import Figures, RunsFigure
from eqcollapse.report.figures.solver import solver_figure

SPEC = RunsFigure(
    kind="solver",
    splits={"digits": ["balanced", "ka3-r10"]},
    models=["deq"],
    seeds=[0, 1],
    style=Figures(dpi=50, width=7.0),
)


def test_the_solver_figure_counts_samples_at_the_limit(solver_rows):
    axes = solver_figure(solver_rows, SPEC).axes
    assert axes[1].lines[1].get_ydata().tolist() == [25.0, 25.0]
    assert axes[3].lines[0].get_ydata().tolist() == [0.8, 0.8]
