"""Clones of this tree, driven by the real tools."""

import pytest
import yaml

from projects import Project, cloned


@pytest.fixture
def project(tmp_path) -> Project:
    """A fresh clone with a small study."""
    return cloned(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A clone whose small study has been run; tests leave it as they find it."""
    project = cloned(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake()
    return project


@pytest.fixture(scope="session")
def versioned(tmp_path_factory) -> Project:
    """A clone whose smallest study `dvc repro` has run, committed with its dvc.lock; tests copy it."""
    project = cloned(tmp_path_factory.mktemp("versioned") / "project")
    settings = yaml.safe_load((project.folder / "params.yaml").read_text())
    settings["experiments"]["a"]["models"] = ["explicit"]
    settings["theory"].pop("b-figure-1")
    (project.folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    project.git("config", "user.name", "test")
    project.git("config", "user.email", "test@example.org")
    project.commit("the smallest study")
    project.dvc("repro")
    project.commit("its results")
    return project


@pytest.fixture
def study(versioned, tmp_path) -> Project:
    """A copy of the finished and committed study, to be changed."""
    return versioned.copy(tmp_path / "study")
