"""A Slurm cluster of two emulated nodes, for the session."""

import os

import pytest

import sites


@pytest.fixture(scope="session", autouse=True)
def cluster():
    """Two nodes on this machine's loopback, ended with the session."""
    hidden = os.environ.pop("SLURM_CONF")  # see tests/conftest.py
    sites.tool("slurm-up", "--nodes", "2")
    yield
    sites.tool("slurm-down")
    os.environ["SLURM_CONF"] = hidden
