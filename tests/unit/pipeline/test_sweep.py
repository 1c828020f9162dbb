"""results/ holds exactly the current study; what it does not want lies in the attic and comes back."""

import json
import os
import shutil
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import pytest

from eqcollapse.pipeline import attic
from eqcollapse.pipeline import sweep as sweeping
from eqcollapse.pipeline.sweep import keep, pending
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.params import parse


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def content(content) -> dict:
    """The committed study with one seed: fewer files to move, of as many kinds."""
    for experiment in content["experiments"].values():
        experiment["seeds"] = [0]
    return content


def plan(content: dict) -> Study:
    return Study(parse(content))


def build(study: Study) -> None:
    """Write every file of the study that is not there, with its digest as content."""
    for job in study:
        for file in job.outputs:
            path = Path(file)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(job.digest)
        outputs = [{"path": file, "sha256": sha256(Path(file).read_bytes()).hexdigest()} for file in job.outputs]
        Path(job.record).write_text(json.dumps({"digest": job.digest, "inputs": [], "outputs": outputs}))


def cells(study: Study) -> list[Job]:
    """Return the jobs of the cells that experiment `a` alone asks for."""
    return [job for job in study.jobs["train"].values() if job.spec.model == "explicit"]


def sweep(study: Study) -> tuple[int, int]:
    """Sweep; return how many results went and came."""
    moves = pending(study)
    moves.run()
    assert not pending(study)
    return len(moves.away), len(moves.back)


def tree(*roots: str) -> dict[str, str]:
    return {str(path): path.read_text() for root in roots for path in sorted(Path(root).rglob("*")) if path.is_file()}


def test_there_and_back_again(folder, content):
    first = plan(content)
    chosen = content["train"]["lr"]
    build(first)
    before = tree("results", "resources")
    assert sweep(first) == (0, 0)

    content["train"]["lr"] = 0.01
    second = plan(content)
    sweep(second)
    build(second)
    assert set(tree("results", "resources")) == {file for job in second for file in job.files}

    content["train"]["lr"] = chosen
    sweep(plan(content))
    assert tree("results", "resources") == before


def test_a_dropped_seed_leaves_results(folder, content):
    content["experiments"]["b"]["seeds"] = [0]
    content["experiments"]["a"]["seeds"] = [0, 1]
    build(plan(content))
    content["experiments"]["a"]["seeds"] = [0]
    study = plan(content)
    gone, came = sweep(study)
    assert came == 0
    assert gone == 2 * 10 + 20 + 1 + 5 + 6 + 1 + 1  # splits with records, cells, metrics, tables, figures, claims, page
    assert not [file for file in tree("results") if "seed-1@" in file]
    assert len([file for file in tree(".attic") if "seed-1@" in file]) == 10 * 2 + 20 * 5


def test_a_file_with_a_fixed_name_and_another_digest_goes(folder, content):
    build(plan(content))
    content["report"]["figures"]["dpi"] = 80
    study = plan(content)
    assert sweep(study) == (len(study.jobs["figure"]) + 1, 0)  # and the page, which shows them
    assert not list(Path("results/figures").glob("*"))
    assert list(Path("results/tables").glob("*.csv"))


def test_what_no_record_speaks_of_stays(folder, content):
    study = plan(content)
    build(study)
    Path("results/notes.txt").write_text("mine")
    sweep(study)
    assert Path("results/notes.txt").exists()


def test_a_record_that_points_outside_moves_nothing(folder, content):
    victim = Path("keep.txt")
    victim.write_text("keep")
    Path("results/figures").mkdir(parents=True)
    record = {"digest": "0123456789", "outputs": [{"path": "keep.txt"}, {"path": "results/../keep.txt"}]}
    Path("results/figures/x.provenance.json").write_text(json.dumps(record))
    sweep(plan(content))
    assert victim.exists()


def test_looking_moves_nothing(folder, content):
    build(plan(content))
    before = tree(".")
    content["train"]["lr"] = 0.01
    assert pending(plan(content))
    assert tree(".") == before


def test_what_goes_and_comes_is_known_before(folder, content):
    first = plan(content)
    build(first)
    content["train"]["lr"] = 0.01
    second = plan(content)
    gone = {file for job in first if job not in list(second) for file in job.files}
    moves = pending(second)
    assert moves.coming == []
    assert {file for file in gone if any(file == path or file.startswith(f"{path}/") for path in moves.going)} == gone
    assert {path for path in moves.going if Path(path).is_file()} <= gone
    before = tree("results", "resources")
    sweep(second)
    build(second)
    (sweeping.ATTIC / cells(first)[0].path / ".history.csv.1.partial").write_text("half")
    assert (
        set(pending(first).coming)
        == gone
        == before.keys() - tree("results", "resources").keys() | {file for file in gone if "@" not in file}
    )


def test_no_empty_folders_stay(folder, content):
    build(plan(content))
    content["splits"]["ratios"] = [10]
    sweep(plan(content))
    empty = [path for path in Path("results").glob("*/*/**") if path.is_dir() and not any(path.iterdir())]
    assert empty == []


def test_a_sweep_that_was_killed_is_taken_up_again(folder, content):
    first = plan(content)
    build(first)
    content["report"]["figures"]["dpi"] = 80
    moves = pending(plan(content))
    for source, target in moves.away[0][:2]:  # two of the figure's files are gone, its record is not
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
    sweep(plan(content))
    build(plan(content))
    content["report"]["figures"]["dpi"] = 150
    assert sweep(plan(content)) == (len(first.jobs["figure"]) + 1,) * 2
    assert all(Path(file).exists() for job in first for file in job.files)


def swept_in_part(study: Study, moves: int, monkeypatch) -> bool:
    """Sweep, and be killed after so many moves; return whether that came before the end."""
    left = iter(range(moves))
    move = sweeping._move

    def _moved(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(sweeping, "_move", _moved)
    try:
        pending(study).run()
        return False
    except KeyboardInterrupt:
        return True
    finally:
        monkeypatch.setattr(sweeping, "_move", move)


def test_a_sweep_that_was_killed_at_any_move_loses_nothing(folder, content, monkeypatch):
    """There, back, or there and back: after the next sweep all is where it was."""
    content["experiments"] = {"b": content["experiments"]["b"] | {"seeds": [0], "models": ["ce"]}}
    content["theory"] = {"b-figure-1": content["theory"]["b-figure-1"]}
    first = plan(content)
    build(first)
    before = tree("results", "resources")
    content["theory"]["b-figure-1"]["step"] = 0.2
    content["splits"]["seed"], content["report"]["figures"]["dpi"] = 1, 80
    second = plan(content)
    sweep(second)
    build(second)
    others = tree("results", "resources")
    moves = 0
    while swept_in_part(first, moves, monkeypatch):
        sweep(first)
        assert tree("results", "resources") == before, moves
        assert swept_in_part(second, moves, monkeypatch)
        sweep(first)
        assert tree("results", "resources") == before, moves
        sweep(second)
        assert tree("results", "resources") == others, moves
        moves += 1
    assert moves > 40


@pytest.mark.parametrize("whose", ["theirs", "mine"])
def test_of_a_sweep_that_was_killed_only_its_own_files_are_taken(folder, content, whose):
    """Under a fixed name, a job of other settings that was killed before its record may have written since."""
    first = plan(content)
    build(first)
    content["report"]["figures"]["dpi"] = 80
    sweep(plan(content))
    content["report"]["figures"]["dpi"] = 150
    figure = next(iter(first.jobs["figure"].values()))
    kept = Path(".attic", f"@{figure.digest}", figure.outputs[0])
    kept.rename(figure.outputs[0])
    if whose == "theirs":
        Path(figure.outputs[0]).write_text("of other settings")
    sweep(first)
    assert Path(figure.record).exists() == (whose == "mine")
    assert Path(figure.outputs[0]).read_text() == (figure.digest if whose == "mine" else "of other settings")


def test_what_a_killed_job_left_does_not_take_the_place_of_the_whole(folder, content):
    first = plan(content)
    build(first)
    cell = cells(first)[0]
    content["experiments"]["a"]["seeds"] = [1]
    sweep(plan(content))
    Path(cell.path).mkdir(parents=True)
    Path(cell.outputs[0]).write_text("half")
    sweep(plan(content))
    assert Path(".attic", cell.record).exists()
    content["experiments"]["a"]["seeds"] = [0]
    Path(cell.path).mkdir(parents=True)  # an empty folder, as DVC leaves, is not the cell
    sweep(plan(content))
    assert all(Path(file).exists() for file in cell.files)


def test_half_a_cell_is_not_brought_back(folder, content):
    study = plan(content)
    build(study)
    cell = cells(study)[0]
    content["experiments"]["a"]["seeds"] = [1]
    sweep(plan(content))
    Path(".attic", cell.record).unlink()
    content["experiments"]["a"]["seeds"] = [0]
    sweep(plan(content))
    assert not Path(cell.path).exists()


def test_links_are_put_aside_and_brought_back_as_they_are(folder, content):
    study = plan(content)
    build(study)
    first, second = cells(study)[:2]
    kept = folder / "elsewhere"
    os.replace(first.path, kept)
    Path(first.path).symlink_to(kept)
    Path(second.outputs[0]).unlink()
    Path(second.outputs[0]).symlink_to("nowhere")  # as after `dvc gc`, where DVC's cache is linked
    content["experiments"]["a"]["seeds"] = [9]
    sweep(plan(content))
    assert not os.path.lexists(first.path)
    content["experiments"]["a"]["seeds"] = [0, 1, 2]
    moves = pending(plan(content))
    moves.run()
    assert Path(first.path).is_symlink()
    assert not Path(second.path).exists()  # half a cell
    assert all(Path(file).exists() for file in first.files)


def test_a_link_that_leads_nowhere_goes(folder, content):
    study = plan(content)
    build(study)
    Path("results/splits/digits/old@0123456789.csv").symlink_to("nowhere")
    Path("results/tables/x.provenance.json").symlink_to("nowhere")
    assert sweep(study) == (2, 0)
    assert not os.path.lexists("results/splits/digits/old@0123456789.csv")


def test_an_unreadable_record_goes(folder, content):
    study = plan(content)
    build(study)
    figure = next(iter(study.jobs["figure"].values()))
    Path(figure.record).write_text("{")
    assert sweep(study) == (1, 0)
    assert not Path(figure.record).exists()


def test_a_thousand_cells_are_swept_in_two_seconds(folder, content):
    content["experiments"]["a"]["seeds"] = list(range(50))
    build(plan(content))
    content["train"]["lr"] = 0.01
    study = plan(content)
    start = time.process_time()
    gone, _ = sweep(study)
    assert gone >= 1000
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        '{"digest": "0123456789", "outputs": [{"path": ""}]}',
        '{"digest": "0123456789", "outputs": [{"path": "results"}]}',
        '{"digest": "0123456789", "outputs": [{"path": "results/runs"}, {"path": "../x"}]}',
        "[" * 200_000,
    ],
)
def test_a_strange_record_moves_nothing_but_itself(folder, content, text):
    study = plan(content)
    build(study)
    before = tree("results", "resources")
    Path("results/tables/x.provenance.json").write_text(text)
    sweep(study)
    assert tree("results", "resources") == before


@pytest.fixture
def kept(folder, content) -> Study:
    """A study that was made, and kept."""
    study = plan(content)
    build(study)
    keep(study)
    return study


def test_what_is_kept_outlasts_its_removal_and_takes_no_room(kept):
    """As `dvc checkout` removes it; a later sweep brings it back, to the byte."""
    before = tree("results", "resources")
    assert attic.items() == []  # nothing lies aside: these are the files of results/
    assert not pending(kept)
    for job in kept:
        for file in job.files if job.pinned else ():
            assert Path(file).stat().st_nlink == 2
            Path(file).unlink()
    assert attic.items() != []
    sweep(kept)
    assert tree("results", "resources") == before


@pytest.mark.parametrize("which", ["outputs", "record"])
def test_what_is_removed_in_part_is_not_what_is_kept(kept, which):
    """As whoever is told that a file was changed, or made from another input, removes it: kept is the same file."""
    cell = cells(kept)[0]
    file = Path(cell.record if which == "record" else cell.outputs[0])
    file.write_text("changed")
    file.unlink()
    assert not pending(kept)
    for name in cell.files:  # and made anew, as by Snakemake, which removes the rest before
        Path(name).unlink(missing_ok=True)
        Path(name).write_text("anew")
    keep([cell])
    for name in cell.files:
        Path(name).unlink()
    sweep(kept)
    assert {Path(name).read_text() for name in cell.files} == {"anew"}


def test_what_is_kept_goes_and_comes_as_any_other(kept, content):
    before = tree("results", "resources")
    content["train"]["lr"], content["splits"]["seed"] = 0.01, 5
    second = plan(content)
    sweep(second)
    assert not any(job.pinned and Path(job.path).exists() for job in kept if job.path not in {j.path for j in second})
    assert attic.items() != []
    sweep(kept)
    assert tree("results", "resources") == before


def test_an_attic_on_another_disk_is_one_line(folder, content):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == folder.stat().st_dev:
        pytest.skip("needs /dev/shm as another disk")
    first = plan(content)
    build(first)
    aside = Path(tempfile.mkdtemp(dir=other))
    try:
        Path(".attic").symlink_to(aside)
        content["train"]["lr"] = 0.01
        keep(first)  # there are no links between disks, and none are needed
        with pytest.raises(EqcollapseError, match="which is on another disk"):
            pending(plan(content)).run()
        assert tree("results", "resources")
    finally:
        shutil.rmtree(aside)
