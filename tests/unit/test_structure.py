"""The shape of the package: no import circles, short functions, one meaning for each public name."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from projects import ROOT

SOURCES = ROOT / "src"
FILES = sorted((SOURCES / "eqcollapse").rglob("*.py"))
ARROWS = {
    "runtime": set(),
    "equilibrium": set(),
    "collapse": set(),
    "data": {"runtime"},
    "networks": {"equilibrium", "runtime"},
    "training": {"collapse", "data", "equilibrium", "networks", "runtime"},
    "theory": {"collapse", "runtime"},
    "report": {"collapse", "runtime", "theory", "training"},
    "study": {"data", "networks", "report", "runtime", "theory", "training"},
    "provenance": {"data", "runtime", "study", "training"},
    "pipeline": {"data", "provenance", "runtime", "study"},
    "cli": {"collapse", "data", "pipeline", "provenance", "runtime", "study", "training"},
}
"""What each package may import of the others; `study` no more than their config.py, and the registry."""
LONGEST = 60
"""Lines of a function. A longer one says why, on the line of its `def` or the one above: `# long: <reason>`."""

SAME_NAME = {
    "run": "the entry of each stage's job, and of a command",
    "add_arguments": "each module of cli/ adds its commands by it",
    "draw": "each kind of figure, called by figures/job.py",
    "table": "each kind of table, called by tables/job.py",
    "duality_error": "one quantity, of one run and of a batch of runs",
    "nc1": "one quantity, of moments and of a batch of runs",
    "measure": "the metrics of features: of a file, an epoch, all runs, a point of a descent",
    "load": "a file's content, checked: checkpoints, dvc_stages, params",
    "read": "a file's content, checked: reading (a record), results, yaml_file, params, figures/features",
    "save": "a file, written as a whole: checkpoints, figures/style",
}
"""Names that several modules define, and the one thing that they mean."""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module(path: Path) -> str:
    """Return the dotted name of the module in `path`."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, at its top or in a function."""
    package = module(path).split(".")[: None if path.name == "__init__.py" else -1]
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return names & MODULES.keys() - {module(path)}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return modules of which each imports the next, and the last the first; [] if there are none."""
    done: set[str] = set()

    def search(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        found = next((found for each in sorted(imports[name]) if (found := search(each, [*way, name]))), [])
        done.add(name)
        return found

    return next((found for name in sorted(imports) if (found := search(name, []))), [])


def test_no_files_import_each_other():
    assert circle({name: imported(path) for name, path in MODULES.items()}) == []


@pytest.mark.parametrize(
    "package",
    sorted({path.relative_to(SOURCES / "eqcollapse").parts[0] for path in FILES if path.parent.name != "eqcollapse"}),
)
def test_packages_import_in_one_direction(package):
    files = [path for path in FILES if package in path.relative_to(SOURCES / "eqcollapse").parts[:1]]
    used = {name for path in files for name in imported(path)}
    assert {name.split(".")[1] for name in used if "." in name} - {package} <= ARROWS[package]
    if package == "study":
        stages = {name for name in used if name.split(".")[1] not in ("study", "runtime")}
        assert {name for name in stages if not name.endswith(".config")} == {
            "eqcollapse.data.order",
            "eqcollapse.data.registry",
        }


def test_a_circle_is_found():
    """So that the test above can fail."""
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]


def too_long(source: str) -> Iterator[str]:
    """Yield the functions of more than LONGEST lines that give no reason."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            reasons = "\n".join(lines[max(first - 2, 0) : node.lineno])
            if node.end_lineno - node.lineno + 1 > LONGEST and not re.search(r"# long: \w", reasons):
                yield node.name


@pytest.mark.parametrize("path", FILES, ids=module)
def test_functions_are_short(path):
    assert list(too_long(path.read_text())) == []


def test_a_long_function_needs_a_reason():
    body = "def f():\n" + "    x = 1\n" * LONGEST
    assert list(too_long(body)) == ["f"]
    assert list(too_long("# long: one table\n" + body)) == []


def defined(path: Path) -> Iterator[str]:
    """Yield the public functions, classes and type names (in capitals and small letters) of a module."""
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for each in targets if isinstance(each, ast.Name) and re.match(r"[A-Z]\w*[a-z]", each.id)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_has_one_meaning():
    where = defaultdict(set)
    for path in FILES:
        for name in defined(path):
            where[name].add(module(path))
    several = {name: sorted(modules) for name, modules in where.items() if len(modules) > 1}
    assert {name: modules for name, modules in several.items() if name not in SAME_NAME} == {}
    assert SAME_NAME.keys() <= several.keys(), "a reason for nothing"


def test_nothing_lies_loose_beside_the_entry():
    assert {path.name for path in FILES if path.parent == SOURCES / "eqcollapse"} == {"__init__.py", "__main__.py"}


def test_hooks_run_what_lint_runs_and_download_nothing():
    makefile = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    checks = {line.strip().removesuffix(" .").removesuffix(" Snakefile workflow") for line in makefile.split("\n")[1:]}
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    entries = {
        hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "").strip() for hook in local["hooks"]
    }
    assert entries == checks - {"snakemake --lint"}  # which takes ten seconds


def test_the_editors_line_length_is_ruffs():
    limit = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["line-length"]
    assert f"max_line_length = {limit}" in (ROOT / ".editorconfig").read_text()
