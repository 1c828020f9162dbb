"""The grid, and what a change of params.yaml makes anew."""

import json
import subprocess
import sys
import time
from itertools import permutations

import pytest

from eqcollapse.data.order import natural
from eqcollapse.study.grid import Study, snapshot_epochs
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES


@pytest.fixture
def content(content) -> dict:
    """Paper A's grid of the demo, with one seed."""
    content["experiments"] = {"a": content["experiments"]["a"] | {"seeds": [0]}}
    return content


def study(content: dict) -> Study:
    return Study(parse(content))


def paths(content: dict) -> dict[str, set[tuple[str, str]]]:
    return {stage: {(job.path, job.digest) for job in jobs.values()} for stage, jobs in study(content).jobs.items()}


def changed(before: dict, after: dict) -> dict[str, int]:
    """How many jobs of each stage are new."""
    return {stage: len(after[stage] - before[stage]) for stage in STAGES if after[stage] - before[stage]}


def test_the_demo_is_the_full_grid_of_paper_a(content):
    jobs = study(content).jobs
    assert {job.spec.split for job in jobs["splits"].values()} == {
        "balanced",
        *(f"ka{majority}-r{ratio}" for majority in (3, 5, 7) for ratio in (10, 50, 100)),
    }
    assert len(jobs["train"]) == 20
    assert {job.path.rpartition("/")[2] for job in jobs["table"].values()} >= {f"a-table-{n}.csv" for n in (1, 2, 3, 4)}


REPORTED = {"collapse": 1, "table": 5, "figure": 5, "claims": 1, "page": 1}


def test_a_seed_adds_its_splits_and_cells_and_changes_no_other(content):
    before = paths(content)
    content["experiments"]["a"]["seeds"] = [0, 1]
    after = paths(content)
    assert changed(before, after) == {"splits": 10, "train": 20, **REPORTED}
    assert before["train"] <= after["train"]
    assert before["splits"] <= after["splits"]


def test_every_run_reads_the_split_of_its_seed_which_both_models_share(content):
    content["experiments"]["a"]["seeds"] = [0, 7]
    jobs = study(content).jobs
    assert len(jobs["splits"]) == 20
    for job in jobs["train"].values():
        *_, split = job.inputs
        assert jobs["splits"][split].spec.seed == job.spec.seed
        assert split.startswith(f"results/splits/digits/{job.spec.split}/seed-{job.spec.seed}@")


def test_one_draw_can_serve_all_seeds(content):
    content["splits"]["seed"] = 5
    before = paths(content)
    content["experiments"]["a"]["seeds"] = [0, 1]
    after = paths(content)
    assert changed(before, after) == {"train": 20, **REPORTED}
    assert {path.rpartition("/")[2].partition("@")[0] for path, _ in after["splits"]} == {"seed-5"}


def test_a_ratio_adds_its_splits_and_cells(content):
    before = paths(content)
    content["splits"]["ratios"].append(20)
    counts = changed(before, paths(content))
    assert (counts["splits"], counts["train"]) == (3, 6)
    assert "data" not in counts


def test_long_tails_stand_beside_the_grid_of_paper_a(content):
    content["datasets"]["cifar10"] = {"source": "cifar10"}
    content["experiments"]["a"] |= {"datasets": ["cifar10"], "seeds": [0, 1]}
    content["experiments"]["a"]["splits"] = ["longtail-100", "balanced", "ka3-r10", "ldam-10", "longtail-12.5"]
    jobs = study(content).jobs
    specs = {(job.spec.split, job.spec.seed): job.spec for job in jobs["splits"].values()}
    assert {(split, seed) for split, seed in specs if split.startswith("l")} == {
        ("longtail-100", 0), ("longtail-100", 1), ("longtail-12.5", 0), ("longtail-12.5", 1), ("ldam-10", 0),
    }  # fmt: skip
    assert (specs["longtail-12.5", 1].factor, specs["longtail-12.5", 1].draw) == (12.5, "sha256")
    assert (specs["ldam-10", 0].factor, specs["ldam-10", 0].draw) == (10, "ldam")
    tables = {job.path.rpartition("/")[2]: job.spec.splits for job in jobs["table"].values() if "/a-table" in job.path}
    assert tables == {
        "a-table-1.csv": {"cifar10": ["balanced"]},
        "a-table-2.csv": {"cifar10": ["ka3-r10"]},
        "a-table-longtail.csv": {"cifar10": ["longtail-100", "ldam-10", "longtail-12.5"]},
    }
    figures = {job.path.rpartition("/")[2] for job in jobs["figure"].values()}
    assert {"a-figure-appendix-cifar10-longtail.pdf", "a-figure-appendix-cifar10-ldam.pdf"} <= figures
    (claims,) = jobs["claims"].values()
    assert claims.spec.networks.splits == {"cifar10": ["balanced", "ka3-r10"]}


def test_runs_are_measured_in_the_order_of_their_numbers(content):
    content["experiments"]["a"]["seeds"] = [10, 2]
    content["splits"]["ratios"] = [100, 2.25, 2.5, 50]
    (measured,) = study(content).jobs["collapse"].values()
    runs = [file.split("/")[3:6] for file in measured.inputs if file.endswith("history.csv")]
    imbalanced = [f"ka{majority}-r{ratio}" for majority in (3, 5, 7) for ratio in ("2.25", "2.5", "50", "100")]
    assert [split for split, _, _ in runs] == [split for split in ("balanced", *imbalanced) for _ in range(4)]
    assert [(model, seed.partition("@")[0]) for _, model, seed in runs[:4]] == [
        (model, seed) for model in ("deq", "explicit") for seed in ("seed-2", "seed-10")
    ]


def test_names_are_in_one_order_whatever_theirs_was():
    names = ["1a", "a", "a1", "a1b", "a2", "a10", "a1.5"]
    for order in permutations(names):
        assert sorted(order, key=natural) == ["1a", "a", "a1", "a1b", "a1.5", "a2", "a10"]


def test_lr_retrains_but_does_not_split_again(content):
    before = paths(content)
    content["train"]["lr"] = 0.01
    counts = changed(before, paths(content))
    assert counts["train"] == 20
    assert not {"data", "splits"} & set(counts)


def test_a_figure_setting_redraws_figures_only(content):
    before = paths(content)
    content["report"]["figures"]["dpi"] = 80
    assert changed(before, paths(content)) == {"figure": len(before["figure"]), "page": 1}


def test_the_solver_is_no_business_of_explicit_cells(content):
    before = paths(content)
    content["equilibrium"]["forward"]["tol"] = 1e-4
    assert changed(before, paths(content))["train"] == 10


def test_where_things_lie_changes_nothing(content):
    before = paths(content)
    content["mirror"] = "somewhere/else"
    content["device"] = "cpu"
    content["log"]["tensorboard"] = True
    assert changed(before, paths(content)) == {}
    assert study(content).training_options() == "--device cpu --log tensorboard"


def test_every_job_has_its_own_paths(content):
    content["experiments"]["b"] = {**content["experiments"]["a"], "seeds": [0, 3], "report": "none"}
    files = [file for job in study(content) for file in job.files]
    assert len(files) == len(set(files))
    assert len(study(content).jobs["train"]) == 40


def test_ka_can_differ_from_data_set_to_data_set(content):
    content["datasets"]["many"] = {"source": "cifar100", "majority": [30, 70]}
    content["experiments"]["a"]["datasets"] = ["digits", "many"]
    assert study(content).job("table", "results/tables/a-table-3.csv").spec.splits == {
        "digits": ["ka5-r10", "ka5-r50", "ka5-r100"],
        "many": ["ka70-r10", "ka70-r50", "ka70-r100"],
    }


@pytest.mark.parametrize(
    ("count", "last", "expected"),
    [(1, 1, [1]), (3, 100, [1, 10, 100]), (1, 50, [1, 50]), (12, 4, [1, 2, 3, 4])],
)
def test_log_spaced_epochs_end_with_the_last(count, last, expected):
    assert snapshot_epochs("log", count, last) == expected


def test_planning_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from eqcollapse.study.params import load; from eqcollapse.study.grid import Study; Study(load());"
        "from eqcollapse.pipeline import plan, sweep; print({'torch', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_thousand_cells_are_planned_in_a_moment(content):
    content["experiments"]["a"]["seeds"] = list(range(50))
    start = time.process_time()
    assert len(study(content).jobs["train"]) == 1000
    assert time.process_time() - start < 3


def test_the_claims_meet_each_theory_experiment_with_its_file(content):
    content["theory"] = {f"x{11 - number}": chosen for number, chosen in enumerate(content["theory"].values())}
    job = next(iter(study(content).jobs["claims"].values()))
    named = [each["name"] for each in json.loads(job.spec_json)["theory"]]
    files = [path.rpartition("/")[2].partition("@")[0] for path in job.inputs if path.startswith("results/theory/")]
    assert named == files
    assert named != sorted(named)  # or the test could not fail
