"""A figure is the same bytes whatever matplotlib is told by its user's own files and variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
DRAW = """
import sys
from eqcollapse.report.figures.style import new_figure, save
figure, axes = new_figure(1, 1, width=3, height=2)
axes[0, 0].plot([1, 2], [3, 1], label="a")
axes[0, 0].legend()
save(figure, [f"out.{suffix}" for suffix in ("pdf", "png", "svg")], 50)
"""


def drawn(folder: Path, **variables: str) -> list[bytes]:
    """Draw a figure in a process of its own, in `folder`; return the bytes of its three files."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLCONFIGDIR": str(folder), **variables}
    words = [sys.executable, "-c", DRAW]
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return [(folder / f"out.{suffix}").read_bytes() for suffix in ("pdf", "png", "svg")]


@pytest.mark.parametrize("rc", ["axes.facecolor: red\nsavefig.facecolor: blue\n", "text.usetex: True\n"])
def test_a_matplotlibrc_changes_nothing(tmp_path, rc):
    plain, own = tmp_path / "plain", tmp_path / "own"
    plain.mkdir()
    own.mkdir()
    (own / "matplotlibrc").write_text(rc)
    assert drawn(own) == drawn(plain)
