"""Reading a file of settings: YAML, without what silently reads as something else, and in bounded time and memory.

Snakemake reads params.yaml by itself, and takes the last of two equal keys, octal numbers and aliases that stand for
billions of values as they come. So the Snakefile has its text looked at first.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.messages import quoted

MOST_BYTES = 1 << 17
"""Ten times the longest of ours. YAML in Python reads some 100 kB a second, and Snakemake reads them once more."""
MOST_VALUES = 100_000
TAGS = ("map", "seq", "str", "int", "float", "bool", "null", "merge", "value", "timestamp")
TEMPLATE = "__use_yte__"
"""The key with which Snakemake takes a file for a template whose expressions it evaluates."""
_MISREAD = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""What YAML 1.1 takes for an octal number or for one of base sixty: 010 is 8, 1:30 is 90."""


def read(path: str | Path) -> Any:
    """Return what the YAML file at `path` holds; EqcollapseError, one line, if it is missing or hostile."""
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise EqcollapseError(f"{path}: is not a file")
            text = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise EqcollapseError(f"{path}: there is no such file") from None
    except OSError as error:
        raise EqcollapseError(f"{path}: cannot be read ({error.strerror})") from None
    if len(text) > MOST_BYTES:
        raise EqcollapseError(f"{path}: more than {MOST_BYTES} bytes; settings have at most so many")
    try:
        # In the text, since YAML alone would take UTF-16, too, which what reads the file next does not.
        return _constructed(str(path), text.decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise EqcollapseError(f"{path}: is not YAML: {' '.join(str(error).split())[:300]}") from None


def read_sections(path: str | Path) -> dict[str, Any]:
    """Return what the file at `path` holds: a mapping of sections, or EqcollapseError."""
    content = read(path)
    if not isinstance(content, dict):
        raise EqcollapseError(f"{path}: must be a mapping of sections, but holds {quoted(content)}")
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as `open` does, but for a pipe, which would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _constructed(path: str, text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(path, node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check(path: str, root: yaml.Node) -> None:
    """Look at every node once, however often aliases name it; those below a node come before it."""
    size: dict[int, int] = {}
    above: set[int] = set()
    waiting = [(root, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            above.discard(id(node))
            size[id(node)] = 1 + sum(size[id(child)] for child in _children(node))
            if size[id(node)] > MOST_VALUES:
                raise _fault(path, node, f"stands for more than {MOST_VALUES} values")
        elif id(node) in above:
            raise _fault(path, node, "contains itself")
        elif id(node) not in size:
            _check_node(path, node)
            above.add(id(node))
            waiting.append((node, True))
            waiting.extend((child, False) for child in _children(node))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_node(path: str, node: yaml.Node) -> None:
    if node.tag.removeprefix("tag:yaml.org,2002:") not in TAGS:
        raise _fault(path, node, f"{quoted(node.tag)} is a type that settings do not have")
    if isinstance(node, yaml.ScalarNode):
        if node.tag.rpartition(":")[2] in ("int", "float") and _MISREAD.fullmatch(node.value):
            raise _fault(path, node, f"{quoted(node.value)} is not a number as people write it: YAML reads another one")
        return
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value == TEMPLATE:
                    raise _fault(path, key, f"{TEMPLATE} would have Snakemake run Python code that stands in the file")
                if key.value in names:
                    raise _fault(path, key, f"{quoted(key.value)} is there twice")
                names.add(key.value)


def _fault(path: str, node: yaml.Node, what: str) -> EqcollapseError:
    return EqcollapseError(f"{path}: line {node.start_mark.line + 1}: {what}")
