"""A clone that pulls has nothing to do, whatever its files' times are, and goes on from there like the original."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from projects import Project, ran

pytestmark = pytest.mark.workflow

COSTLY = {"dataset", "split", "cell", "experiment", "metrics"}


@pytest.fixture(scope="module")
def shared(versioned, tmp_path_factory) -> Path:
    """A folder to which the finished study is pushed."""
    folder = tmp_path_factory.mktemp("remote")
    origin = versioned.copy(tmp_path_factory.mktemp("origin") / "project")
    origin.dvc("remote", "add", "--local", "--default", "lab", str(folder))
    origin.dvc("push")
    return folder


@pytest.fixture
def clone(versioned, shared, tmp_path) -> Project:
    """A clone, to which nothing is pulled yet."""
    project = versioned.clone(tmp_path / "clone")
    project.dvc("remote", "add", "--local", "--default", "lab", str(shared))
    return project


@pytest.fixture
def pulled(clone) -> Project:
    """A clone with all results and the times of its files shuffled over a year."""
    clone.dvc("pull")
    shuffle(clone)
    return clone


def shuffle(project: Project) -> None:
    """Give every file a random time within the last year."""
    draw = random.Random(0)
    for path in sorted(project.folder.rglob("*")):
        if path.is_file() and ".git" not in path.parts and ".dvc" not in path.parts:
            then = time.time() - draw.uniform(0, 365 * 86400)
            os.utime(path, (then, then))


def test_nothing_is_to_be_done_after_a_pull(versioned, pulled):
    assert not (pulled.folder / ".snakemake/metadata").exists()
    assert pulled.files() == versioned.files()
    assert pulled.planned() == {}
    assert "up to date" in pulled.dvc("status")
    assert "Data and pipelines are up to date." in pulled.dvc("repro")
    assert not pulled.git("status", "--short")


def test_exactly_what_hangs_on_an_edit_is_planned_in_a_clone(pulled):
    settings = pulled.folder / "params.yaml"
    before = settings.read_text()
    for change, costly in [
        ({"train": {"lr": 0.01}}, {"cell": 2, "metrics": 1}),
        ({"report": {"figures": {"dpi": 90}}}, {}),
    ]:
        pulled.edit(change)
        planned = pulled.planned()
        assert {rule: count for rule, count in planned.items() if rule in COSTLY} == costly
        assert planned["figure"] > 0
        settings.write_text(before)
    assert pulled.planned() == {}
    source = pulled.folder / "src/eqcollapse/training/schedule.py"
    code = source.read_text()
    source.write_text(code + "\n# why\n")
    assert pulled.planned() == {}
    source.write_text(code + "\nNEW = 1\n")
    assert pulled.planned()["cell"] == 2
    assert "split" not in pulled.planned()
    source.write_text(code)
    assert pulled.planned() == {}


def test_a_change_in_a_clone_gives_what_a_fresh_run_gives(pulled, versioned, tmp_path):
    fresh = versioned.clone(tmp_path / "fresh")
    for project in (pulled, fresh):
        project.edit({"report": {"figures": {"dpi": 90}}, "train": {"lr": 0.01}})
        for name in ("training/schedule.py", "report/style.py"):
            source = project.folder / "src/eqcollapse" / name
            source.write_text(source.read_text() + "\n# why\nNEW = 1\n")
    jobs = ran(pulled.dvc("repro"))
    assert jobs["cell"] == 2
    assert not set(jobs) & {"dataset", "split", "experiment"}
    fresh.snakemake()
    ours, theirs = pulled.files("results/runs", "results/metrics"), fresh.files("results/runs", "results/metrics")
    assert ours == theirs
    shown = list(fresh.files("results/figures", "results/tables"))
    assert {name: pulled.files()[name] for name in shown} == {name: fresh.files()[name] for name in shown}


def test_tables_and_figures_alone_leave_nothing_to_do_for_the_report(clone):
    clone.dvc("pull", "report")
    assert not (clone.folder / "results/runs").exists()
    assert "Nothing to be done" in clone.snakemake("--dry-run", "report")
    assert (clone.folder / "results/tables/a-table-1.md").exists()


def test_a_missing_remote_is_no_riddle(versioned, tmp_path):
    clone = versioned.clone(tmp_path / "clone")
    assert "No remote" in clone.dvc("pull", check=False) or "remote" in clone.dvc("pull", check=False)
    assert clone.planned()["cell"] == 2


@pytest.fixture
def bucket(tmp_path):
    """A bucket on a local S3 server."""
    server = shutil.which("moto_server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    pytest.importorskip("dvc_s3", reason="there is no dvc[s3]")
    if not server:
        pytest.skip("there is no moto[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(tmp_path / "moto.log", "w")  # noqa: SIM115
    process = subprocess.Popen([server, "-p", str(port)], stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait()
        log.close()


def _make_bucket(endpoint: str) -> None:
    import requests

    for _ in range(100):
        try:
            assert requests.put(f"{endpoint}/lab", timeout=5).ok
            return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise AssertionError("the S3 server does not answer")


def test_cells_are_shared_through_s3(study, bucket, tmp_path):
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    clone = study.clone(tmp_path / "clone")
    for project in (study, clone):
        project.dvc("remote", "add", "--local", "--default", "lab", "s3://lab/eqcollapse")
        project.dvc("remote", "modify", "--local", "lab", "endpointurl", bucket)
    study.run("dvc", "push", **keys)
    clone.run("dvc", "pull", **keys)
    assert clone.files() == study.files()
    assert clone.planned() == {}
