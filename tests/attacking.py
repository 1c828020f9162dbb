"""What an attacker does to a finished run; each returns the path that the audit must name."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from eqcollapse.provenance.hashing import content
from eqcollapse.provenance.records import seal
from projects import merged

FIGURE = "results/figures/a-figure-3-digits.svg"
TABLE = "results/tables/a-table-1.csv"
RUN = "results/runs/digits/balanced/explicit/seed-0@*"
OTHER_RUN = "results/runs/digits/balanced/deq/seed-0@*"
SPLIT = "results/splits/digits/balanced/seed-0@*.csv"
OTHER_SPLIT = "results/splits/digits/ka3-r10/seed-0@*.csv"
DATA = "resources/datasets/digits@*"


@dataclass(frozen=True)
class Attack:
    """`do` attacks the run in a folder and returns the path to be named; `hanging` is an output that must be said
    to hang on it (None: nothing does); `planned` if it takes Snakemake's own DAG to see it.
    """

    name: str
    kind: str
    do: Callable[[Path, random.Random], str]
    hanging: str | None = FIGURE
    planned: bool = False


def the(folder: Path, pattern: str) -> str:
    """Return the one path under `folder` that matches, relative to it."""
    (found,) = [path for path in folder.glob(pattern) if not path.name.endswith("provenance.json")]
    return str(found.relative_to(folder))


def record_of(path: str) -> str:
    """Return the record beside an output."""
    folder = path.rpartition("/")[0]
    if "@" in folder:
        return f"{folder}/provenance.json"
    return f"{path}.provenance.json" if "@" in path else f"{path.rpartition('.')[0]}.provenance.json"


def flipped(pattern: str) -> Callable:
    """Change one bit somewhere in a file."""

    def do(folder: Path, rng: random.Random) -> str:
        path = the(folder, pattern)
        held = bytearray((folder / path).read_bytes())
        held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
        (folder / path).write_bytes(held)
        return path

    return do


def rewritten(pattern: str, change: Callable[[str], str], sealed: bool = True, named: str | None = None) -> Callable:
    """Change a text file and its record along with it; `sealed`: by one who knows the seal."""

    def do(folder: Path, rng: random.Random) -> str:
        path = the(folder, pattern)
        (folder / path).write_text(change((folder / path).read_text()))
        now = content(folder / path)
        record = record_of(path)

        def adjust(body: dict) -> None:
            for output in body["outputs"]:
                if output["path"] == path:
                    output.update(bytes=now.bytes, sha256=now.sha256)

        edit_record(folder / record, adjust, sealed)
        return {"record": record}.get(named, path)

    return do


def edit_record(path: Path, change: Callable[[dict], None], sealed: bool = True) -> None:
    """Change a record's content."""
    body = json.loads(path.read_text())
    change(body)
    if sealed:
        body["seal"] = seal(body)
    path.write_text(json.dumps(body, sort_keys=True, indent=1) + "\n")


def record_edited(pattern: str, change: Callable[[dict], None], sealed: bool = True) -> Callable:
    """Change the record of the output that matches."""

    def do(folder: Path, rng: random.Random) -> str:
        record = record_of(the(folder, pattern))
        edit_record(folder / record, change, sealed)
        return record

    return do


def swapped(one: str, other: str, named: str = "{}") -> Callable:
    """Exchange two files or folders."""

    def do(folder: Path, rng: random.Random) -> str:
        first, second = the(folder, one), the(folder, other)
        os.rename(folder / first, folder / "held")
        os.rename(folder / second, folder / first)
        os.rename(folder / "held", folder / second)
        return named.format(first)

    return do


def removed(pattern: str, record: bool = False) -> Callable:
    """Remove an output, or its record."""

    def do(folder: Path, rng: random.Random) -> str:
        path = the(folder, pattern)
        path = record_of(path) if record else path
        (folder / path).unlink()
        return path

    return do


def run_removed(folder: Path, rng: random.Random) -> str:
    path = the(folder, RUN)
    shutil.rmtree(folder / path)
    return f"{path}/model.safetensors"


def replaced(pattern: str, change: Callable[[bytes], bytes], record: bool = False) -> Callable:
    """Replace the bytes of an output, or of its record."""

    def do(folder: Path, rng: random.Random) -> str:
        path = the(folder, pattern)
        path = record_of(path) if record else path
        (folder / path).write_bytes(change((folder / path).read_bytes()))
        return path

    return do


def added(path: str) -> Callable:
    """Add a file that no job made; `path` may begin with a pattern for its folder."""

    def do(folder: Path, rng: random.Random) -> str:
        parent, _, name = path.rpartition("/")
        target = f"{the(folder, parent) if '*' in parent else parent}/{name}"
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text("index,label\n1,2\n")
        return target

    return do


def piped(folder: Path, rng: random.Random) -> str:
    os.mkfifo(folder / "results/pipe")
    return "results/pipe"


def linked(folder: Path, rng: random.Random) -> str:
    (folder / "results/elsewhere").symlink_to("/tmp", target_is_directory=True)
    return "results/elsewhere"


def settings(change: dict, stage: str, fixed: str | None = None) -> Callable:
    """Change params.yaml; the path named is that of today's job of `stage`, or `fixed`."""

    def do(folder: Path, rng: random.Random) -> str:
        path = folder / "params.yaml"
        path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), change), sort_keys=False))
        return fixed or planned(folder, stage)

    return do


def planned(folder: Path, stage: str) -> str:
    from eqcollapse.study.grid import Study
    from eqcollapse.study.params import load

    return next(job.path for job in Study(load(folder / "params.yaml")) if job.stage == stage)


def settings_without_deq(folder: Path, rng: random.Random) -> str:
    settings({"experiments": {"a": {"models": ["explicit"]}}}, "train")(folder, rng)
    return the(folder, OTHER_RUN)


def source(path: str, text: str = "\nNEW = 1\n") -> Callable:
    """Change a source file."""

    def do(folder: Path, rng: random.Random) -> str:
        (folder / path).write_text((folder / path).read_text() + text)
        return path

    return do


def substituted(path: str, old: str, new: str, named: str | None = None) -> Callable:
    """Replace text in a file of the project."""

    def do(folder: Path, rng: random.Random) -> str:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1))
        if named and named.endswith("/provenance.json"):
            return f"{the(folder, named.removesuffix('/provenance.json'))}/provenance.json"
        return the(folder, named) if named else path

    return do


def lock_edited(change: Callable[[dict], None]) -> Callable:
    """Change dvc.lock."""

    def do(folder: Path, rng: random.Random) -> str:
        body = yaml.safe_load((folder / "dvc.lock").read_text())
        change(body["stages"])
        (folder / "dvc.lock").write_text(yaml.safe_dump(body, sort_keys=False))
        return "dvc.lock"

    return do


def image_rebuilt(named: str) -> Callable:
    """Let all records name an image, and lay another one (or another definition) where it was."""

    def do(folder: Path, rng: random.Random) -> str:
        (folder / "containers").mkdir(exist_ok=True)
        image, definition = folder / "containers/eqcollapse.sif", folder / "containers/eqcollapse.def"
        image.write_bytes(b"image")
        definition.write_text("Bootstrap: localimage\n")
        stated = {"sha256": content(image).sha256, "definition": content(definition).sha256}
        for root in ("results", "resources"):
            for path in (folder / root).rglob("*provenance.json"):
                edit_record(path, lambda body: body["environment"].update(image=stated))
        (folder / named).write_text("another")
        return named

    return do


def first(change: Callable[[dict], None], key: str) -> Callable[[dict], None]:
    return lambda body: change(body[key][0])


def extra_sample(text: str) -> str:
    rows = text.splitlines()
    held = {int(row.split(",")[0]) for row in rows[1:]}
    index = next(index for index in range(10**6) if index not in held)
    body = sorted([*rows[1:], f"{index},{rows[1].split(',', 1)[1]}"], key=lambda row: int(row.split(",")[0]))
    return "\n".join([rows[0], *body, ""])


def beyond(text: str) -> str:
    return text + "1797," + text.splitlines()[-1].split(",", 1)[1] + "\n"


def relabelled(text: str) -> str:
    rows = text.splitlines()
    index, label, rest = rows[1].split(",", 2)
    return "\n".join([rows[0], f"{index},{(int(label) + 1) % 10},{rest}", *rows[2:], ""])


def without_a_row(text: str) -> str:
    return "".join(line for number, line in enumerate(text.splitlines(keepends=True)) if number != 5)


def better(text: str) -> str:
    return text.replace("1", "2", 1)


def leaf_edited(params: dict) -> None:
    params[next(iter(params))] = "another"
