"""The modules of types: digests of code leave them out, so nothing that a result depends on may happen in them."""

import ast
from typing import get_args

import pytest

from eqcollapse.data.config import DatasetSettings
from eqcollapse.data.registry import CANONICAL
from eqcollapse.equilibrium.solvers import SOLVERS
from eqcollapse.networks.config import MethodName
from eqcollapse.runtime.section import Section
from eqcollapse.study.fingerprint import CONFIG, ROOT
from eqcollapse.study.stages import STAGES

MODULES = sorted(ROOT.glob("*/config.py"))


def tree(path) -> ast.Module:
    return ast.parse(path.read_text())


def test_every_config_module_is_outside_the_digests():
    assert {f"eqcollapse.{path.parent.name}.config" for path in MODULES} == CONFIG
    assert {path.parent.name for path in MODULES} >= {"data", "networks", "training", "theory", "report"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_config_modules_import_types_only(path):
    imported = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
    allowed = {"typing", "pydantic", "eqcollapse.runtime.section", *CONFIG}
    assert {node.module if isinstance(node, ast.ImportFrom) else None for node in imported} <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_config_modules_hold_types_only(path):
    """Annotated keys, names for types, and validators that refuse a value or let it through as it is."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                documented = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
                assert documented or isinstance(part, ast.AnnAssign) or only_refuses(part), f"{path}:{part.lineno}"
        else:
            allowed = ast.Import | ast.ImportFrom | ast.Assign | ast.Expr
            assert isinstance(node, allowed), f"{path}:{node.lineno}"
            if isinstance(node, ast.Assign):
                assert isinstance(node.value, ast.Subscript | ast.BinOp), f"{path}:{node.lineno} is no type"


def only_refuses(node: ast.stmt) -> bool:
    """Whether `node` is a validator of a whole section that returns that section."""
    if not isinstance(node, ast.FunctionDef) or ast.unparse(node.decorator_list[0]) != "model_validator(mode='after')":
        return False
    returned = [part.value for part in ast.walk(node) if isinstance(part, ast.Return)]
    return bool(returned) and all(isinstance(value, ast.Name) and value.id == "self" for value in returned)


@pytest.mark.parametrize("stage", STAGES)
def test_every_key_of_a_spec_is_said(stage):
    """A default would be part of a result and of no digest; of a data set, what is not there is null."""
    of = STAGES[stage].spec
    for spec in get_args(get_args(of)[0]) if get_args(of) else (of,):
        assert issubclass(spec, Section)
        optional = {name for name, field in spec.model_fields.items() if not field.is_required()}
        assert optional <= {"sha256", "size", "classes"}


def test_the_solvers_of_params_are_those_of_the_library():
    assert set(get_args(MethodName)) == set(SOLVERS)


def test_the_sources_of_data_sets_are_those_of_the_registry():
    assert set(get_args(DatasetSettings.model_fields["source"].annotation)) == {*CANONICAL, "imagefolder"}
