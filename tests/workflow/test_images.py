"""Real MNIST and CIFAR-10 (as JPEG) through the whole pipeline, from a mirror folder, by the product's own preset."""

import hashlib
import json

import pytest
from safetensors.numpy import load_file

from projects import ROOT, Project
from sites import absent

pytestmark = pytest.mark.workflow

MIRROR = ROOT.parent / "shared" / "data"
TINY = {
    "datasets": {"mnist": {"per_class": 20}, "cifar10-jpeg": {"per_class": 20}},
    "network": {"width": 8, "stages": 2, "blocks": 1},  # the test sets are whole: 10,000 images
    "equilibrium": {"hidden": 8},
    "train": {"epochs": 1, "schedule": {"warmup": 0}},
    "models": {name: {"network": {"stages": 2}, "train": {"epochs": 1}} for name in ("mse", "ce")},
    "experiments": {
        "a": {"splits": ["balanced"], "seeds": [0]},
        "b": {"datasets": ["mnist"], "splits": ["balanced"], "models": ["mse", "ce"], "report": "b"},
    },
}


@pytest.fixture
def images(project: Project) -> Project:
    """A project whose settings are the preset's, made tiny."""
    if not MIRROR.is_dir():
        absent(f"needs {MIRROR}")
    preset = project.folder / "workflow/presets/small-images.yaml"
    project.edit(TINY, preset)
    return project


def test_mnist_and_cifar10_jpeg_run_through_the_same_pipeline(images):
    images.snakemake("--configfile", "workflow/presets/small-images.yaml", "--config", f"mirror={MIRROR}")
    tables = images.files("results/tables")
    assert b"cifar10-jpeg" in tables["results/tables/a-table-1.csv"]
    shapes = {}
    for path in (images.folder / "resources/datasets").glob("*@*/train.safetensors"):
        shapes[path.parent.name.partition("@")[0]] = load_file(path)["images"].shape
    assert shapes == {"mnist": (60000, 1, 28, 28), "cifar10-jpeg": (50000, 3, 32, 32)}
    records = [json.loads(text) for name, text in images.files("resources").items() if name.endswith("provenance.json")]
    assert len(records) == 2
    assert not [record for record in records if str(MIRROR) in json.dumps(record)]


def test_an_altered_archive_is_refused_by_name(images, tmp_path):
    archive = bytearray((MIRROR / "cifar10-jpeg.tar.gz").read_bytes())
    archive[len(archive) // 2] ^= 1
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "cifar10-jpeg.tar.gz").write_bytes(archive)
    words = ["--configfile", "workflow/presets/small-images.yaml", "--config", f"mirror={mirror}"]
    answer = images.run("snakemake", "--cores", "all", "data", *words, check=False)
    assert answer.returncode != 0
    said = answer.stdout + answer.stderr
    assert "cifar10-jpeg.tar.gz" in said
    assert hashlib.sha256(archive).hexdigest()[:8] in said or "sha256" in said
    assert "Traceback" not in said
    assert not images.files("resources")
