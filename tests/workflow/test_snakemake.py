"""The DAG on the real Snakemake: what runs, what does not, and that bytes repeat."""

import resource

import pytest
from snakemake.persistence.file import FilePersistence

from projects import ROOT, ran

pytestmark = pytest.mark.workflow

REPORTS = {"metrics": 1, "table": 3, "figure": 4, "claims": 1, "page": 1}


def children_seconds() -> float:
    """Processor seconds of the commands run so far: unlike wall time, the same beside other work."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_finished_study_has_nothing_to_do(finished):
    start = children_seconds()
    said = finished.snakemake()
    assert "Nothing to be done" in said
    assert children_seconds() - start < 10
    assert finished.planned() == {}


def test_what_the_data_do_is_said_before_training(project):
    project.edit({"datasets": {"digits": {"per_class": 500}}, "experiments": {"a": {"models": ["explicit"]}}})
    said = project.snakemake("train", "splits")
    summary, warning, cell = (
        said.index(words) for words in ("# Data: digits", "Warning: datasets.digits.per_class is 500", "rule cell:")
    )
    assert summary < warning < cell
    (page,) = (project.folder / "results/data").glob("digits@*/summary.md")
    assert page.read_text().strip() in said


def test_two_folders_hold_the_same_bytes(finished, tmp_path):
    other = finished.clone(tmp_path / "elsewhere")
    other.snakemake()
    assert other.files() == finished.files()


def test_a_run_says_where_to_look(project):
    project.edit({"experiments": {"a": {"models": ["explicit"], "splits": ["balanced"]}}})
    assert "Look first at results/report.html" in project.snakemake()


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"experiments": {"a": {"seeds": [0, 1]}}}, {"split": 2, "cell": 4, **REPORTS, "figure": 3}),
        # The t-SNE is of the first seed and the first R.
        ({"splits": {"ratios": [10, 50]}}, {"split": 1, "summary": 1, "cell": 2, **REPORTS, "figure": 3}),
        ({"train": {"lr": 0.01}}, {"cell": 4, **REPORTS}),
        ({"report": {"figures": {"dpi": 90}}}, {"figure": 6, "page": 1}),
        ({"equilibrium": {"forward": {"max_iter": 10}}}, {"cell": 2, **REPORTS}),
        (
            {"theory": {"b-figure-1": {"step": 0.05}}},
            {"experiment": 1, "figure": 1, "table": 1, "claims": 1, "page": 1},
        ),
        ({"splits": {"seed": 1}}, {"split": 2, "summary": 1, "cell": 4, **REPORTS}),
    ],
)
def test_a_change_makes_exactly_what_hangs_on_it(finished, change, jobs):
    before = finished.files()
    settings = (finished.folder / "params.yaml").read_bytes()
    try:
        finished.edit(change)
        assert finished.planned() == jobs
    finally:
        (finished.folder / "params.yaml").write_bytes(settings)
    assert finished.planned() == {}
    assert finished.files() == before


def test_a_comment_makes_nothing_and_code_its_stage(finished):
    source = finished.folder / "src/eqcollapse/training/schedule.py"
    before = source.read_text()
    try:
        source.write_text(before + "\n# why\n")
        assert finished.planned() == {}
        source.write_text(before + "\nNEW = 1\n")
        assert finished.planned()["cell"] == 4
        assert "split" not in finished.planned()
    finally:
        source.write_text(before)
    assert finished.planned() == {}


def test_a_whole_cell_that_a_killed_run_has_marked_is_not_planned(finished, tmp_path):
    """Snakemake drops its marks a moment after a job has ended: a kill may come in between."""
    project = finished.copy(tmp_path / "marked")
    marks = FilePersistence(nolock=True, path=project.folder / ".snakemake")
    cells = sorted((project.folder / "results/runs").rglob("seed-0@*"))
    for path in (file for cell in cells for file in cell.iterdir()):
        marks._mark_incomplete(str(path.relative_to(project.folder)), None)
    (cells[0] / "provenance.json").unlink()
    assert project.planned()["cell"] == 1
    before = project.files()
    assert ran(project.snakemake("train"))["cell"] == 1
    assert before.items() <= project.files().items()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"lr": -1}}, "params.yaml: train.lr: -1 is not allowed: must be greater than 0"),
        ({"train": {"lrr": 1}}, "params.yaml: train.lrr: is not a key"),
        ({"splits": {"majority": [10]}}, "params.yaml: splits.majority: 10 is not allowed"),
        ({"equilibrium": {"hidden": 30}}, "params.yaml: equilibrium.hidden (model deq): 30 is not allowed"),
    ],
)
def test_a_bad_value_stops_before_any_job_with_one_line(finished, change, words):
    settings = (finished.folder / "params.yaml").read_bytes()
    before = finished.files()
    try:
        finished.edit(change)
        answer = finished.run("snakemake", "--cores", "all", check=False)
        assert answer.returncode != 0
        lines = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip()]
        assert lines[-1].startswith(words)
        assert len(lines) <= 2  # Snakemake's own first line names the profile
        assert finished.run("python", "-m", "eqcollapse", "check", check=False).stderr.startswith("eqcollapse check: ")
    finally:
        (finished.folder / "params.yaml").write_bytes(settings)
    assert finished.files() == before


def test_the_paper_preset_is_planned(project):
    (project.folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    start = children_seconds()
    jobs = project.planned("--configfile", "workflow/presets/paper.yaml")
    assert children_seconds() - start < 10
    assert jobs["dataset"] == 3
    assert jobs["cell"] == 2 * 10 * 2 * 3 + 2 * 2 * 3


B = "{datasets: [digits], splits: [balanced], models: [deq], seeds: [0, 1], report: none}"


def test_a_preset_or_the_command_line_can_say_none_and_only(project, tmp_path):
    preset = tmp_path / "preset.yaml"
    preset.write_text("theory: null\nexperiments: {only: [b], b: " + B + "}\n")
    words = ["theory=null", "experiments={only: [b], b: " + B + "}", "train={epochs: 5, deterministic: true}"]
    for command in (["--configfile", str(preset)], ["--config", *words]):
        jobs = project.planned(*command)
        assert "experiment" not in jobs
        assert jobs["cell"] == 2


def test_cuda_without_a_gpu_stops_before_any_job_of_this_machine(project):
    project.edit({"device": "cuda"})
    for hidden in ("", "-1"):
        answer = project.run("snakemake", "--cores", "all", check=False, CUDA_VISIBLE_DEVICES=hidden)
        assert answer.returncode != 0
        assert "params.yaml: device: cuda needs a GPU" in answer.stderr.splitlines()[-1]
        assert not project.files("resources", "results")
    assert project.run("snakemake", "-n", CUDA_VISIBLE_DEVICES="").returncode == 0
    elsewhere = project.run("snakemake", "--executor", "slurm", "--jobs", "1", "train", check=False,
                            CUDA_VISIBLE_DEVICES="", SLURM_CONF="/dev/null")  # fmt: skip
    assert "device: cuda" not in elsewhere.stderr


def test_a_failed_cell_says_why_and_leaves_nothing(project):
    project.edit({"train": {"lr": 1e30}, "experiments": {"a": {"models": ["explicit"], "splits": ["balanced"]}}})
    said = project.snakemake(check=False)
    assert "Cause: eqcollapse train: cell digits/balanced/explicit/seed-0 diverged in epoch 1" in said
    assert "for memory" not in said
    assert not project.files("results/runs")


def test_lint_is_clean(project):
    assert "Congratulations, your workflow is in a good condition!" in project.snakemake("--lint")
