"""A cell that trains in a second."""

from pathlib import Path

import pytest

import small_cell


@pytest.fixture
def spec() -> dict:
    """The resolved settings of a small cell."""
    return small_cell.small_spec()


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Train, test and split files."""
    return small_cell.write_files(tmp_path)
