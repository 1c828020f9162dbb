"""What a killed run left: marks are dropped, and without a cluster nothing is asked (with one: tests/slurm)."""

from eqcollapse import cluster


def test_marks_of_killed_runs_are_dropped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    cluster.MARKS.mkdir(parents=True)
    (cluster.MARKS / "mark").write_text("")
    assert not cluster.recover()
    assert not cluster.MARKS.exists()
    assert not cluster.recover()
