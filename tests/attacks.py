"""Attacks on a finished run: each changes something and says which path the audit must name, and what hangs on it."""

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
SPLIT = "results/splits/digits/balanced@*.csv"
OTHER_SPLIT = "results/splits/digits/ka3-r10@*.csv"
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
        return fixed or _planned(folder, stage)

    return do


def _planned(folder: Path, stage: str) -> str:
    from eqcollapse.params import load
    from eqcollapse.study import Study

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


def _first(change: Callable[[dict], None], key: str) -> Callable[[dict], None]:
    return lambda body: change(body[key][0])


def _extra_sample(text: str) -> str:
    rows = text.splitlines()
    held = {int(row.split(",")[0]) for row in rows[1:]}
    index = next(index for index in range(10**6) if index not in held)
    body = sorted([*rows[1:], f"{index},{rows[1].split(',', 1)[1]}"], key=lambda row: int(row.split(",")[0]))
    return "\n".join([rows[0], *body, ""])


def _beyond(text: str) -> str:
    return text + "1797," + text.splitlines()[-1].split(",", 1)[1] + "\n"


def _relabelled(text: str) -> str:
    rows = text.splitlines()
    index, label, rest = rows[1].split(",", 2)
    return "\n".join([rows[0], f"{index},{(int(label) + 1) % 10},{rest}", *rows[2:], ""])


def _without_a_row(text: str) -> str:
    return "".join(line for number, line in enumerate(text.splitlines(keepends=True)) if number != 5)


def _better(text: str) -> str:
    return text.replace("1", "2", 1)


ATTACKS = [
    *(
        Attack(f"one bit of {pattern.rpartition('/')[2]}", "altered", flipped(pattern), hanging)
        for pattern, hanging in [
            (SPLIT, FIGURE), (OTHER_SPLIT, TABLE), (f"{DATA}/train.safetensors", SPLIT),
            (f"{DATA}/test.safetensors", FIGURE), (f"{RUN}/history.csv", TABLE), (f"{RUN}/model.safetensors", None),
            (f"{RUN}/snapshots.safetensors", FIGURE), (f"{OTHER_RUN}/features.safetensors", None),
            ("results/metrics/collapse.csv", FIGURE), ("results/metrics/accuracy.csv", TABLE), (TABLE, None),
            ("results/tables/a-table-1.md", None), ("results/tables/a-table-2.tex", None), (FIGURE, None),
            ("results/figures/a-figure-3-digits.png", None), ("results/figures/a-figure-3-digits.pdf", None),
        ]
    ),
    Attack("a history cut short", "altered", replaced(f"{RUN}/history.csv", lambda held: held[:-20])),
    Attack("a line end added to a table", "altered", replaced(TABLE, lambda held: held + b"\n"), None),
    Attack("a model emptied", "altered", replaced(f"{RUN}/model.safetensors", lambda held: b""), None),
    Attack("a table edited along with its record", "record", rewritten(TABLE, _better, False, "record"), TABLE),
    Attack("a table edited along with its record and seal", "content", rewritten(TABLE, _better), None),
    Attack("a split with an extra sample", "content", rewritten(SPLIT, _extra_sample)),
    Attack("a split with a sample that is not of the training set", "content", rewritten(SPLIT, _beyond)),
    Attack("a split with a wrong label", "content", rewritten(SPLIT, _relabelled)),
    Attack("a split with a sample too few", "content", rewritten(OTHER_SPLIT, _without_a_row)),
    Attack("a split rewritten, seen downstream", "input", lambda folder, rng: [
        rewritten(SPLIT, _extra_sample)(folder, rng), f"{the(folder, RUN)}/provenance.json"][1]),
    Attack("a history rewritten along with its record and seal", "input", lambda folder, rng: [
        rewritten(f"{RUN}/history.csv", _better)(folder, rng), "results/metrics/collapse.provenance.json"][1]),
    Attack("two runs swapped", "record", swapped(RUN, OTHER_RUN, "{}/provenance.json")),
    Attack("the models of two runs swapped", "altered",
           swapped(f"{RUN}/model.safetensors", f"{OTHER_RUN}/model.safetensors"), None),
    Attack("two splits swapped", "altered", swapped(SPLIT, OTHER_SPLIT)),
    Attack("the learning rate changed afterwards", "stale", settings({"train": {"lr": 0.02}}, "train")),
    Attack("the seed of the splits changed afterwards", "stale", settings({"splits": {"seed": 3}}, "splits")),
    Attack("the look of figures changed afterwards", "stale",
           settings({"report": {"figures": {"dpi": 99}}}, "figure", "results/figures/a-figure-3-digits.pdf")),
    Attack("the solver changed afterwards", "stale", settings(
        {"equilibrium": {"forward": {"max_iter": 9}}}, "collapse", "results/metrics/collapse.csv")),
    Attack("a seed asked for afterwards", "stale", settings(
        {"experiments": {"a": {"seeds": [0, 1]}}}, "table", "results/tables/a-table-1.csv"), TABLE),
    Attack("a model no longer asked for", "superseded", settings_without_deq, None),
    Attack("training code changed", "code", source("src/eqcollapse/training/loop.py")),
    Attack("report code changed", "code", source("src/eqcollapse/report/figures.py")),
    Attack("metrics code changed", "code", source("src/eqcollapse/measurement.py")),
    Attack("data code changed", "code", source("src/eqcollapse/data/images.py")),
    Attack("the command line's code changed", "code", source("src/eqcollapse/__main__.py")),
    Attack("the code that writes records changed", "code", source("src/eqcollapse/provenance/records.py")),
    Attack("the code that files are written by changed", "code", source("src/eqcollapse/atomic.py")),
    Attack("the record of a run deleted", "missing", removed(f"{RUN}/model.safetensors", True)),
    Attack("the record of a split deleted", "missing", removed(SPLIT, True)),
    Attack("the record of a table deleted", "missing", removed(TABLE, True), TABLE),
    Attack("the record of a data set deleted", "missing", removed(f"{DATA}/train.safetensors", True)),
    Attack("a record cut short", "record", replaced(SPLIT, lambda held: held[:-30], True)),
    Attack("a record replaced by another format", "record", replaced(SPLIT, lambda held: b"{}", True)),
    Attack("a record's settings edited", "record",
           record_edited(f"{RUN}/history.csv", lambda body: body["spec"]["train"].update(lr=0.9), False)),
    Attack("a record's settings edited along with its seal", "record",
           record_edited(f"{RUN}/history.csv", lambda body: body["spec"]["train"].update(lr=0.9))),
    Attack("a record's input edited along with its seal", "input",
           record_edited(f"{RUN}/history.csv", _first(lambda file: file.update(sha256="0" * 64), "inputs"))),
    Attack("a record's output dropped along with its seal", "record",
           record_edited(f"{RUN}/history.csv", lambda body: body["outputs"].pop())),
    Attack("a record's code edited along with its seal", "record",
           record_edited(SPLIT, lambda body: body["code"].update(digest="0" * 64))),
    Attack("a record's command edited along with its seal", "record",
           record_edited(SPLIT, lambda body: body["command"].__setitem__(5, "0123456789"))),
    Attack("a record's digest edited along with its seal", "record",
           record_edited(SPLIT, lambda body: body.update(digest="0123456789"))),
    Attack("a record's bytes edited along with its seal", "altered", lambda folder, rng: [
        record_edited(FIGURE, _first(lambda file: file.update(bytes=7), "outputs"))(folder, rng),
        "results/figures/a-figure-3-digits.pdf"][1], None),
    Attack("a record's bytes of an input edited along with its seal", "input",
           record_edited(f"{RUN}/history.csv", _first(lambda file: file.update(bytes=7), "inputs"))),
    Attack("a record's threads edited along with its seal", "record",
           record_edited(f"{RUN}/history.csv", lambda body: body["run"].update(threads=7))),
    Attack("a record's code of the command line edited along with its seal", "code",
           record_edited(f"{RUN}/history.csv", lambda body: body["code"].update(runner="0" * 64))),
    Attack("a record with a key twice", "record", replaced(
        SPLIT, lambda held: held.replace(b'"stage"', b'"stage": "train", "stage"', 1), True)),
    Attack("claims rewritten along with their record and seal", "content", rewritten(
        "results/claims.md", lambda text: text.replace("undecided", "supported")), None),
    Attack("a table said to be of other packages, along with its record and seal", "content", lambda folder, rng: [
        rewritten(TABLE, _better)(folder, rng),
        record_edited(TABLE, lambda body: body["environment"]["packages"].update(pandas="1.0"))(folder, rng), TABLE][2],
        None),
    Attack("a foreign table", "foreign", added("results/tables/b-table-9.csv"), None),
    Attack("a foreign file in a run", "foreign", added(f"{RUN}/best.pt"), None),
    Attack("a foreign split", "foreign", added("results/splits/digits/mine.csv"), None),
    Attack("a foreign data set", "foreign", added("resources/datasets/mine/train.safetensors"), None),
    Attack("a foreign record", "foreign", added("results/tables/x.provenance.json"), None),
    Attack("a foreign pipe", "foreign", piped, None),
    Attack("a foreign link to a folder", "foreign", linked, None),
    Attack("a model deleted", "missing", removed(f"{RUN}/model.safetensors"), None),
    Attack("a figure deleted", "missing", removed(FIGURE), None),
    Attack("a run deleted", "missing", run_removed, None),
    Attack("dvc.lock: the hash of the runs edited", "dvc",
           lock_edited(lambda stages: stages["train"]["outs"][0].update(md5="0" * 32 + ".dir"))),
    Attack("dvc.lock: settings edited", "dvc",
           lock_edited(lambda stages: _leaf_edited(stages["train"]["params"]["params.yaml"]))),
    Attack("dvc.lock: a stage dropped", "dvc", lock_edited(lambda stages: stages.pop("splits"))),
    Attack("dvc.lock: a dep dropped", "dvc", lock_edited(lambda stages: stages["train"]["deps"].pop()), FIGURE),
    Attack("dvc.lock damaged", "dvc", substituted("dvc.lock", "stages:", "stages: [")),
    Attack("dvc.lock: a command edited", "dvc",
           lock_edited(lambda stages: stages["report"].update(cmd="snakemake nothing"))),
    Attack("the image rebuilt", "image", image_rebuilt("containers/eqcollapse.sif")),
    Attack("the image's definition changed", "image", image_rebuilt("containers/eqcollapse.def")),
    Attack("a rule given another command", "snakemake", substituted(
        "workflow/rules/train.smk", "--outputs", "--extra --outputs", f"{RUN}/provenance.json"), FIGURE, True),
    Attack("a rule that does more", "snakemake", substituted(
        "workflow/rules/train.smk", "> {log} 2>&1", "> {log} 2>&1; date >> {output.history}", f"{RUN}/provenance.json"),
        FIGURE, True),
    Attack("a rule that reads nothing", "snakemake", substituted(
        "workflow/rules/collapse.smk", "histories=ancient(STUDY.outputs(\"train\", \"history.csv\"))",
        "histories=[]", "results/metrics/collapse.csv"), FIGURE, True),
    Attack("a Snakefile that cannot be read", "snakemake",
           substituted("Snakefile", "rule data:", "rule data"), None, True),
]  # fmt: skip


def _leaf_edited(params: dict) -> None:
    params[next(iter(params))] = "another"
