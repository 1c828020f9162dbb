"""What lies under the outs of a DVC stage is confirmed only where it is what the study asks for, to the byte."""

import copy
import json
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from eqcollapse.pipeline.confirm import confirm
from eqcollapse.provenance import dvc_stages
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.params import parse

ROOT = Path(__file__).parents[3]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())


@pytest.fixture
def small(content) -> dict:
    content["splits"] |= {"majority": [3], "ratios": [10]}
    return content


@pytest.fixture
def study(small) -> Study:
    return Study(parse(small))


@pytest.fixture
def made(tmp_path, monkeypatch, study) -> Study:
    """A folder in which the study's data, splits and summaries are made."""
    monkeypatch.chdir(tmp_path)
    for stage in ("data", "splits", "summary"):
        for job in study.jobs[stage].values():
            make(job, "first")
    return study


def make(job: Job, content: str) -> None:
    """Write the files of `job` with `content`, and its record of what lies there now."""
    for file in job.outputs:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(f"{file}: {content}\n")
    record = {"digest": job.digest, "inputs": told(job.inputs), "outputs": told(job.outputs)}
    Path(job.record).write_text(json.dumps(record))


def told(files: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"path": file, "sha256": sha256(Path(file).read_bytes()).hexdigest()} for file in files]


DATA, SPLITS = (next(stage for stage in dvc_stages.stages(DVC) if stage.name == name) for name in ("data", "splits"))


def test_what_is_made_is_confirmed(made):
    confirm(made, DATA)
    confirm(made, SPLITS)


def test_what_is_not_there_is_not_confirmed(made, small):
    content = copy.deepcopy(small)
    content["experiments"]["a"]["seeds"] = [*content["experiments"]["a"]["seeds"], 99]
    with pytest.raises(EqcollapseError, match="is not there, but params"):
        confirm(Study(parse(content)), SPLITS)


def test_what_was_changed_is_not_confirmed(made):
    first = next(iter(made.jobs["splits"].values())).path
    Path(first).write_text("index,label,group\n0,0,0\n")
    with pytest.raises(EqcollapseError, match="somebody changed it"):
        confirm(made, SPLITS)


def test_what_other_settings_asked_for_is_put_aside(made):
    """As the cell of a run whose Snakemake was killed, and whose job went on: DVC would take it up."""
    other = Path(next(iter(made.jobs["splits"]))).with_name("balanced@0123456789.csv")
    other.write_text("index,label,group,part\n")
    confirm(made, SPLITS)
    assert not other.exists()
    assert Path(".attic", other).exists()


def test_what_nobody_asked_for_is_not_confirmed(made):
    strange = Path(next(iter(made.jobs["splits"]))).with_name("balanced.csv")
    strange.write_text("index,label,group,part\n")
    with pytest.raises(EqcollapseError, match=r"balanced\.csv: is not asked for"):
        confirm(made, SPLITS)
    strange.rename(
        strange.with_name(f".{strange.name}.12ab34cd.7.partial")
    )  # which a killed job leaves, and DVC ignores
    confirm(made, SPLITS)


def test_what_has_another_record_is_not_confirmed(made):
    job = next(iter(made.jobs["splits"].values()))
    record = json.loads(Path(job.record).read_text())
    Path(job.record).write_text(json.dumps({**record, "digest": "0000000000"}))
    with pytest.raises(EqcollapseError, match="is of other settings"):
        confirm(made, SPLITS)
    Path(job.record).write_text("{}")
    with pytest.raises(EqcollapseError, match="is not a record"):
        confirm(made, SPLITS)


def test_what_was_made_from_another_input_is_not_confirmed(made):
    data = next(iter(made.jobs["data"].values()))
    make(data, "second")  # whole and with its own record, as after a download of other bytes
    confirm(made, DATA)
    old = [job for stage in ("splits", "summary") for job in made.jobs[stage].values()]
    with pytest.raises(EqcollapseError) as caught:
        confirm(made, SPLITS)
    lines = {
        f"{job.outputs[0]}: was made from another {data.outputs[0]} than the one that is there: remove {job.record},"
        for job in old
    }
    assert any(str(caught.value).startswith(line) for line in lines)
    for job in old:
        make(job, "second")
    confirm(made, SPLITS)


def test_a_record_that_leaves_out_an_input_is_not_confirmed(made):
    job = next(iter(made.jobs["splits"].values()))
    record = json.loads(Path(job.record).read_text())
    Path(job.record).write_text(json.dumps({**record, "inputs": []}))
    with pytest.raises(EqcollapseError, match="was made from another resources/datasets/"):
        confirm(made, SPLITS)


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("wrong", ["output", "input", "nothing"])
def test_what_is_kept_of_a_faulty_job_is_forgotten_unless_it_is_right(made, wrong, linked):
    """Or it came back when what is wrong here is removed; a copy of the whole folder has links no more."""
    confirm(made, SPLITS)
    job = next(iter(made.jobs["splits"].values()))
    kept = Path(".attic", job.path)
    if not linked:
        content = kept.read_bytes()
        kept.unlink()
        kept.write_bytes(content)
    if wrong == "output":
        Path(job.path).write_text("changed")
    if wrong == "input":
        for data in made.jobs["data"].values():
            make(data, "second")
    if wrong == "nothing":
        Path(job.path).unlink()
    with pytest.raises(EqcollapseError):
        confirm(made, SPLITS)
    assert kept.exists() == (wrong == "nothing" or (wrong == "output" and not linked))
    assert Path(".attic", job.record).exists() == kept.exists()


def test_what_is_not_pulled_is_not_held_against_what_is(made):
    for job in made.jobs["data"].values():
        for file in job.files:
            Path(file).unlink()
    confirm(made, SPLITS)


def test_a_broken_record_before_it_is_one_line(made):
    Path(next(iter(made.jobs["data"].values())).record).write_text("{")
    with pytest.raises(EqcollapseError, match=r"^resources/.*: is not a record: remove it"):
        confirm(made, SPLITS)
