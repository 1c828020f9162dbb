"""`dvc exp`: in the workspace, in a folder of its own, from the queue; compared by metrics and params."""

import json

import pytest

from projects import Project, ran

pytestmark = pytest.mark.workflow


def values(project: Project, *words: str) -> dict:
    return json.loads(project.run("dvc", *words, "--json").stdout)


def test_an_experiment_in_the_workspace_is_compared_and_taken_back(study):
    before = study.files()
    jobs = ran(study.dvc("exp", "run", "--name", "low", "-S", "train.lr=0.01"))
    assert jobs["cell"] == 2
    assert "dataset" not in jobs
    changed = values(study, "params", "diff")["params.yaml"]
    assert list(changed) == ["train.lr"]
    assert (changed["train.lr"]["old"], changed["train.lr"]["new"]) == (0.1, 0.01)
    metrics = values(study, "metrics", "diff")["results/metrics/summary.json"]
    assert "digits.balanced.explicit.test_accuracy" in metrics
    assert {"old", "new", "diff"} <= set(metrics["digits.balanced.explicit.nc1"])
    assert "low" in study.dvc("exp", "show", "--only-changed")
    plots = values(study, "plots", "diff", "HEAD")["data"]
    assert {"test accuracy", "nc1", "nc2", "nc3"} <= set(plots)
    revisions = {row["rev"] for row in plots["nc1"][0]["content"]["data"]["values"]}
    assert revisions == {"HEAD", "workspace"}

    study.git("checkout", "-q", "--", "params.yaml", "dvc.lock")
    study.dvc("checkout")
    assert study.files() == before
    assert study.planned() == {}


def test_a_folder_of_its_own_and_the_queue_leave_the_workspace_alone(study):
    before = study.files()
    study.dvc("exp", "run", "--temp", "--name", "aside", "-S", "train.lr=0.01")
    study.dvc("exp", "run", "--queue", "--name", "queued", "-S", "train.lr=0.02")
    study.dvc("exp", "run", "--run-all", "--jobs", "1")
    assert study.files() == before
    assert study.planned() == {}
    shown = json.dumps(values(study, "exp", "show"))
    assert "queued" in shown
    assert "aside" in shown
    assert values(study, "exp", "diff", "aside", "queued")["params"]["params.yaml"]["train.lr"]["new"] == 0.02
    study.dvc("exp", "apply", "queued")
    assert study.planned() == {}
    assert "up to date" in study.dvc("status")
    assert "lr: 0.02" in (study.folder / "params.yaml").read_text()
