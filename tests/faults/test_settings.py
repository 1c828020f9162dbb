"""Hundreds of altered params.yaml: each is refused in a line that names the cause, or is a sound study."""

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load
from hostile import bounded, draws, size, tree
from projects import ROOT, Project, cloned

pytestmark = pytest.mark.faults

TEXT = (ROOT / "params.yaml").read_text()
CONTENT = yaml.safe_load(TEXT)
VALUES = [
    None, True, False, -1, 0, 1, -0.5, 0.5, 10**9 + 1, 10**30, 10**400, -(2**63), float("inf"), float("nan"), 1e-320,
    "", " ", "text", "1e", "0x10", "NaN", "1٢", "日本", "a\u202eb", "a" * 1000, "../../etc", "/etc/passwd", "$(id)",
    "{}", "a\nb", [], [[]], [None], ["text"], [0], [1, 1], list(range(1000)), {}, {"text": 1}, {1: 1}, {None: None},
]  # fmt: skip
LR, EPOCHS, SEEDS = r"lr: [\d.e-]+", r"epochs: \d+", r"seeds: \[[\d, ]+\]"
MAJORITY, RATIOS = r"majority: \[[\d, ]+\]", r"ratios: \[[\d, ]+\]"
LAUGHS = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
MAPS = "".join(f"x{n}: &m{n} {{a: *m{n - 1}, b: *m{n - 1}}}\n" for n in range(1, 40))


def line(old: str, new: str) -> str:
    """Return params.yaml with the first match of `old`, whatever number stands there, replaced."""
    text, times = re.subn(old, lambda _: new, TEXT, count=1)
    assert times == 1, old
    return text


REFUSED = {
    "nothing": "",
    "a comment": "# nothing\n",
    "null": "null\n",
    "a list": "- 1\n",
    "a word": "text\n",
    "two documents": f"{TEXT}\n---\n{TEXT}",
    "a NUL": f"{TEXT}\0",
    "a tab": line(f"  {LR}", "\tlr: 0.05"),
    "an open bracket": f"{TEXT}x: [",
    "deep lists": f"{TEXT}x: {'[' * 5000}{']' * 5000}\n",
    "deep maps": f"{TEXT}x: {'{a: ' * 2000}1{'}' * 2000}\n",
    "a billion laughs": f"{TEXT}bomb:\n  a0: &a0 [lol, lol]\n{LAUGHS}",
    "a billion laughs as a value": f"x:\n  a0: &a0 [1, 1]\n{LAUGHS}" + line(LR, "lr: *a11"),
    "laughing maps": f"{TEXT}x0: &m0 {{a: 1}}\n{MAPS}",
    "a list in itself": f"{TEXT}x: &x [*x]\n",
    "a map in itself": line("network:\n", "network: &n\n  stages: *n\n"),
    "an alias to nothing": line(LR, "lr: *nowhere"),
    "2 MB": f"{TEXT}# {'x' * (2 << 20)}\n",
    "a section twice": f"{TEXT}train: {{}}\n",
    "a key twice": line(f"  {LR}", "  lr: 0.05\n  lr: 0.06"),
    "an octal number": line(EPOCHS, "epochs: 010"),
    "a number of base sixty": line(EPOCHS, "epochs: 1:30"),
    "a number of 5000 digits": line(EPOCHS, "epochs: " + "9" * 5000),
    "a number of 400 digits": line(LR, "lr: " + "9" * 400),
    "a date": line(LR, "lr: 2001-01-01"),
    "no date": line(LR, "lr: 2001-99-99"),
    "yes": line(LR, "lr: yes"),
    "a set": line(MAJORITY, "majority: !!set {3, 5}"),
    "bytes": line(LR, "lr: !!binary abcd"),
    "a Python object": line(LR, "lr: !!python/object/apply:os.system [touch planted]"),
    "a Python name": line(LR, "lr: !!python/name:os.system"),
    "a local tag": line(LR, "lr: !lr 0.05"),
    "a template with code": f"__use_yte__: true\n{TEXT}x: ?open('planted', 'w')\n",
    "a template in a template": line("train:\n", "train:\n  __use_yte__: true\n"),
    "UTF-16": TEXT.encode("utf-16"),
    "latin 1": line(LR, "lr: ä").encode("latin-1"),
    "no text": random.Random(0).randbytes(5000),
    "a list as a key": line(r"  digits: \{", "  ? [1, 2]\n  : {"),
    "a number as a key": line(r"  digits: \{", "  1: {"),
    "a name that climbs": line(r"  digits: \{", "  ../up: {"),
    "a name of a space": line(r"  digits: \{", "  ' ': {"),
    "a long name": line(r"  digits: \{", f"  {'a' * 300}: {{"),
    "a long number of base sixty": line(EPOCHS, "epochs: " + ":".join(["59"] * 30_000)),
    "a long octal number": line(EPOCHS, "epochs: 0" + "7" * 90_000),
    "a long hexadecimal number": line(EPOCHS, "epochs: 0x" + "f" * 90_000),
    "a long hexadecimal rate": line(LR, "lr: 0x" + "f" * 90_000),
    "a long key twice": f"{TEXT}{'k' * 300}: 1\n{'k' * 300}: 2\n",
    "a long key": f"{TEXT}? {'k' * 90_000}\n: 1\n",
    "a long name of a model": line(r"models: \[.*?\]", f"models: [{'m' * 90_000}]"),
    "a long split twice": line(r"splits: \[.*?\]", f"splits: [{'s' * 40_000}, {'s' * 40_000}]"),
    "thousands of faults": line(SEEDS, f"seeds: [{', '.join(['-1'] * 5000)}]"),
    "a list of ones": f"x: [{','.join('1' * (1 << 19))}]",
    "a million seeds": line(SEEDS, f"seeds: [{', '.join(map(str, range(15_000)))}]"),
    "a grid of millions": line(RATIOS, f"ratios: [{', '.join(map(str, range(1, 15_000)))}]"),
    "a billion snapshots": line(r"count: \d+", "count: 1000000000"),
}
HANDLED = {
    "a string of digits": line(EPOCHS, f"epochs: '{CONTENT['train']['epochs']}'"),
    "an anchor": line(LR, f"lr: &rate {CONTENT['train']['lr']}").replace("start: 0.3", "start: *rate"),
    "a merged section": line("train:\n", "train:\n  <<: {lr: 0.05}\n"),
    "a byte order mark": f"\ufeff{TEXT}",
    "other line ends": TEXT.replace("\n", "\r\n"),
    "JSON": json.dumps(CONTENT),
    "an unknown letter in a comment": f"{TEXT}# Zürich 日本 \U0001f600\n",
}


def judged(path: Path, text: str | bytes) -> Study | None:
    """Read altered settings as Snakefile and commands do; return the study, None if it is refused as it should be."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        with bounded(seconds=20):
            return Study(load(path))
    except EqcollapseError as error:
        said = str(error).splitlines()
        assert said
        assert all(line.isprintable() and len(line) < 2000 for line in said), said
        assert len(said) <= 60
        assert all(line.startswith((f"{path}:", "params.yaml:")) for line in said), said
        return None


def check_sound(study: Study) -> None:
    """Check that a study which was accepted can be planned: plain paths, and specs that are JSON."""
    for job in study:
        json.dumps(job.settings, allow_nan=False)
        for file in job.files:
            assert file.startswith(("results/", "resources/")), file
            assert re.fullmatch(r"[A-Za-z0-9@._/-]+", file), file
            assert ".." not in file.split("/"), file
            assert max(map(len, file.split("/"))) < 256, file


def leaves(content: object, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every mapping's value, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*path, key)
            yield from leaves(value, (*path, key))


def altered_tree(draw: random.Random) -> str:
    """Return params.yaml with a value put, dropped, moved or added somewhere."""
    content = copy.deepcopy(CONTENT)
    *above, last = draw.choice(list(leaves(content)))
    inside = content
    for key in above:
        inside = inside[key]
    match draw.randrange(5):
        case 0:
            del inside[last]
        case 1:
            inside[draw.choice(["zzz", "", "Lr", "lr ", "日本", "__class__", "<<"])] = inside[last]
        case 2:
            inside[f"{last}s"] = inside.pop(last)
        case _:
            inside[last] = draw.choice(VALUES)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=draw.random() < 0.5)


def altered_text(draw: random.Random) -> bytes:
    """Return params.yaml with some bytes lost, doubled, exchanged, or flipped."""
    text = bytearray(TEXT.encode())
    for _ in range(draw.choice([1, 1, 1, 3, 20])):
        if not text:
            break
        start = draw.randrange(len(text))
        end = min(len(text), start + draw.choice([1, 2, 10, 200]))
        match draw.randrange(5):
            case 0:
                del text[start:end]
            case 1:
                text[start:start] = text[start:end]
            case 2:
                text[start] ^= 1 << draw.randrange(8)
            case 3:
                text[start:start] = draw.choice(["&a ", "*a ", "!!set ", "- ", "? ", ": ", "{", "\u2028", "'"]).encode()
            case _:
                del text[end:]
    return bytes(text)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with a result in it; after the test nothing else is there."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/table.csv").write_text("kept")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    yield tmp_path
    (tmp_path / "params.yaml").unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_study_is_refused(folder, what):
    assert judged(folder / "params.yaml", REFUSED[what]) is None


@pytest.mark.parametrize("what", HANDLED)
def test_what_only_looks_odd_is_the_same_study(folder, what):
    study = judged(folder / "params.yaml", HANDLED[what])
    untouched = judged(folder / "params.yaml", TEXT)
    assert {job.path for job in study.jobs["train"].values()} == {job.path for job in untouched.jobs["train"].values()}


def test_hundreds_of_draws(folder):
    draw = draws("settings")
    refused = 0
    for number in range(size(3000, 300)):
        text = altered_tree(draw) if number % 3 else altered_text(draw)
        study = judged(folder / "params.yaml", text)
        if study is None:
            refused += 1
        else:
            check_sound(study)
    print(f"{refused} of {number + 1} altered params.yaml were refused, the others planned")
    assert refused > number / 2


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A clone, for the real command."""
    return cloned(tmp_path_factory.mktemp("settings") / "project")


@pytest.mark.parametrize(
    "what",
    [
        "a template with code", "a billion laughs", "a key twice",
        *size(["nothing", "laughing maps", "a list in itself", "UTF-16", "a million seeds", "deep lists"], []),
    ],
)  # fmt: skip
def test_snakemake_itself_says_one_line(project, what):
    text = REFUSED[what]
    path = project.folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (project.folder / "results").mkdir(exist_ok=True)
    (project.folder / "results/table.csv").write_text("kept")
    before = tree(project.folder / "results")
    answer = project.run("snakemake", "--cores", "1", check=False)
    said = [line for line in answer.stderr.splitlines() if "profile" not in line]
    assert answer.returncode == 1
    assert said, answer.stdout
    assert all(line.startswith("params.yaml") for line in said), said
    assert not (project.folder / "planted").exists()
    assert tree(project.folder / "results") == before
