"""Functions that run code which stands in what they read, found in a source by its syntax, under whatever name."""

import ast
from collections.abc import Iterator

PICKLES = {
    "pickle", "_pickle", "cPickle", "pickle5", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve",
}  # fmt: skip
"""Modules of which nothing is used but the errors that they raise."""
NEVER = {
    "numpy.lib.format.read_array", "numpy.lib.npyio", "pandas.io.pickle", "pandas.read_hdf", "pandas.read_pickle",
    "torch.hub", "torch.jit.load", "torch.package", "torchvision.datasets", "yaml.CFullLoader", "yaml.CLoader",
    "yaml.CUnsafeLoader", "yaml.FullLoader", "yaml.Loader", "yaml.UnsafeLoader", "yaml.full_load", "yaml.full_load_all",
    "yaml.unsafe_load", "yaml.unsafe_load_all",
}  # fmt: skip
"""Names that are not used at all, nor what is in them (torchvision's CIFAR data sets are pickles)."""
TOLD = {
    "torch.load": ("weights_only", None, {"True"}),
    "torch.serialization.load": ("weights_only", None, {"True"}),
    "numpy.load": ("allow_pickle", None, {"False"}),
    "yaml.load": ("Loader", 1, {"yaml.SafeLoader", "yaml.CSafeLoader"}),
    "yaml.load_all": ("Loader", 1, {"yaml.SafeLoader", "yaml.CSafeLoader"}),
}
"""Names that are only called, and only with a word (or the argument at a place) that is one of these."""
IMPORTERS = {"__import__", "importlib.import_module", "importlib.__import__"}


def loaders(source: str) -> list[int]:
    """Return the lines of `source` that use what loads a pickle, or code by another way.

    Names are followed through imports, `as`, assignments (annotated, by `:=`, of several at once), `getattr` and
    imports of a name in quotes; scopes are not told apart. What a program puts together from strings is not seen.
    """
    tree = ast.parse(source)
    names = dict(_imported(tree))
    for name, value in _assigned(tree):
        if meant := _meant(value, names):
            names[name] = meant
    told = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_told(node, names)}
    return sorted({node.lineno for node, name in _used(tree, names) if _is_loader(name) and id(node) not in told})


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return what each imported name stands for, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield (one.asname, one.name) if one.asname else (one.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for one in node.names:
                yield one.asname or one.name, f"{node.module}.{one.name}"


def _assigned(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Return each name that something is assigned to, with what: plainly, annotated, by `:=` or one of several."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from _matched(target, node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
            yield from _matched(node.target, node.value)


def _matched(target: ast.AST, value: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match target, value:
        case ast.Name(id=name), _:
            yield name, value
        case (ast.Tuple(elts=targets) | ast.List(elts=targets), ast.Tuple(elts=values) | ast.List(elts=values)):
            for one, other in zip(targets, values, strict=False):
                yield from _matched(one, other)


def _meant(node: ast.AST, names: dict[str, str]) -> str:
    """Return the full name that an expression stands for; nothing where it is not of a name."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name if name in IMPORTERS else "")
        case ast.NamedExpr(value=value):
            return _meant(value, names)
        case ast.Attribute(value=value, attr=attribute):
            return _inside(_meant(value, names), attribute)
        case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(attribute)), *_]):
            return _inside(_meant(value, names), attribute)
        case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]):
            return module if _meant(function, names) in IMPORTERS else ""
        case ast.Constant(value=bool(constant)):
            return str(constant)
    return ""


def _inside(module: str, attribute: str) -> str:
    return f"{module}.{attribute}" if module else ""


def _used(tree: ast.AST, names: dict[str, str]) -> Iterator[tuple[ast.AST, str]]:
    """Return each place where something is named, imports by `from` included, with its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node, name) for one in node.names for name in _brought(node.module or "", one.name))
        elif name := _meant(node, names):
            yield node, name


def _brought(module: str, name: str) -> list[str]:
    """Return the full names that an import brings in, without those that are seen where they are called."""
    if name != "*":
        return [f"{module}.{name}"] if f"{module}.{name}" not in TOLD else []
    return [one for one in (*TOLD, *NEVER, *(f"{pickle}.load" for pickle in PICKLES)) if one.startswith(f"{module}.")]


def _is_loader(name: str) -> bool:
    module, _, attribute = name.partition(".")
    if module in PICKLES:
        return bool(attribute) and not attribute.endswith("Error")
    return name in TOLD or any(name == one or name.startswith(f"{one}.") for one in NEVER)


def _is_told(call: ast.Call, names: dict[str, str]) -> bool:
    word, place, answers = TOLD.get(_meant(call.func, names), ("", None, set()))
    given = [keyword.value for keyword in call.keywords if keyword.arg == word]
    if not given and place is not None:
        given = call.args[place : place + 1]
    return bool(given) and _meant(given[0], names) in answers
