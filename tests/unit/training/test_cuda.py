"""A cell on a GPU: as on the CPU within rounding, the same bytes twice, and on from where it was stopped."""

import csv
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eqcollapse.data.splits import read_split
from eqcollapse.data.store import read_dataset
from eqcollapse.training import backends, checkpoints, job
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import train
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.trainer import descend

OUTPUTS = ("history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors")
JOB = """
import json, sys
from pathlib import Path
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import train
from eqcollapse.training.log import TrainingLog
spec, folder, *files = sys.argv[1:]
checkpoint = Path(folder, "checkpoint.pt")
train(TrainSpec.model_validate_json(spec), *map(Path, files), Path(folder), device="cuda", checkpoint=checkpoint,
      log=TrainingLog())
"""
HEADS = pytest.mark.parametrize("head", ["explicit", "equilibrium"])


@pytest.fixture
def cell(spec, head) -> dict:
    """The small cell with this head."""
    spec["network"]["head"] = head
    if head == "explicit":
        spec["equilibrium"] = None
    return spec


def run(spec: dict, files: list, folder: Path, device: str = "cuda") -> dict[str, bytes]:
    places = {"device": device, "checkpoint": folder / "checkpoint.pt"}
    train(TrainSpec.model_validate(spec), *files, folder, **places, log=TrainingLog())
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def history(folder: Path) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as stream:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]


@pytest.mark.gpu
@HEADS
def test_the_first_epoch_is_that_of_the_cpu(cell, files, tmp_path):
    """Order, augmentation and weights are drawn alike; four steps later rounding is all that tells them apart."""
    cell["train"] |= {"epochs": 1, "schedule": cell["train"]["schedule"] | {"warmup": 0}}
    cell["snapshots"]["epochs"] = [1]
    for device in ("cpu", "cuda"):
        run(cell, files, tmp_path / device, device)
    (on_cpu,), (on_gpu,) = history(tmp_path / "cpu"), history(tmp_path / "cuda")
    assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-4)
    assert on_gpu.keys() == on_cpu.keys()
    one, other = (load_file(tmp_path / device / "model.safetensors") for device in ("cpu", "cuda"))
    for name, weights in one.items():
        assert torch.allclose(other[name].double(), weights.double(), rtol=1e-2, atol=1e-3), name


@pytest.mark.gpu
@HEADS
def test_the_same_gpu_gives_the_same_bytes(cell, files, tmp_path):
    assert run(cell, files, tmp_path / "one") == run(cell, files, tmp_path / "two")


@pytest.mark.gpu
@HEADS
def test_a_stopped_run_goes_on_to_the_same_bytes(cell, files, tmp_path, monkeypatch):
    whole = run(cell, files, tmp_path / "whole")
    save = checkpoints.save

    def save_then_stop(path, state):
        save(path, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(job.checkpoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(cell, files, tmp_path / "stopped")
    monkeypatch.setattr(job.checkpoints, "save", save)
    assert run(cell, files, tmp_path / "stopped") == whole


@pytest.mark.gpu
@HEADS
def test_bfloat16_learns_what_float32_does(cell, files, tmp_path):
    losses = []
    for precision in ("float32", "bfloat16"):
        cell["train"]["precision"] = precision
        run(cell, files, tmp_path / precision)
        losses.append(history(tmp_path / precision)[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert all(
        weights.dtype != torch.bfloat16 for weights in load_file(tmp_path / "bfloat16/model.safetensors").values()
    )


@pytest.mark.gpu
@HEADS
def test_no_step_waits_for_the_host(cell, files):
    """An epoch waits as often with eight batches as with four: at its end, and not in its steps."""
    if head := cell.get("equilibrium"):
        head |= {way: head[way] | {"check_every": 0} for way in ("forward", "backward")}
    waits = []
    for batch_size in (5, 10):
        cell["train"]["batch_size"] = batch_size
        device = backends.prepare("cuda", 1, deterministic=True)
        data = read_dataset(files[0]), read_dataset(files[1]), read_split(files[2])
        trained = job.new_cell(cell, *data, device)
        descend(trained, TrainingLog())  # buffers, kernels
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            descend(trained, TrainingLog())
            torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("synchroniz" in str(each.message) for each in said))
    assert waits[0] == waits[1]


@pytest.mark.gpu
def test_a_killed_job_goes_on_to_the_same_bytes(spec, files, tmp_path):
    whole = run(spec, files, tmp_path / "whole")
    script = tmp_path / "job.py"
    script.write_text(JOB)
    words = [sys.executable, str(script), json.dumps(spec), str(tmp_path / "killed"), *map(str, files)]
    job = subprocess.Popen(words)
    while not (tmp_path / "killed/checkpoint.pt").exists() and job.poll() is None:
        time.sleep(0.01)
    job.kill()
    job.wait()
    assert run(spec, files, tmp_path / "killed") == whole


@pytest.mark.gpu
def test_the_record_says_how_cuda_was_set():
    stated = backends.settings(backends.prepare("cuda", 1, deterministic=True))
    assert stated["device"] == torch.cuda.get_device_name()
    assert (stated["deterministic"], stated["tf32"], stated["cudnn_benchmark"]) == (True, False, False)


@pytest.mark.parametrize("deterministic", [True, False])
def test_how_torch_is_set_is_what_is_recorded(deterministic):
    held = torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.get_deterministic_debug_mode()
    try:
        stated = backends.settings(backends.prepare("cpu", 2, deterministic))
        assert stated == {"device": "cpu", "threads": 2, "deterministic": deterministic}
        assert torch.backends.cudnn.benchmark is not deterministic
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cudnn.benchmark = held[0]
        torch.set_num_threads(held[1])
        torch.set_deterministic_debug_mode(held[2])
