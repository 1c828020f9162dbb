"""Clones of this tree, driven by the real tools."""

import pytest

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
