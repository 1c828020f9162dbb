"""What figure B-5 draws, from made-up results."""

import pandas as pd

from eqcollapse.report.config import StagesFigure
from eqcollapse.report.figures.stages import stages_figure

STYLE = {"dpi": 50, "width": 7.0}


def test_figure_5_has_a_line_a_stage_and_the_ufm_beside_it():
    rows = [
        {"dataset": "digits", "split": "balanced", "model": "mse", "seed": seed, "epoch": epoch, "layer": layer}
        | {f"tirer2022_{name}": 1.0 / epoch for name in ("nc1", "nc2_of", "nc3_of")}
        for seed in (0, 1)
        for epoch in (1, 10)
        for layer in ("stage-1", "stage-2", "features")
    ]
    frame = pd.DataFrame(rows)
    frame.loc[frame.layer != "features", "tirer2022_nc3_of"] = None
    theory = pd.DataFrame(
        [{"iteration": n, **{f"nc{m}_{i}": 1.0 / n for m in (1, 2, 3) for i in (1, 2)}} for n in (1, 9)]
    )
    runs = {"splits": {"digits": ["balanced"]}, "models": ["mse"], "seeds": [0, 1]}
    spec = StagesFigure.model_validate({**runs, "kind": "stages", "unbiased": ["mse"], "style": STYLE})
    axes = stages_figure(frame, theory, spec).axes
    assert [len(axis.lines) for axis in axes] == [3, 3, 1, 2, 2, 2]
    assert "orthogonal" in axes[1].get_title()
