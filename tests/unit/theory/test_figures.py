import math

import pandas as pd
import pytest

from eqcollapse.report import theory as report
from eqcollapse.report.style import save
from eqcollapse.theory.stage import experiment

UFM = {
    "kind": "ufm",
    "num_classes": 4,
    "dim": 8,
    "per_class": 2,
    "layers": 4,
    "activation": "relu",
    "bias": "none",
    "loss": "mse",
    "lambda_weights": 0.01,
    "lambda_features": 0.01,
    "lambda_bias": 0.0,
    "lambda_scales": [1.0],
    "seeds": [0, 1, 2],
    "iterations": 400,
    "step": 0.1,
    "start": 0.4,
    "logged": 12,
}
PEELED = {
    "kind": "layer-peeled",
    "models": ["explicit", "deq"],
    "num_classes": 6,
    "dim": 8,
    "majority": [2, 3],
    "ratios": [1, 2, 20],
    "seeds": [0, 1],
    "bound_weight": 1.0,
    "bound_features": 1.0,
    "iterations": 400,
    "step": 0.5,
    "start": 0.3,
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theory")
    specs = {
        "deep": UFM,
        "plain": UFM | {"layers": 1},
        "free": UFM | {"layers": 2, "bias": "free"},
        "peeled-e1": PEELED,
        "peeled-e2": PEELED | {"bound_weight": 2.0, "bound_features": 2.0},
    }
    for name, spec in specs.items():
        experiment(spec, folder / f"{name}@0.csv")
    return {name: pd.read_csv(folder / f"{name}@0.csv") for name in specs}


def test_descent_has_a_line_a_layer_and_the_closed_form(frames):
    figure = report.descent(frames["deep"], width=7)
    loss, nc1, *_ = figure.axes
    assert len(nc1.lines) == 4
    assert loss.lines[-1].get_ydata()[0] == frames["deep"].optimum[0]
    assert [axis.get_xscale() for axis in figure.axes] == ["log"] * 4
    assert len(report.descent(frames["free"], width=7).axes[0].lines) == 1


def test_low_rank_shows_every_seed(frames):
    figure = report.low_rank(frames["deep"], width=7)
    assert len(figure.axes[0].lines) == 3 + 2
    assert len(figure.axes[1].lines) == 4


def test_layer_peeled_has_a_column_a_bound(frames):
    figure = report.layer_peeled(pd.concat([frames["peeled-e1"], frames["peeled-e2"]]), width=7)
    assert len(figure.axes) == 5 * 2
    assert all(axis.get_ylabel() for axis in figure.axes[::2])


def test_table_has_every_case_and_its_gap(frames):
    table = report.table(frames)
    assert set(table.experiment) == set(frames)
    plain = table[table.experiment == "plain"].iloc[0]
    assert plain.relative_gap == pytest.approx(plain.measured / plain.closed_form - 1)
    assert plain.status == "global"
    assert table[table.experiment == "free"].closed_form.isna().all()
    balanced = table[table.case == "deq, balanced"]
    assert len(balanced) == 2
    assert (balanced.relative_gap.abs() < 1e-3).all()
    gains = math.log(6) - balanced.closed_form
    assert balanced.range_gap.tolist() == pytest.approx(((balanced.measured - balanced.closed_form) / gains).tolist())
    assert table[~table.experiment.str.startswith("peeled")].range_gap.isna().all()


def test_figures_repeat_to_the_byte(frames, tmp_path):
    for name in ("one", "two"):
        save(report.descent(frames["deep"], width=7), [tmp_path / f"{name}.png"], dpi=50)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
