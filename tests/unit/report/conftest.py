"""What tables and figures are tested on."""

import pandas as pd
import pytest

from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec
from eqcollapse.theory.job import experiment

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
    "kind": "layer_peeled",
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


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("theory")
    specs = {
        "deep": UFM,
        "plain": UFM | {"layers": 1},
        "free": UFM | {"layers": 2, "bias": "free"},
        "scales": UFM | {"lambda_scales": [1.0, 2.0]},
        "peeled-e1": PEELED,
        "peeled-e2": PEELED | {"bound_weight": 2.0, "bound_features": 2.0},
    }
    for name, spec in specs.items():
        kind = UfmSpec if spec["kind"] == "ufm" else LayerPeeledSpec
        experiment(kind.model_validate(spec), folder / f"{name}@0.csv")
    return {name: pd.read_csv(folder / f"{name}@0.csv") for name in specs}


@pytest.fixture
def solver_rows() -> pd.DataFrame:
    """Rows of accuracy.csv: four DEQs, of which the second seed at KA = 3 does not converge."""
    return pd.DataFrame(
        [
            {"dataset": "digits", "split": split, "model": "deq", "seed": seed, "epoch": epoch, "solver_steps": 9.0}
            | {"solver_converged": 0.5 if (split, seed) == ("ka3-r10", 1) else 1.0, "solver_residual": 1e-3}
            | {"solver_spectral_radius": 0.8}
            for split in ("balanced", "ka3-r10")
            for seed in (0, 1)
            for epoch in (1, 2)
        ]
    )
