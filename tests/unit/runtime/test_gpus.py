"""GPUs without clashes: real processes and real locks; the devices are names."""

import errno
import fcntl
import os
import subprocess
import sys

from eqcollapse.runtime import gpus

CLAIM = """
import os, sys
from pathlib import Path
from eqcollapse.runtime.gpus import claim
held = claim(Path(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], held is not None, flush=True)
sys.stdin.read()
"""


def claiming(folder, visible="0,1,2"):
    """Start a process that claims a GPU and holds it until its input ends."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "PYTHONPATH": "src"}
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_jobs_at_a_time_see_a_gpu_each_and_a_killed_one_gives_its_own_back(tmp_path):
    jobs = [claiming(tmp_path) for _ in range(3)]
    seen = [job.stdout.readline().split() for job in jobs]
    assert sorted(seen) == [["0", "True"], ["1", "True"], ["2", "True"]]
    jobs[1].kill()
    jobs[1].wait()
    jobs.append(claiming(tmp_path))
    assert jobs[-1].stdout.readline().split() == seen[1]
    jobs += [claiming(tmp_path) for _ in range(6)]  # all are taken: shared evenly, three at each
    assert sorted(job.stdout.readline().split()[0] for job in jobs[4:]) == ["0", "0", "1", "1", "2", "2"]
    for job in jobs:
        job.kill()
        job.communicate()


def test_one_gpu_or_none_is_left_as_it_is(tmp_path, monkeypatch):
    for visible in ("", "3", "GPU-1b2c"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpus.claim(tmp_path) is None
        assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_locked_a_job_gets_a_gpu_all_the_same(tmp_path, monkeypatch):
    """As on a network file system without locks."""

    def refused(stream, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr(fcntl, "flock", refused)
    assert gpus.claim(tmp_path) is None
    assert os.environ["CUDA_VISIBLE_DEVICES"] in ("0", "1", "2")
