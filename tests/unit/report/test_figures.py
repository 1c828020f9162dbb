"""Figures: what is in them, and that they are the same bytes each time."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from eqcollapse.report import figures
from eqcollapse.report.curves import curves
from projects import ROOT

SPEC = {
    "kind": "curves",
    "models": ["explicit", "deq"],
    "seeds": [0, 1],
    "splits": {"digits": ["balanced", "ka3-r10"]},
    "style": {"dpi": 50, "width": 7.0},
}


@pytest.fixture
def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    cells = [
        {"dataset": "digits", "split": split, "model": model, "seed": seed, "epoch": epoch}
        for split in ("balanced", "ka3-r10")
        for model in ("explicit", "deq")
        for seed in (0, 1)
        for epoch in (1, 2, 5, 10)
    ]
    collapse = pd.DataFrame(
        [
            {**cell, "layer": "features"}
            | {f"sun2024_nc{n}": (1 + cell["seed"]) / cell["epoch"] ** n for n in (1, 2, 3)}
            for cell in cells
        ]
    )
    accuracy = pd.DataFrame([{**cell, "test_accuracy": 1 - 1 / (1 + cell["epoch"])} for cell in cells])
    return collapse, accuracy


def test_lines_are_means_over_seeds(frames):
    figure = curves(*frames, SPEC)
    axes = figure.axes
    assert len(axes) == 8
    nc1 = axes[1].lines
    assert [line.get_label() for line in nc1] == ["Explicit", "DEQ"]
    assert list(nc1[0].get_xdata()) == [1, 2, 5, 10]
    assert list(nc1[0].get_ydata()) == pytest.approx([1.5, 0.75, 0.3, 0.15])
    assert axes[1].get_yscale() == "log"
    assert list(axes[0].lines[1].get_ydata())[-1] == pytest.approx(100 * 10 / 11)


def test_the_same_data_are_the_same_bytes(frames, tmp_path):
    inputs = [str(tmp_path / name) for name in ("collapse.csv", "accuracy.csv")]
    for path, frame in zip(inputs, frames, strict=True):
        frame.to_csv(path, index=False)
    drawn = []
    for name in ("first", "second"):
        outputs = [tmp_path / f"{name}.{suffix}" for suffix in ("pdf", "png", "svg")]
        figures.run(SPEC, inputs, outputs)
        drawn.append([path.read_bytes() for path in outputs])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_the_backend_that_a_notebook_sets_is_not_asked_for(frames, tmp_path, backend):
    """A command that a notebook starts inherits its variable, and matplotlib does not load with it."""
    for name, frame in zip(("collapse.csv", "accuracy.csv"), frames, strict=True):
        frame.to_csv(tmp_path / name, index=False)
    words = ["figure", "--digest", "0123456789", "--spec", json.dumps(SPEC), "--inputs", "collapse.csv", "accuracy.csv"]
    outputs = [f"drawn.{suffix}" for suffix in ("pdf", "png", "svg")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": backend}
    command = [sys.executable, "-m", "eqcollapse", *words, "--outputs", *outputs]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all((tmp_path / name).stat().st_size for name in outputs)
