"""The wheel, in an environment of torch, numpy and safetensors alone: its two libraries need nothing else."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import eqcollapse
from projects import ROOT, cloned

pytestmark = pytest.mark.workflow

BASE = ("numpy", "safetensors", "torch")

EQUILIBRIUM = """
import torch
from eqcollapse.equilibrium import solve
solution = solve(lambda z: z / 2 + 1, torch.zeros(3, 4, dtype=torch.float64), method="anderson", tol=1e-9, max_iter=50)
assert solution.converged.all()
assert torch.allclose(solution.z, torch.full_like(solution.z, 2), atol=1e-7)
"""
"""z = z/2 + 1 at z = 2."""

COLLAPSE = """
import numpy, torch
from safetensors.torch import save_file
from eqcollapse.collapse import measure, simplex_etf
means = simplex_etf(3)
labels = torch.tensor([0, 0, 1, 1, 2, 2])
noise = 0.1 * torch.tensor([1.0, -1, 1, -1, 1, -1])[:, None] * means[0] / means[0].norm()
save_file({"features": means[labels] + noise, "labels": labels, "weight": means}, "features.safetensors")
metrics = measure("features.safetensors").metrics
assert numpy.isclose(metrics["nc1"], 0.02), metrics["nc1"]
assert numpy.isclose(metrics["nc2_means_etf"], 0, atol=1e-9), metrics["nc2_means_etf"]
"""
"""For a simplex ETF of K means and noise of variance e in their span, NC1 is e (K - 1); the means are an ETF."""

OURS = """
import sys
print(*sorted(name for name in sys.modules if name.startswith("eqcollapse.")))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree, built by the backend that pyproject.toml names, from what git knows of it."""
    folder = tmp_path_factory.mktemp("wheel")
    project = cloned(folder / "project")
    project.run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a new environment with the wheel, the base dependencies and what these depend on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (libraries,) = folder.glob("lib/python*/site-packages")
    for name in closure(BASE):
        link(name, libraries)
    found = folder / "bin/python"
    words = ["--python", str(found), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return found


def closure(names: tuple[str, ...]) -> set[str]:
    """Return the names of distributions and of all that they depend on, of those installed here."""
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # of an extra, or for another machine
            continue
        seen.add(name)
        requirements = map(Requirement, lines)
        waiting += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return seen


def link(name: str, libraries: Path) -> None:
    """Put the files of an installed distribution into site-packages, by links to its folders."""
    for file in distribution(name).files or []:
        top = file.parts[0]
        target = libraries / top
        if top not in ("..", "__pycache__") and not target.exists():
            target.symlink_to(Path(str(distribution(name).locate_file(top))).resolve())


def run(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(python), *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("library", "computation"), [("equilibrium", EQUILIBRIUM), ("collapse", COLLAPSE)], ids=["equilibrium", "collapse"]
)
def test_a_library_computes_with_the_base_dependencies_alone(python, tmp_path, library, computation):
    answer = run(python, "-c", computation + OURS, folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    loaded = answer.stdout.split()
    assert f"eqcollapse.{library}" in loaded
    assert {name.split(".")[1] for name in loaded} == {library}


def test_the_environment_has_none_of_the_other_dependencies(python, tmp_path):
    """So that the test above can fail."""
    for name in ("pydantic", "pandas", "scipy", "torchvision", "yaml"):
        assert f"No module named '{name}'" in run(python, "-c", f"import {name}", folder=tmp_path).stderr


def test_the_program_names_the_extra_that_its_commands_need(python, tmp_path):
    answer = run(python, str(python.with_name("eqcollapse")), "check", folder=tmp_path)
    assert answer.returncode == 1
    assert "is not installed" in answer.stderr
    assert "pip install 'eqcollapse[audit]'" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_the_wheel_holds_every_file_of_the_package(wheel):
    package = Path(eqcollapse.__file__).parent
    files = {
        f"eqcollapse/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files
    assert {"eqcollapse/py.typed", "eqcollapse/provenance/record.schema.json"} <= held


def test_the_wheel_carries_the_version_of_the_package(wheel):
    assert wheel.name == f"eqcollapse-{eqcollapse.__version__}-py3-none-any.whl"
    assert (ROOT / "src/eqcollapse/__init__.py").read_text().count("__version__") == 1
