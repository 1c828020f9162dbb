"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import yaml

import sites
from projects import Project

ROOT = Path(__file__).parents[1]

# Snakemake's Slurm plugin asks the controller as soon as it is imported: ten seconds a start, where Slurm is installed
# and does not run. tests/slurm, which starts it, undoes this.
os.environ["SLURM_CONF"] = os.devnull


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` where torch sees none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture
def content() -> dict:
    """The committed params.yaml, as a mapping of the test's own."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.fixture(scope="session")
def bare(tmp_path_factory) -> Project:
    """A tiny study that was run on this machine, without the image; tests clone or copy it."""
    project = sites.tiny(tmp_path_factory.mktemp("bare") / "project")
    project.snakemake()
    return project
