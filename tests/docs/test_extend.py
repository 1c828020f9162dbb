"""The blocks of docs/how-to/extend.md, applied to a copy of the project, do what the page says."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from blocks import extend, sections
from projects import ROOT, Project, cloned

PAGE = (ROOT / "docs/how-to/extend.md").read_text()
DIGESTS = """
import json
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load
jobs = Study(load()).jobs
print(json.dumps({stage: {p.partition("@")[0]: job.digest for p, job in of.items()} for stage, of in jobs.items()}))
"""


def digests(project: Project) -> dict[str, dict[str, str]]:
    """Return the digest of each job of the project's study, by stage and by path without its digest."""
    return json.loads(project.run("python", "-c", DIGESTS).stdout)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Project:
    return cloned(tmp_path_factory.mktemp("plain") / "project")


@pytest.fixture(scope="module")
def before(plain) -> dict[str, dict[str, str]]:
    """The digests of the project without any extension."""
    return digests(plain)


@pytest.fixture(scope="module")
def extended(plain, tmp_path_factory) -> Project:
    """A copy of the project with all blocks of the page."""
    project = plain.copy(tmp_path_factory.mktemp("extended") / "project")
    for _, text in sections(PAGE):
        extend(project, text)
    return project


@pytest.mark.parametrize(
    ("heading", "again", "kept"),
    [
        ("A published data set", {"data", "splits", "train", "collapse"}, {"theory"}),
        ("An imbalance", set(), {"data", "theory"}),
        ("A metric", {"collapse"}, {"data", "splits", "train", "theory"}),
        ("A solver", {"train", "collapse"}, {"data", "splits", "theory"}),
        ("An equilibrium layer", {"train", "collapse"}, {"data", "splits", "theory"}),
        ("A table or a figure", {"table", "page"}, {"data", "splits", "train", "collapse", "theory"}),
        ("A stage", set(), {"data", "splits", "train", "theory"}),
    ],
)
def test_an_extension_makes_again_what_the_page_says(plain, before, tmp_path, heading, again, kept):
    project = plain.copy(tmp_path / "project")
    extend(project, dict(sections(PAGE))[heading])
    after = digests(project)
    for stage in again:
        assert not set(before[stage].values()) & set(after[stage].values()), stage
    for stage in kept:
        assert before[stage].items() <= after[stage].items(), stage


def test_the_data_set_has_the_checksums_that_torchvision_has(extended):
    from torchvision.datasets import KMNIST

    code = "from eqcollapse.data.registry import KMNIST as k; print([[f.name, f.md5] for f in k.files.values()])"
    found = eval(extended.run("python", "-c", code).stdout)
    assert {tuple(pair) for pair in found} == set(KMNIST.resources)


def test_the_imbalance_and_the_models_are_planned(extended):
    runs = digests(extended)["train"]
    assert "results/runs/digits/ka2-r20/explicit/seed-0" in runs
    assert "results/runs/digits/balanced/damped/seed-0" in runs
    assert "results/runs/digits/balanced/smooth/seed-0" in runs


def test_the_metric_is_measured(extended):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 6
    features = rng.normal(size=(6, 8))[labels] + 0.1 * rng.normal(size=(60, 8))
    np.savez(extended.folder / "own.npz", features=features, labels=labels)
    extended.run("python", "-m", "eqcollapse", "metrics", "own.npz", "--csv", "own.csv")
    means = np.stack([features[labels == k].mean(0) for k in range(6)])
    norms = np.linalg.norm(means - means.mean(0), axis=1)
    found = pd.read_csv(extended.folder / "own.csv").set_index("metric").value["norm_spread_means"]
    assert found == pytest.approx(norms.max() / norms.min())


def test_the_solver_finds_an_equilibrium(extended):
    code = """
import torch
from eqcollapse.equilibrium import SolverConfig, solve
found = solve(lambda z: torch.cos(z), torch.zeros(3, 2), SolverConfig(method="damped", tol=1e-6, max_iter=100))
print(float(found.z.min()), float(found.z.max()))
"""
    assert [float(word) for word in extended.run("python", "-c", code).stdout.split()] == pytest.approx(
        [0.7390851] * 2, abs=1e-5
    )


def test_the_layer_has_an_equilibrium(extended):
    code = """
import torch
from eqcollapse.networks.deq import LAYERS
from eqcollapse.study.params import load
settings = load().resolved("smooth").equilibrium
layer = LAYERS[settings.layer](4, settings)
x = torch.randn(2, 4, 5, 5)
z = torch.zeros_like(x)
for _ in range(300):
    z = layer(z, x)
print(float((layer(z, x) - z).abs().max()))
"""
    assert float(extended.run("python", "-c", code).stdout) < 1e-5


def test_the_table_is_made(extended):
    rows = [("explicit", 0, 1, 0.5), ("explicit", 0, 2, 0.9), ("explicit", 1, 2, 0.7), ("deq", 0, 2, 1.0)]
    frame = pd.DataFrame(
        [("digits", "balanced", *row) for row in rows],
        columns=["dataset", "split", "model", "seed", "epoch", "train_accuracy"],
    )
    frame.to_csv(extended.folder / "accuracy.csv", index=False)
    spec = {"kind": "fit", "splits": {"digits": ["balanced"]}, "models": ["explicit", "deq"], "seeds": [0, 1]}
    outputs = [f"out/a-fit.{suffix}" for suffix in ("csv", "md", "tex")]
    extended.run(
        *("python", "-m", "eqcollapse", "table", "--digest", "0" * 10, "--spec", json.dumps(spec)),
        *("--inputs", "accuracy.csv", "accuracy.csv", "--outputs", *outputs),
    )
    made = pd.read_csv(extended.folder / outputs[0]).set_index("model").train_accuracy
    assert made.to_dict() == pytest.approx({"explicit": 0.8, "deq": 1.0})
    assert "results/tables/a-fit.csv" in digests(extended)["table"]
    code = (
        "from eqcollapse.study.grid import Study; from eqcollapse.study.params import load; "
        "print(Study(load()).job('table', 'results/tables/a-fit.csv').caption)"
    )
    assert "Training accuracy" in extended.run("python", "-c", code).stdout


@pytest.mark.workflow
def test_the_stage_is_run_by_snakemake_and_known_to_dvc(extended):
    from sklearn.datasets import load_digits

    extended.snakemake("pixels")
    (made,) = (extended.folder / "results/pixels").glob("digits@*.csv")
    images = np.rint(load_digits().images * (255 / 16)) / 255
    assert pd.read_csv(made)["mean"].item() == pytest.approx(images.mean(), abs=0.01)
    assert Path(f"{made}.provenance.json").exists()
    extended.run("python", "-m", "eqcollapse", "confirm", "pixels")
    code = """
from eqcollapse.provenance import dvc_stages
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load
print(dvc_stages.faults(Study(load()), dvc_stages.load(), {}))
"""
    assert extended.run("python", "-c", code).stdout.strip() == "[]"
