import csv

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec
from eqcollapse.theory.job import experiment

UFM = {
    "kind": "ufm",
    "num_classes": 3,
    "dim": 5,
    "per_class": 4,
    "layers": 2,
    "activation": "identity",
    "bias": "none",
    "loss": "mse",
}
UFM |= {
    "lambda_weights": 0.01,
    "lambda_features": 0.01,
    "lambda_bias": 0.0,
    "lambda_scales": [1.0, 2.0],
    "seeds": [0, 1],
}
UFM |= {"iterations": 40, "step": 0.1, "start": 0.4, "logged": 5}
PEELED = {
    "kind": "layer_peeled",
    "models": ["explicit", "deq"],
    "num_classes": 4,
    "dim": 6,
    "majority": [2],
    "ratios": [1, 10],
}
PEELED |= {
    "seeds": [0, 1],
    "bound_weight": 1.0,
    "bound_features": 1.0,
    "iterations": 30,
    "step": 0.3,
    "start": 0.3,
}


def run(spec, output, progress=None):
    kind = UfmSpec if spec["kind"] == "ufm" else LayerPeeledSpec
    experiment(kind.model_validate(spec), output, progress=progress)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_ufm_has_a_row_a_run_and_logged_iteration(tmp_path):
    run(UFM, tmp_path / "b-figure-3@abc.csv")
    table = rows(tmp_path / "b-figure-3@abc.csv")
    iterations = sorted({int(row["iteration"]) for row in table})
    assert iterations[0] == 0
    assert iterations[-1] == 40
    keys = [(float(r["lambda_scale"]), int(r["seed"]), int(r["iteration"])) for r in table]
    assert keys == [(scale, seed, t) for scale in (1.0, 2.0) for seed in (0, 1) for t in iterations]
    last = table[-1]
    assert {"nc1_1", "nc2_2", "nc3_2", "rank_2"} <= set(last)
    assert float(last["gap"]) == float(last["loss"]) - float(last["optimum"])
    assert last["lower"] == ""


def test_a_scale_multiplies_every_lambda(tmp_path):
    spec = UFM | {"bias": "regularised", "lambda_bias": 0.04, "lambda_features": 0.02, "lambda_weights": [0.01, 0.03]}
    lambdas = {"lambda_bias": 0.08, "lambda_features": 0.04, "lambda_weights": [0.02, 0.06], "lambda_scales": [1.0]}
    run(spec, tmp_path / "scaled@a.csv")
    run(spec | lambdas, tmp_path / "as-they-are@a.csv")
    scaled = [row for row in rows(tmp_path / "scaled@a.csv") if row["lambda_scale"] == "2.0"]
    plain = rows(tmp_path / "as-they-are@a.csv")
    assert len(scaled) == len(plain) > 0
    for one, other in zip(scaled, plain, strict=True):
        for quantity in ("loss", "optimum", "nc1_1", "nc2_2"):
            assert float(one[quantity]) == pytest.approx(float(other[quantity]), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("spec", [UFM, PEELED])
def test_it_keeps_to_one_thread_and_gives_back_the_others(spec, tmp_path):
    """Of torch, and of what multiplies matrices for NumPy."""
    found = []

    def look(line):
        found.append(
            (torch.get_num_threads(), *(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"))
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            run(spec, tmp_path / "x@a.csv", progress=look)
            assert {count for counts in found for count in counts} == {1}
            look("afterwards")
            assert set(found[-1]) == {2}
    finally:
        torch.set_num_threads(threads)


def test_layer_peeled_has_a_row_a_run(tmp_path):
    run(PEELED, tmp_path / "peeled@abc.csv")
    table = rows(tmp_path / "peeled@abc.csv")
    keys = [(r["model"], int(r["majority"]), float(r["ratio"]), int(r["seed"])) for r in table]
    assert keys == [(m, 2, ratio, s) for m in ("explicit", "deq") for ratio in (1.0, 10.0) for s in (0, 1)]
    assert all(float(r["gap"]) > -1e-9 for r in table)


@pytest.mark.parametrize("spec", [UFM, PEELED])
def test_two_runs_give_the_same_bytes(spec, tmp_path):
    told = []
    run(spec, tmp_path / "one@a.csv", progress=told.append)
    run(spec, tmp_path / "two@a.csv")
    assert (tmp_path / "one@a.csv").read_bytes() == (tmp_path / "two@a.csv").read_bytes()
    assert told


def test_a_diverging_experiment_is_named_and_writes_nothing(tmp_path):
    with pytest.raises(EqcollapseError, match=r"experiment b-figure-3: .*iteration \d+.*`step`.*`start`"):
        run(UFM | {"start": 30.0, "iterations": 200}, tmp_path / "b-figure-3@abc.csv")
    assert list(tmp_path.iterdir()) == []
