"""A figure is the same bytes whatever matplotlib is told by its user's own files and variables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DRAW = """
import sys
from eqcollapse.report.style import new_figure, save
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


NOTEBOOK = "module://matplotlib_inline.backend_inline"
COMMAND = """
import runpy, sys
from importlib import import_module
sys.argv[1:] = ["check"]
try:
    runpy.run_module("eqcollapse", run_name="__main__")
except SystemExit:
    import_module("eqcollapse.report.features")
"""


@pytest.mark.parametrize("backend", [NOTEBOOK, "nonsense"])
def test_the_backend_that_a_notebook_sets_is_not_asked_for(tmp_path, backend):
    assert drawn(tmp_path, MPLBACKEND=backend)


@pytest.mark.parametrize("backend", [NOTEBOOK, "nonsense"])
def test_a_command_in_a_notebook_loads_the_figures(backend):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": backend}
    subprocess.run([sys.executable, "-c", COMMAND], cwd=ROOT, env=environment, check=True, capture_output=True)
