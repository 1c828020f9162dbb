"""Fixtures for all tests."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def content() -> dict:
    """The committed params.yaml, as a mapping of the test's own."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())
