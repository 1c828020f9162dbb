"""A small study with every stage, run once; the fault tests hold what they do against its bytes."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile import SEED
from projects import Project
from sites import absent, tiny


def pytest_report_header() -> str:
    """Say which draws these are, so that they can be repeated."""
    return f"EQCOLLAPSE_FAULTS_SEED={SEED}"


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Let Ctrl-C reach what a test starts: in the background of a shell it is ignored, by all that is started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Project:
    """A finished run of two cells of two epochs and one theory experiment; tests leave it as they find it."""
    project = tiny(tmp_path_factory.mktemp("undisturbed") / "project")
    project.snakemake()
    return project


@pytest.fixture
def fresh(undisturbed, tmp_path) -> Project:
    """A clone of the same study in which nothing has been run."""
    return undisturbed.clone(tmp_path / "project")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A folder on a disk of 64 MB of its own; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        absent("needs root, to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)
    shutil.rmtree(disk, ignore_errors=True)
