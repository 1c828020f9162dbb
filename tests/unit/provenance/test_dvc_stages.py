"""dvc.yaml tells the truth about the jobs, and the check of that finds every way in which it may not."""

import copy
import json
import random
import re
from pathlib import Path

import pytest
import yaml

import moves as moving
from eqcollapse.provenance import dvc_stages
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study import fingerprint
from eqcollapse.study.grid import Study
from eqcollapse.study.params import load, parse
from eqcollapse.study.stages import STAGES

ROOT = Path(__file__).parents[3]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
LISTED = [
    (name, key, position)
    for name, stage in DVC["stages"].items()
    for key in ("deps", "params", "outs")
    for position in range(len(stage.get(key, [])))
]


@pytest.fixture(scope="module")
def small() -> dict:
    """A small study in which every key of params.yaml counts."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["splits"] |= {"majority": [3], "ratios": [10]}
    kinds = {chosen["kind"]: name for name, chosen in content["theory"].items()}
    content["theory"] = {name: content["theory"][name] for name in kinds.values()}
    content["datasets"]["other"] = content["datasets"]["digits"]
    return content


@pytest.fixture(scope="module")
def plain(small) -> dict:
    """A study that every kind of report shows, and whose models leave all but one key to the sections."""
    content = copy.deepcopy(small)
    content["splits"]["validation"] = 0.2
    content["models"] = {"plain": {}, "deq": {"network": {"head": "equilibrium"}}}
    one = {"datasets": ["digits"], "splits": ["balanced"], "models": ["plain", "deq"], "seeds": [0]}
    content["experiments"] = {f"as-{report}": {**one, "report": report} for report in ("a", "b", "selection", "none")}
    return content


@pytest.fixture(scope="module")
def study(small) -> Study:
    return Study(parse(small))


@pytest.fixture(scope="module")
def moves(small, plain) -> dict[str, set[str]]:
    """Which stages' jobs each key changes in one of these studies."""
    both: dict[str, set[str]] = {}
    for content in (small, plain):
        for key, stages in moving.moved(content, dvc_stages.stages(DVC)).items():
            both.setdefault(key, set()).update(stages)
    return both


def reached(content: dict, draw: random.Random, edits: int = 10) -> dict:
    """Return a study that random edits of `content` lead to: of a key to another value, or of a model that drops it."""
    for _ in range(edits):
        path = draw.choice(list(moving._leaves(content)))
        if path[0] == "models" and draw.random() < 0.5:
            content = copy.deepcopy(content)
            del moving._at(content, path[:-1])[path[-1]]
        elif variants := list(moving._variants(content, path)):
            content = draw.choice(variants)
    return content


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_dvc_yaml_is_the_truth_of_studies_that_edits_lead_to(small, plain, seed):
    draw = random.Random(seed)
    content = reached(draw.choice([small, plain]), draw)
    stages = dvc_stages.stages(DVC)
    found = moving.moved(content, stages)
    lines = dvc_stages.faults(Study(parse(content)), stages, found)
    idle = ("is read by no job", "is written by no job", "changes none of its jobs")  # of which another study has need
    assert [line for line in lines if not line.endswith(idle)] == []


def test_dvc_yaml_is_the_truth(study, moves):
    assert dvc_stages.faults(study, dvc_stages.load(ROOT / "dvc.yaml"), moves) == []


def told_all(content: dict) -> list[tuple]:
    """Return all that decides on the bytes of a study's outputs, of every job and in the jobs' order."""
    study = Study(parse(content))
    return [(job.path, job.digest, study.command(job.stage, job.path), job.inputs, job.outputs) for job in study]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_keys_changes_no_job(content, small, plain, seed):
    """DVC does not see it."""
    draw = random.Random(seed)
    changes = {"plain": {"train": {"lr": 0.1, "epochs": 3}, "network": {"width": 8, "blocks": 1}}}
    for settings in (content, small, plain | {"models": plain["models"] | changes}):
        other = moving.shuffled(settings, draw)
        assert json.dumps(other) != json.dumps(settings)
        assert told_all(other) == told_all(settings)


def test_the_order_of_a_list_changes_the_jobs_of_those_stages_alone_that_watch_it(content, small):
    found = 0
    for settings in (content, small):
        before = Study(parse(settings))
        for key, changed in moving.turned(settings):
            after = Study(parse(changed))
            for stage in dvc_stages.stages(DVC):
                if stage.kinds and not dvc_stages.covered(key, stage.params, "."):
                    found += 1
                    assert {job.path: job for job in stage.jobs(after)} == {job.path: job for job in stage.jobs(before)}
    assert found > 20


def test_a_number_written_otherwise_changes_no_job(plain):
    """1 and 1.0 are one to DVC, also where the report quotes what a model changes."""
    whole, real = (plain | {"models": plain["models"] | {"plain": {"train": {"lr": lr}}}} for lr in (1, 1.0))
    assert told_all(whole) == told_all(real)


def test_all_leaves_are_moved_but_those_that_can_be_nothing_else(small):
    leaves = {".".join(path) for path in moving._leaves(small)}
    moves = moving.moved(small, dvc_stages.stages(DVC))
    left = {leaf for leaf in leaves - set(moves) if not leaf.startswith(("theory.", "ufm."))}
    assert left <= {"snapshots.epochs", "network.architecture", "network.cut"}  # the last two tie each other
    assert {leaf.rpartition(".")[2] for leaf in leaves - set(moves) - left} <= {"kind", "lambda_bias", "bias", "loss"}


def test_what_moves_what(moves):
    assert moves["train.lr"] == {"train"}
    assert moves["splits.seed"] == {"splits", "report"}  # whose page counts the splits
    assert moves["splits.ratios"] == {"splits", "train", "report"}
    assert moves["report.figures.dpi"] == {"report"}
    assert moves["experiments.a.datasets"] == {"data", "splits", "train", "report"}
    assert moves["network.head"] == moves["network.bias"] == {"train", "report"}
    assert moves["device"] == moves["mirror"] == moves["log.tensorboard"] == set()


@pytest.mark.parametrize(("name", "key", "position"), LISTED)
def test_whatever_is_dropped_is_missed(study, moves, name, key, position):
    content = copy.deepcopy(DVC)
    entry = content["stages"][name][key].pop(position)
    dropped = next(iter(entry)) if isinstance(entry, dict) else entry
    found = dvc_stages.faults(study, dvc_stages.stages(content), moves)
    assert any(dropped in line for line in found)


@pytest.mark.parametrize(
    ("key", "entry", "words"),
    [
        ("deps", "src/eqcollapse/report", "src/eqcollapse/report is read by no job"),
        ("deps", "results/metrics", "results/metrics is read by no job"),
        ("params", "report", "report changes none of its jobs"),
        ("outs", "results/more", "results/more is written by no job"),
        ("outs", "results/metrics", "is under the outs of"),
    ],
)
def test_what_is_listed_and_not_needed_is_found(study, moves, key, entry, words):
    content = copy.deepcopy(DVC)
    content["stages"]["train"][key].append(entry)
    found = dvc_stages.faults(study, dvc_stages.stages(content), moves)
    assert found
    assert any(words in line for line in found)


def test_a_stage_that_is_not_there_is_found(study, moves):
    content = copy.deepcopy(DVC)
    del content["stages"]["theory"]
    found = dvc_stages.faults(study, dvc_stages.stages(content), moves)
    assert "dvc.yaml: there is no stage theory" in found


def test_sources_are_those_of_the_digests(study):
    stages = {stage.name: stage for stage in dvc_stages.stages(DVC)}
    for stage in stages.values():
        for kind in stage.kinds:
            files = {path.relative_to(ROOT).as_posix() for path in fingerprint.files(STAGES[kind].module)}
            assert files <= stage.sources()


def test_the_stages_are_the_rules(study):
    for name, stage in DVC["stages"].items():
        if name == "settings":
            continue
        assert stage["cmd"][0].split()[-1] == name
        assert stage["cmd"][1].endswith(f"eqcollapse confirm {name}")


def outputs(rules: str) -> list[str]:
    """Return the files that stand under `output:` in the text of rules."""
    blocks = re.findall(r"^    output:\n((?:        .*\n)+)", rules, re.M)
    return [
        file for block in blocks for file in re.findall(r"[\"']([^\"']*/[^\"']*)[\"']", block) if ".rst" not in file
    ]


def test_every_output_of_a_rule_is_under_the_outs_of_one_stage():
    """Also of a rule that the study has no job for, which neither `faults` nor a summary of the DAG would see."""
    rules = [path.read_text() for path in (ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk"))]
    found = [file for text in rules for file in outputs(text)]
    assert len(found) >= len(STAGES)
    for file in found:
        owners = [stage.name for stage in dvc_stages.stages(DVC) if dvc_stages.covered(file, stage.outs)]
        assert len(owners) == 1, file


def test_outputs_of_rules_are_found():
    rule = 'rule more:\n    output:\n        csv="results/more/{name}.csv",\n    log:\n        "logs/x.log",\n'
    assert outputs(rule) == ["results/more/{name}.csv"]


@pytest.mark.parametrize("text", ["stages: [", "stages:\n  a: 1\n", "[]\n"])
def test_a_dvc_yaml_that_is_none_is_one_line(tmp_path, text):
    path = tmp_path / "dvc.yaml"
    path.write_text(text)
    with pytest.raises(EqcollapseError, match=r"dvc\.yaml: cannot be read") as caught:
        dvc_stages.load(path)
    assert "\n" not in str(caught.value)


PRESETS = sorted((ROOT / "workflow/presets").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_dvc_yaml_has_the_files_of_every_preset(preset):
    assert dvc_stages.faults(Study(load(ROOT / "params.yaml", preset)), dvc_stages.load(ROOT / "dvc.yaml"), {}) == []


@pytest.mark.parametrize("report", ["b", "none"])
def test_a_study_may_do_without_a_stage(content, report):
    content["theory"] = {}
    content["experiments"] = {"b": content["experiments"]["b"] | {"report": report}}
    assert dvc_stages.faults(Study(parse(content)), dvc_stages.load(ROOT / "dvc.yaml"), {}) == []
