"""A Slurm cluster of two emulated nodes, for the session."""

import pytest

import sites


@pytest.fixture(scope="session", autouse=True)
def cluster():
    """Two nodes on this machine's loopback, ended with the session."""
    sites.tool("slurm-up", "--nodes", "2")
    yield
    sites.tool("slurm-down")
