"""`dvc repro` after an edit does exactly what it should, in every history, and agrees with plain Snakemake."""

import json
import re
import shutil
from hashlib import sha256

import pytest
import yaml

from projects import Project, children_seconds, ran

pytestmark = pytest.mark.workflow

BEFORE = {"dataset", "split", "experiment"}
"""The rules whose jobs do not hang on how cells are trained."""


def lock(project: Project) -> bytes:
    return (project.folder / "dvc.lock").read_bytes()


def is_clean(project: Project) -> bool:
    """Whether DVC and Snakemake both find all done."""
    status = project.dvc("status")
    planned = project.planned()
    assert "up to date" in status, status
    assert planned == {}, planned
    return True


def test_a_finished_study_is_clean_and_idle_in_four_seconds(versioned):
    before = lock(versioned)
    assert is_clean(versioned)
    start = children_seconds()
    said = versioned.dvc("repro")
    assert children_seconds() - start < 4
    assert "Data and pipelines are up to date." in said
    assert lock(versioned) == before
    assert not versioned.git("status", "--short")


def test_a_seed_there_and_back(study):
    first, before = lock(study), study.files()
    study.edit({"experiments": {"a": {"seeds": [0, 1]}}})
    jobs = ran(study.dvc("repro"))
    assert (jobs["cell"], jobs["split"]) == (2, 2)
    assert not set(jobs) & {"dataset", "experiment"}
    assert is_clean(study)
    assert len(list((study.folder / "results/runs").rglob("history.csv"))) == 4

    study.edit({"experiments": {"a": {"seeds": [0]}}})
    assert "cell" not in ran(study.dvc("repro"))
    assert not list((study.folder / "results").rglob("seed-1@*"))
    assert is_clean(study)
    assert lock(study) == first
    assert study.files() == before


def test_a_ratio_and_a_data_set_train_only_what_is_new(study):
    settings = yaml.safe_load((study.folder / "params.yaml").read_text())
    same = settings["datasets"]["digits"]
    study.edit({"splits": {"ratios": [10, 50]}})
    jobs = ran(study.dvc("repro"))
    assert (jobs["cell"], jobs["split"]) == (1, 1)
    assert "dataset" not in jobs
    few = {**same, "per_class": 20}
    study.edit({"datasets": {"few": few}, "experiments": {"a": {"datasets": ["digits", "few"]}}})
    jobs = ran(study.dvc("repro"))
    assert (jobs["cell"], jobs["split"], jobs["dataset"]) == (3, 3, 1)
    assert is_clean(study)


def test_a_learning_rate_by_dvc_and_back_by_snakemake_and_by_git(study):
    first, before = lock(study), study.files()
    study.edit({"train": {"lr": 0.01}})
    jobs = ran(study.dvc("repro"))
    assert jobs["cell"] == 2
    assert not set(jobs) & BEFORE
    study.commit("a lower learning rate")
    other, others = lock(study), study.files()

    study.edit({"train": {"lr": 0.1}})  # back by plain snakemake, which DVC then only has to look at
    assert "cell" not in ran(study.snakemake())
    assert study.files() == before
    assert "cell" not in ran(study.dvc("repro"))
    assert lock(study) == first
    assert is_clean(study)

    study.git("checkout", "-q", "--", ".")  # forth by git and DVC, which know nothing of the attic
    study.dvc("checkout")
    assert lock(study) == other
    assert study.files() == others
    assert is_clean(study)

    study.git("checkout", "-q", "HEAD~1")
    study.dvc("checkout")
    assert study.files() == before
    assert is_clean(study)

    study.edit({"train": {"lr": 0.01}})  # forth by hand, from a results/ that DVC has cleared of the other cells
    assert not {"cell", "experiment", *BEFORE} & set(ran(study.dvc("repro")))
    assert is_clean(study)


def test_the_look_of_figures_draws_figures_only(study):
    first, before = lock(study), study.files()
    study.edit({"report": {"figures": {"dpi": 90}}})
    said = study.dvc("repro")
    assert "cell" not in ran(said)
    assert "metrics" not in ran(said)
    assert ran(said)["figure"] > 0
    assert is_clean(study)
    study.edit({"report": {"figures": {"dpi": 150}}})
    study.dvc("repro")
    assert lock(study) == first
    assert study.files() == before
    assert is_clean(study)


def turned(content: dict) -> dict:
    """Return settings with the keys of every mapping the other way round."""
    return {key: turned(value) if isinstance(value, dict) else value for key, value in reversed(content.items())}


def test_the_order_of_keys_is_no_edit(study):
    path = study.folder / "params.yaml"
    few = {"source": "digits", "size": None, "per_class": 20, "majority": None}
    more = {"datasets": ["few"], "splits": ["balanced"], "models": ["explicit"], "seeds": [0], "report": "none"}
    study.edit({"datasets": {"few": few}, "experiments": {"more": more}})
    study.dvc("repro")
    before = study.files()
    path.write_text(yaml.safe_dump(turned(yaml.safe_load(path.read_text())), sort_keys=False))
    assert is_clean(study)
    study.edit({"report": {"figures": {"dpi": 90}}})  # the settings' order is another one for DVC's report stage, too
    assert not {"cell", "metrics", "table"} & set(ran(study.dvc("repro")))
    assert is_clean(study)
    study.edit({"report": {"figures": {"dpi": 150}}, "experiments": {"a": {"seeds": [1, 0]}}})
    assert ran(study.dvc("repro"))["cell"] == 2
    study.edit({"experiments": {"a": {"seeds": [0, 1]}}})  # a list, which the collapse stage does not watch
    assert not {"cell", "metrics"} & set(ran(study.dvc("repro")))
    assert is_clean(study)
    study.edit({"experiments": {"a": {"seeds": [0]}}})
    study.dvc("repro")
    assert study.files() == before


@pytest.mark.parametrize("words", [("repro",), ("commit", "-f")])
def test_snakemake_there_and_back_and_dvc_only_looks(study, words):
    first, before = lock(study), study.files()
    study.edit({"train": {"lr": 0.02}})
    assert ran(study.snakemake())["cell"] == 2
    files = study.files()
    assert "cell" not in ran(study.dvc(*words))
    assert study.files() == files
    assert is_clean(study)

    study.edit({"train": {"lr": 0.1}})
    assert ran(study.snakemake()) == {}
    assert study.files() == before
    assert ran(study.dvc(*words)) == {}
    assert lock(study) == first
    assert is_clean(study)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"lr": -1}}, "params.yaml: train.lr: -1 is not allowed: must be greater than 0"),
        ({"train": {"lrr": 1}}, "params.yaml: train.lrr: is not a key"),
        ({"device": "gpu"}, "params.yaml: device: 'gpu' is not allowed"),
        ({"sweep": 1}, "params.yaml: sweep: is not a key"),
        (
            {"experiments": {"a": {"models": ["nope"]}}},
            "params.yaml: experiments.a.models: 'nope' is not one of models",
        ),
    ],
)
def test_a_bad_value_says_the_same_line_through_dvc(study, change, words):
    first, before = lock(study), study.files()
    study.edit(change)
    answer = study.run("dvc", "repro", check=False)
    said = answer.stdout + answer.stderr
    assert answer.returncode != 0
    assert [line for line in said.splitlines() if line.removeprefix("eqcollapse check: ").startswith(words)]
    assert "Traceback" not in said
    assert lock(study) == first
    assert study.files() == before


def test_a_missing_key_says_the_same_line_through_dvc(study):
    settings = yaml.safe_load((study.folder / "params.yaml").read_text())
    del settings["train"]["lr"]
    (study.folder / "params.yaml").write_text(yaml.safe_dump(settings))
    assert "params.yaml: train.lr: is missing" in study.dvc("repro", check=False)


def without_records(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the records: they name the commit at which a job ran."""
    return {name: content for name, content in files.items() if not name.endswith("provenance.json")}


def test_a_result_changed_by_hand_is_not_recorded(study):
    first, before = lock(study), study.files()
    study.run("python", "-m", "eqcollapse", "confirm", "train")  # links to the attic: this study is a copy
    history = next((study.folder / "results/runs").rglob("history.csv"))
    history.write_text(history.read_text().replace("0.", "1."))
    answer = study.run("dvc", "repro", check=False)
    assert answer.returncode != 0
    assert "is not what was made" in answer.stdout + answer.stderr
    assert lock(study) == first
    history.unlink()
    assert ran(study.dvc("repro"))["cell"] == 1
    assert without_records(study.files()) == without_records(before)
    assert is_clean(study)


def test_a_cell_that_was_made_from_another_split_is_not_recorded(study):
    """As where a file was made anew, by another version of something, and came out otherwise."""
    split = next((study.folder / "results/splits").rglob("balanced/seed-*.csv"))
    split.write_text("".join(split.read_text().splitlines(keepends=True)[:-1]))
    record = split.with_name(f"{split.name}.provenance.json")
    content = json.loads(record.read_text())
    content["outputs"] = [{**content["outputs"][0], "sha256": sha256(split.read_bytes()).hexdigest()}]
    record.write_text(json.dumps(content))
    said, removed = study.dvc("repro", check=False), []
    while advice := re.search(r"^eqcollapse confirm: .* was made from another .*: remove (\S+), and run", said, re.M):
        removed.append(advice[1])
        assert len(removed) < 10, said
        path = study.folder / advice[1]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        said = study.dvc("repro", check=False)
    assert re.fullmatch(r"results/runs/digits/balanced/explicit/seed-0@\w+/provenance.json", removed[0])
    assert removed[1] == "results/metrics"
    assert is_clean(study)


def test_no_theory_is_no_fault(study):
    settings = yaml.safe_load((study.folder / "params.yaml").read_text())
    settings["theory"] = {}
    (study.folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    study.dvc("repro")
    assert is_clean(study)


def test_every_output_of_the_dag_is_of_the_study_and_of_a_stage(versioned):
    lines = versioned.run("snakemake", "--summary").stdout.splitlines()
    outputs = {line.split("\t")[0] for line in lines if line.startswith(("results/", "resources/"))}
    assert outputs == set(versioned.files())
    outs = [line.split()[0] for line in versioned.dvc("stage", "list", "--all").splitlines()]
    assert sorted(outs) == ["collapse", "data", "report", "settings", "splits", "theory", "train"]
