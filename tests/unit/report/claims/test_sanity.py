"""Claims about collapse are not supported by networks that cannot have collapsed, nor by chance.

Networks are trained for real, on scikit-learn's digits by this project's own jobs, at a size that takes seconds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.datasets import load_digits

from eqcollapse.data.config import SplitSpec
from eqcollapse.data.splits import write_split
from eqcollapse.data.store import Dataset, write_dataset
from eqcollapse.report import metrics
from eqcollapse.report.answers import TEST, Answers, read_answers
from eqcollapse.report.claims import networks
from eqcollapse.report.claims.criteria import combined, corrected_together
from eqcollapse.report.claims.job import judged
from eqcollapse.report.config import ClaimsSpec, CollapseSpec, Runs
from eqcollapse.report.results import read
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import train
from equilibria import PLAIN, RESNET, equilibrium

MODELS = {"explicit": "explicit", "deq": "equilibrium"}
SEEDS = (0, 1, 2)
SPLITS = {"balanced": (None, None), "ka3-r4": (3, 4.0)}
EQUILIBRIUM = equilibrium(convergence={"share": 0.5, "action": "warn", "method": "broyden"})
STUDIES = {
    "at initialisation": {"lr": 1e-9, "epochs": [1, 2], "shuffled": False},
    "after one epoch": {"lr": 0.1, "epochs": [1], "shuffled": False},
    "with shuffled labels": {"lr": 0.1, "epochs": [1, 6], "shuffled": True},
    "trained": {"lr": 0.1, "epochs": [1, 16], "shuffled": False},
}


def digits(folder: Path, shuffled: bool) -> list[Path]:
    """Write 32 training and 20 test digits of each class; with `shuffled`, each has the label of another."""
    found = load_digits()
    images = np.round(found.images * 255 / 16).astype(np.uint8)[:, None]
    ranks = np.array([np.sum(found.target[:place] == label) for place, label in enumerate(found.target)])
    paths = [folder / "train.safetensors", folder / "test.safetensors"]
    for path, chosen in zip(paths, (ranks < 32, (ranks >= 32) & (ranks < 52)), strict=True):
        labels = found.target[chosen].astype(np.int64)
        labels = np.random.default_rng(0).permutation(labels) if shuffled else labels
        write_dataset(path, Dataset(images[chosen], labels, tuple("0123456789"), "digits"))
    return paths


def spec_of(split: str, model: str, seed: int, lr: float, epochs: list[int]) -> TrainSpec:
    network = {"width": 8, "stages": 2, "blocks": 1, "bias": True, "channels": None, "stem": "cifar", **RESNET}
    settings = {
        "epochs": epochs[-1], "batch_size": 32, "lr": lr, "momentum": 0.9, "weight_decay": 5e-4, "loss": "ce", **PLAIN,
        "schedule": {"kind": "constant", "every": 1, "factor": 0.1, "warmup": 0}, "augment": {"crop": 0, "flip": False},
        "evaluate": "snapshots", "precision": "float32", "threads": 1, "deterministic": True,
    }  # fmt: skip
    content = {
        "dataset": "digits", "split": split, "model": model, "seed": seed, "own": {}, "train": settings,
        "network": network | {"head": MODELS[model]}, "equilibrium": EQUILIBRIUM if model == "deq" else None,
        "snapshots": {"epochs": epochs, "layers": "features", "features_per_class": 1},
    }  # fmt: skip
    return TrainSpec.model_validate(content)


@pytest.fixture(scope="module", params=STUDIES)
def study(request, tmp_path_factory) -> tuple[str, list[str]]:
    """A study's name, and collapse.csv, accuracy.csv and answers of its runs: both models, each seed with its split."""
    folder, chosen = tmp_path_factory.mktemp("study"), STUDIES[request.param]
    data = digits(folder, chosen["shuffled"])
    runs = []
    for split, (majority, ratio) in SPLITS.items():
        for seed in SEEDS:
            content = {
                "dataset": "digits", "split": split, "majority": majority, "ratio": ratio, "factor": None,
                "draw": "sha256", "majority_classes": "random", "per_class": None, "seed": seed, "validation": 0.0,
            }  # fmt: skip
            write_split(SplitSpec.model_validate(content), data[0], folder / "split.csv")
            for model in MODELS:
                runs.append(folder / f"{split}-{model}-{seed}")
                spec = spec_of(split, model, seed, chosen["lr"], chosen["epochs"])
                inputs = (*data, folder / "split.csv")
                train(spec, *inputs, runs[-1], device="cpu", checkpoint=folder / "checkpoint.pt")
    outputs = [str(folder / name) for name in ("collapse.csv", "accuracy.csv", "answers.safetensors", "summary.json")]
    inputs = [str(run / name) for name in ("snapshots.safetensors", "history.csv") for run in runs]
    metrics.run(CollapseSpec(), inputs, outputs)
    return request.param, outputs[:3]


@pytest.mark.slow
def test_what_cannot_have_collapsed_supports_no_claim_about_collapse(study):
    name, (collapse, accuracy, answers) = study
    spec = ClaimsSpec(
        networks=Runs(splits={"digits": list(SPLITS)}, models=list(MODELS), seeds=list(SEEDS)), stages=[], theory=[]
    )
    claims = {claim.number: claim for claim in judged(spec, read(collapse), read(accuracy), read_answers(answers), {})}
    verdicts = {number: claims[number].verdict for number in ("A1", "A2", "A3", "A4")}
    if name == "trained":  # the same networks, where they may learn, are not held back by the size of this test
        assert verdicts["A1"] in ("supported", "undecided")
        learnt = [criterion.seeds for criterion in claims["A1"].criteria]
        assert learnt == [len(SEEDS)] * 6
        nc1 = [criterion.mean for criterion in claims["A1"].criteria if "NC1" in criterion.rule.statistic]
        assert max(nc1) < -0.5
    else:
        assert "supported" not in verdicts.values()
        assert verdicts["A1"] == verdicts["A2"] == "not learnt"


def copies(draw: np.random.Generator, seeds: int, images: int) -> networks.PairedRuns:
    """Two copies of one model in a made-up study: what differs between them is what differs between seeds."""
    collapse, accuracy, right = [], [], {}
    hard = draw.normal(0, 3.0, images)
    labels = np.arange(images) % 10
    for split, easy in (("balanced", 3.0), ("ka3-r4", 2.0)):
        for seed in range(seeds):
            sample = draw.normal(0, 0.1)  # the seed's split, which both train on
            for model in MODELS:
                cell = ("digits", split, model, seed)
                row = dict(zip(("dataset", "split", "model", "seed"), cell, strict=True)) | {"epoch": 9}
                nc2, nc3 = 0.5 * 10 ** (sample + draw.normal(0, 0.05, 2))
                learnt = dict.fromkeys(("accuracy_least", "accuracy_least_majority", "accuracy_least_minority"), 1.0)
                collapse.append(row | {"layer": "features", "nc2_means_etf": nc2, "nc3_duality": nc3, **learnt})
                odds = easy + hard + sample + draw.normal(0, 0.1) - 1.5 * (labels > 2) * (split != "balanced")
                right[cell] = {TEST: (draw.random(images) < special.expit(odds)).astype(np.uint8)}
                of_group = {"": labels >= 0, "_majority": labels <= 2, "_minority": labels > 2}
                shares = {f"test_accuracy{group}": right[cell][TEST][among].mean() for group, among in of_group.items()}
                accuracy.append(row | {"solver_converged": 1.0} | shares)
    answers = Answers({"digits": labels}, right, dict.fromkeys(right, (0, 1, 2)))
    return networks.counted(pd.DataFrame(collapse), pd.DataFrame(accuracy), answers, tuple(MODELS))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_two_copies_of_one_model_give_no_difference_at_the_nominal_rate(seeds):
    """A4 allows the DEQ half a point, so that of two copies its first criterion is true; the others are not."""
    draw, studies = np.random.default_rng(seeds), 200
    alone, decided = {}, {"A3": 0, "A4": 0}
    for _ in range(studies):
        runs = copies(draw, seeds, 360)
        for number, criteria in (("A3", networks.nearer_collapse), ("A4", networks.better_accuracy)):
            found = corrected_together(criteria(runs))
            decided[number] += combined(found) != "undecided"
            for criterion in found:
                if criterion.rule.supports == 0:
                    said = alone.setdefault(criterion.rule.statistic, [])
                    said.append(min(criterion.p_values) < 0.05)
    most = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / studies)
    assert len(alone) == 4
    assert {statistic: np.mean(said) for statistic, said in alone.items() if np.mean(said) > most} == {}
    assert max(decided.values()) / studies < most
