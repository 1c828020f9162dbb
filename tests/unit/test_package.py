"""What pyproject.toml says of the package: its version and its dependencies."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import eqcollapse
from projects import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = ROOT / "src/eqcollapse"
DISTRIBUTIONS = packages_distributions()
BASE = {"equilibrium", "collapse"}
AUDIT = {"provenance"}


def declared(*extras: str) -> set[str]:
    """Return the distributions that the base and these extras ask for."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {Requirement(line).name.lower() for line in lines}


def imported(path: Path) -> set[str]:
    """Return the distributions that one file imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    names -= {*sys.stdlib_module_names, "eqcollapse", "pydantic_core"}  # the last is pydantic's own
    return {DISTRIBUTIONS[name][0].lower() for name in names}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_is_in_the_extra_of_its_part(path):
    extras = () if part(path) in BASE else ("pipeline", "audit") if part(path) in AUDIT else ("pipeline",)
    assert imported(path) <= declared(*extras)


def test_no_dependency_is_declared_in_vain():
    """But for dvc, which is run as a program."""
    used = set().union(*map(imported, PACKAGE.rglob("*.py")))
    assert declared("pipeline", "audit") - used - {"eqcollapse"} == {"dvc"}


def test_the_version_has_one_source():
    assert "version" in PROJECT["dynamic"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == eqcollapse.__version__


def test_the_lock_holds_what_the_package_asks_for():
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    assert declared("pipeline", "audit", "slurm", "test") - {"eqcollapse"} <= locked


@pytest.mark.parametrize("library", sorted(BASE))
def test_a_library_imports_nothing_else_of_ours(library):
    for path in (PACKAGE / library).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [("", f"eqcollapse.{library}", "eqcollapse")[min(node.level, 2)] or node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                ours = name == "eqcollapse" or name.startswith("eqcollapse.")
                assert not ours or name.split(".")[1:2] == [library], f"{path}:{node.lineno}"
