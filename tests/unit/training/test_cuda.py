"""A cell on a GPU: as on the CPU within rounding, the same bytes twice, and on from where it was stopped."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eqcollapse.training import backends, checkpoints, stage
from eqcollapse.training.stage import train

OUTPUTS = ("history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors")
HEADS = pytest.mark.parametrize("head", ["explicit", "equilibrium"])


@pytest.fixture
def cell(spec, head) -> dict:
    """The small cell with this head."""
    spec["network"]["head"] = head
    if head == "explicit":
        del spec["equilibrium"]
    return spec


def run(spec: dict, files: list, folder: Path, device: str = "cuda") -> dict[str, bytes]:
    train(spec, *files, folder, device=device, checkpoint=folder / "checkpoint.pt")
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

    monkeypatch.setattr(stage.checkpoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(cell, files, tmp_path / "stopped")
    monkeypatch.setattr(stage.checkpoints, "save", save)
    assert run(cell, files, tmp_path / "stopped") == whole


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
