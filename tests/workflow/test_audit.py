"""The audit of a finished run: it passes as long as nothing is touched, and names every attack by its path."""

import json
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacking import FIGURE, SPLIT, Attack, the
from attacks import ATTACKS
from projects import Project

pytestmark = pytest.mark.workflow

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture(scope="session")
def versioned(finished, tmp_path_factory) -> Project:
    """A finished run that DVC has taken up, in a repository that has dvc.lock, with a remote beside it."""
    folder = tmp_path_factory.mktemp("versioned")
    shutil.copytree(finished.folder, folder / "project", ignore=shutil.ignore_patterns(".snakemake"))
    project = Project(folder / "project")
    if not (project.folder / ".dvc").exists():
        project.run("dvc", "init", "-q")
    project.run("dvc", "repro", "-q")
    project.run("dvc", "remote", "add", "-q", "-f", "-d", "store", str(folder / "store"))
    project.run("dvc", "push", "-q")
    project.run("git", "add", "-A")
    project.run(*GIT, "commit", "-q", "-m", "results")
    return project


def audited(folder: Path, *words: str) -> tuple[int, dict, str]:
    """Run the audit; return its exit code, audit.json and what it said."""
    answer = Project(folder).run("python", "-m", "eqcollapse", "audit", *words, check=False)
    said = answer.stdout + answer.stderr
    assert "Traceback" not in said, said
    return answer.returncode, json.loads((folder / "results/audit.json").read_text()), said


def test_an_untouched_run_never_fails(versioned, tmp_path):
    """Nor does one whose files are copied in another order, at other times: only bytes count."""
    pages = set()
    draw = random.Random(0)
    for repeat in range(20):
        folder = tmp_path / str(repeat)
        shutil.copytree(versioned.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".snakemake", "cache"))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        for path in draw.sample(files, len(files)):
            os.utime(path, (draw.uniform(1, 2e9),) * 2)
        code, report, said = audited(folder, *(["--no-snakemake"] if repeat % 5 else []))
        assert code == 0, said
        assert report["verdict"] == "pass"
        assert report["notes"] == (["Snakemake's own job DAG was not compared"] if repeat % 5 else [])
        pages.add((folder / "results/audit.md").read_text())
        shutil.rmtree(folder)
    assert len(pages) == 2
    assert versioned.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_there_are_at_least_forty_attacks():
    assert len(ATTACKS) >= 40
    assert len({(attack.name, attack.kind) for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_every_attack_is_named(versioned, tmp_path, attack: Attack):
    folder = tmp_path / "attacked"
    shutil.copytree(versioned.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".snakemake", "cache"))
    path = attack.do(folder, random.Random(attack.name))
    code, report, said = audited(folder, *([] if attack.planned else ["--no-snakemake"]))
    assert code == 1, said
    named = [finding for finding in report["findings"] if finding["kind"] == attack.kind and finding["path"] == path]
    assert named, f"{attack.kind} {path} is not among:\n{said}"
    assert path in (folder / "results/audit.md").read_text()
    if attack.hanging:
        hanging = the(folder, attack.hanging) if "*" in attack.hanging else attack.hanging
        assert hanging in named[0]["dependents"]


def test_a_fresh_clone_passes_after_dvc_pull(versioned, tmp_path):
    subprocess.run(["git", "clone", "-q", versioned.folder, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    code, report, said = audited(clone.folder)
    assert code == 0, said
    assert report["counts"]["jobs"] > 5


def test_it_is_a_target_of_snakemake(versioned, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(versioned.folder, folder, symlinks=True)
    assert "The audit passes" in Project(folder).snakemake("audit")
    table = folder / "results/tables/a-table-1.csv"
    table.write_text("altered")
    answer = Project(folder).run("snakemake", "--cores", "1", "audit", check=False)
    assert answer.returncode == 1
    assert "altered: results/tables/a-table-1.csv" in answer.stdout + answer.stderr


def test_the_commands_of_explain_give_the_same_bytes(versioned, tmp_path):
    tree = versioned.run("python", "-m", "eqcollapse", "explain", "--all", FIGURE).stdout
    assert "as recorded" in tree
    assert "network.head: 'explicit' -> 'equilibrium'" in tree
    script = versioned.run("python", "-m", "eqcollapse", "explain", "--commands", FIGURE).stdout
    assert script.strip() in tree
    subprocess.run(["git", "clone", "-q", versioned.folder, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    assert not (clone.folder / FIGURE).exists()
    clone.run("sh", "-c", script)
    assert (clone.folder / FIGURE).read_bytes() == (versioned.folder / FIGURE).read_bytes()


def test_the_commands_of_explain_find_code_that_has_changed_since(versioned, tmp_path):
    """Code that ran before it was committed, and has changed since: the record names the commit before."""
    folder = tmp_path / "later"
    shutil.copytree(versioned.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".snakemake", "cache"))
    project = Project(folder)
    source = folder / "src/eqcollapse/data/splits.py"
    for number in range(2):
        source.write_text(source.read_text() + f"\nNEW_{number} = 1\n")
        if number == 0:
            project.snakemake("splits")
        project.run(*GIT, "commit", "-q", "-a", "-m", f"splits {number}")
    split = the(folder, SPLIT)
    script = project.run("python", "-m", "eqcollapse", "explain", "--commands", split).stdout
    assert "git checkout --quiet" in script
    subprocess.run(["git", "clone", "-q", folder, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    clone.run("sh", "-c", script)
    assert (clone.folder / split).read_bytes() == (folder / split).read_bytes()


def test_a_shallow_clone_says_what_it_cannot_check(versioned, tmp_path):
    """The runner has changed since: its code then is that of a commit which is not here, and nothing is stale."""
    folder = tmp_path / "later"
    shutil.copytree(versioned.folder, folder, symlinks=True, ignore=shutil.ignore_patterns(".snakemake", "cache"))
    source = folder / "src/eqcollapse/runtime/files.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    Project(folder).run(*GIT, "commit", "-q", "-a", "-m", "atomic")
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{folder}", tmp_path / "clone"], check=True)
    for name in ("results", "resources"):
        shutil.copytree(folder / name, tmp_path / "clone" / name, dirs_exist_ok=True)
    code, report, said = audited(tmp_path / "clone", "--no-snakemake")
    assert code == 0, said
    assert any("is not in this clone" in note for note in report["notes"])


def test_code_that_is_in_no_commit_is_named_and_a_commit_mends_it(finished, tmp_path):
    folder = tmp_path / "dirty"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".snakemake"))
    project = Project(folder)
    source = folder / "src/eqcollapse/report/tables/job.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    project.snakemake("report")
    code, report, said = audited(folder, "--no-snakemake")
    assert code == 1
    assert [(f["kind"], f["path"]) for f in report["findings"]] == [("code", "src/eqcollapse/report/tables/job.py")], (
        said
    )
    project.run(*GIT, "commit", "-q", "-a", "-m", "tables")
    assert audited(folder, "--no-snakemake")[0] == 0


def test_an_audit_takes_seconds(versioned):
    """In seconds of processors, Snakemake's own included: other work on the machine is no fault of the audit's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    audited(versioned.folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def references(entity: dict) -> Iterator[str]:
    """Yield what an entity of a crate refers to."""
    for key, value in entity.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and key != "@id":
                yield item["@id"]


def test_the_run_becomes_a_crate(versioned, tmp_path):
    pytest.importorskip("rocrate")
    versioned.run("python", "-m", "eqcollapse", "crate", "--output", str(tmp_path / "crate"))
    graph = json.loads((tmp_path / "crate/ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert {"@id": "https://w3id.org/ro/wfrun/provenance/0.5"} in entities["./"]["conformsTo"]
    assert FIGURE in {result["@id"] for result in entities["#run"]["result"]}
    actions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    records = list((versioned.folder / "results").rglob("*provenance.json"))
    assert len(actions) == 1 + len(records) + 1  # the run, and a job a record: those of results and one data set
    named = {reference for entity in graph for reference in references(entity)}
    assert {name for name in named if "://" not in name} <= set(entities)  # no link leads nowhere
    assert (tmp_path / "crate" / FIGURE).read_bytes() == (versioned.folder / FIGURE).read_bytes()
