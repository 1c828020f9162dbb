"""The audit's core on made-up jobs: what it says, and that its cost is linear."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from eqcollapse.provenance.audit import audit_jobs
from eqcollapse.provenance.pictures import job_graph, stage_graph
from eqcollapse.provenance.reading import read
from eqcollapse.provenance.records import write_record
from eqcollapse.study.jobs import Job, record_path
from eqcollapse.training.config import Train, TrainSpec

CODE = "c0de" * 16


def made_up(number: int, size: int = 200) -> list[Job]:
    """Write files and records of `number` runs that read one split, and of a table that reads all runs."""
    split = job("splits", "results/splits/d/balanced@{}.csv", 0, (), ("{}",))
    runs = [
        job("train", f"results/runs/d/balanced/m/seed-{seed}@{{}}", seed, split.outputs, ("{}/a.csv", "{}/b.bin"))
        for seed in range(number)
    ]
    table = job("table", "results/tables/t.csv", 1, tuple(file for run in runs for file in run.outputs), ("{}",))
    jobs = [split, *runs, table]
    for one in jobs:
        for position, file in enumerate(one.outputs):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_bytes(f"{one.path}{position}".encode() * (size // 20))
        record(one)
    return jobs


def job(stage: str, path: str, seed: int, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Job:
    digest = f"{seed:010x}"
    path = path.format(digest)
    outputs = tuple(file.format(path) for file in outputs)
    settings = Train.model_construct(threads=1, deterministic=True)
    spec = TrainSpec.model_construct(seed=seed, dataset="d", split="balanced", model="m", train=settings)
    return Job(stage, path, digest, spec, inputs, outputs, record_path(outputs))


def record(one: Job, code: str = CODE) -> None:
    words = ["python", "-m", "eqcollapse", one.stage, "--digest", one.digest, "--spec", one.spec_json]
    words += ["--inputs", *one.inputs] if one.inputs else []
    write_record(
        one.record,
        stage=one.stage,
        digest=one.digest,
        command=[*words, "--outputs", *one.outputs],
        spec=one.settings,
        inputs=one.inputs,
        outputs=one.outputs,
        code={"digest": code, "runner": "b" * 64},
        run={"threads": 1, "deterministic": True},
    )


@pytest.fixture
def jobs(tmp_path, monkeypatch) -> list[Job]:
    monkeypatch.chdir(tmp_path)
    return made_up(3)


def audited(jobs: list[Job]):
    return audit_jobs(jobs, lambda stage: CODE)


def test_an_untouched_run_passes(jobs):
    report = audited(jobs).report()
    assert report.passed, report.findings
    assert report.counts["jobs"] == 5
    assert report.counts["files"] == 2 + 3 * 3 + 2


def test_what_is_wrong_has_a_path_and_what_hangs_on_it(jobs):
    Path(jobs[1].outputs[0]).write_text("altered")
    (finding,) = audited(jobs).report().findings
    assert (finding.kind, finding.path) == ("altered", jobs[1].outputs[0])
    assert finding.dependents == ("results/tables/t.csv",)


def test_a_record_has_the_form_of_its_schema_and_a_seal(jobs):
    assert read(jobs[0].record).faults == ()
    body = json.loads(Path(jobs[0].record).read_text())
    Path(jobs[0].record).write_text(json.dumps({**body, "digest": "1" * 10}))
    assert "seal" in read(jobs[0].record).faults[0]
    Path(jobs[0].record).write_text(json.dumps({**body, "user": "me"}))
    assert not read(jobs[0].record).usable


def test_other_code_is_a_cause_and_is_drawn(jobs):
    record(jobs[-1], code="a" * 64)
    old = json.loads(Path(jobs[-1].record).read_text())
    assert old["code"]["digest"] == "a" * 64
    later = job("table", "results/tables/t.csv", 7, jobs[-1].inputs, ("{}",))
    done = audited([*jobs[:-1], replace(later, spec=jobs[-1].spec)])
    assert [(f.kind, f.found) for f in done.report().findings] == [("stale", "the source of stage table changed")]
    picture = job_graph(done.lineage, done.states())
    assert "stale: code" in picture
    assert picture == job_graph(done.lineage, done.states())
    assert "train: 3 jobs" in stage_graph(done.lineage, done.states())


def test_an_older_run_among_todays_is_superseded_not_foreign(jobs):
    findings = audited([jobs[0], *jobs[2:]]).report().findings
    assert ("superseded", "results/runs/d/balanced/m/seed-0@0000000000") in [(f.kind, f.path) for f in findings]
    assert "foreign" not in {finding.kind for finding in findings}


@pytest.mark.slow
def test_cost_grows_with_jobs_not_with_their_square(tmp_path, monkeypatch):
    seconds = {}
    for number in (10, 100, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        jobs = made_up(number)
        for one in jobs[1:-1]:
            Path(one.outputs[0]).write_text("altered")  # the worst case: all is wrong
        start = time.process_time()
        assert len(audited(jobs).report().findings) == number
        seconds[number] = time.process_time() - start
    print(seconds)
    assert seconds[1000] < 20 * seconds[100]
