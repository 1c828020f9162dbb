"""The digest of a stage's code follows its imports, and does not care for comments."""

import ast
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from eqcollapse.study import fingerprint
from eqcollapse.study.fingerprint import PLUMBING, ROOT, RUNNER, code_digest, imported, runner_digest, runner_files
from eqcollapse.study.stages import STAGES


@pytest.fixture
def package(tmp_path):
    """A package of four modules: stage -> inner.core -> constants, and one that nobody imports."""
    root = tmp_path / "eqcollapse"
    (root / "inner").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "inner/__init__.py": "from eqcollapse.inner.core import f\nfrom eqcollapse.inner.metric import g",
        "inner/core.py": "from ..constants import ONE\n\ndef f(x):\n    return x + ONE",
        "inner/metric.py": "def g(x):\n    return x",
        "constants.py": "ONE = 1",
        "stage.py": "def run():\n    from eqcollapse.inner.core import f\n    return f(1)",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def digest(root: Path) -> str:
    for cached in (fingerprint.code_digest, fingerprint._imports, fingerprint._tree, fingerprint._module_digest):
        cached.cache_clear()
    return code_digest("eqcollapse.stage", root)


def test_imports_are_followed_through_functions_and_dots(package):
    assert imported("eqcollapse.stage", package) == {
        "eqcollapse.stage",
        "eqcollapse.inner.core",
        "eqcollapse.constants",
    }


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        (
            "stage.py",
            "# why\ndef run():\n    '''Say.'''\n    from eqcollapse.inner.core import (f)\n    return f( 1 )",
            False,
        ),
        ("constants.py", "ONE = 2", True),
        ("inner/core.py", "from ..constants import ONE\n\ndef f(x):\n    return x - ONE", True),
        ("inner/metric.py", "def g(x):\n    return 2 * x", False),
        ("unrelated.py", "import os", False),
    ],
)
def test_only_what_can_change_an_output_changes_the_digest(package, file, text, changes):
    before = digest(package)
    (package / file).write_text(text)
    assert (digest(package) != before) is changes


def test_a_module_that_is_missing_is_named(package):
    (package / "constants.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"eqcollapse\.constants"):
        digest(package)


def test_training_does_not_hang_on_metrics_or_reports():
    names = imported(STAGES["train"].module)
    assert "eqcollapse.collapse.moments" in names
    assert not {"eqcollapse.collapse.metrics", "eqcollapse.study.params", "eqcollapse.study.grid"} & names
    assert not [name for name in names if name.startswith("eqcollapse.report")]


def test_reports_do_without_torch():
    for stage in ("table", "figure"):
        for path in fingerprint.files(STAGES[stage].module):
            assert "torch" not in {alias.split(".")[0] for alias in _imported_names(path)}, path


def test_packages_only_reexport():
    """The digest skips the `__init__.py` above an imported module: nothing may happen there."""
    for path in ROOT.rglob("__init__.py"):
        for node in ast.parse(path.read_text()).body:
            named = isinstance(node, ast.Assign) and node.targets[0].id in ("__all__", "__version__")
            documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert named or documented or isinstance(node, ast.Import | ast.ImportFrom), f"{path}:{node.lineno}"


def _imported_names(path: Path) -> list[str]:
    tree = ast.walk(ast.parse(path.read_text()))
    nodes = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    return [alias.name if isinstance(node, ast.Import) else node.module or "" for node in nodes for alias in node.names]


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_job_runs_is_in_its_digest(stage):
    """cli/stages hands a job to `run` of the stage's module, and looks at nothing of the spec itself."""
    module = STAGES[stage].module
    assert callable(import_module(module).run)
    assert module in imported(module)


def test_what_every_job_passes_through_is_in_every_record():
    """All modules that a job imports are in its digest or in the runner's, but for those that only name and check."""
    named = {
        f"eqcollapse.study.{name}" for name in ("fingerprint", "jobs", "own_code", "stages")
    }  # paths, checks, digests
    reached = _imported("eqcollapse.__main__") | _imported("eqcollapse.cli.main", {"main", "_run"})
    reached |= _imported("eqcollapse.cli.stages")
    assert "eqcollapse.provenance.records" in reached
    assert reached <= RUNNER | named
    assert RUNNER >= PLUMBING
    assert {path.stem for path in runner_files()} == {name.rpartition(".")[2] for name in RUNNER}


def _imported(module: str, functions: set[str] | None = None) -> set[str]:
    """Return the modules that `module` imports at its top, and in `functions` (None: in all)."""
    body = ast.parse((ROOT / f"{module.partition('.')[2].replace('.', '/')}.py").read_text()).body
    looked = [
        node for node in body if not isinstance(node, ast.FunctionDef) or functions is None or node.name in functions
    ]
    statements = [node for part in looked for node in ast.walk(part) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in statements if (node.module or "").startswith("eqcollapse")]
    names = {node.module for node in ours} | {f"{node.module}.{alias.name}" for node in ours for alias in node.names}
    return {name for name in names if (ROOT / f"{name.partition('.')[2].replace('.', '/')}.py").is_file()}


def test_an_edit_of_what_every_job_passes_through_changes_the_runner_only(tmp_path):
    root = tmp_path / "eqcollapse"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    before = runner_digest(root), {name: code_digest(stage.module, root) for name, stage in STAGES.items()}
    for cached in (runner_digest, code_digest, fingerprint._imports, fingerprint._tree, fingerprint._module_digest):
        cached.cache_clear()
    (root / "cli/stages.py").write_text((root / "cli/stages.py").read_text() + "\nNEW = 1\n")
    assert runner_digest(root) != before[0]
    assert {name: code_digest(stage.module, root) for name, stage in STAGES.items()} == before[1]
