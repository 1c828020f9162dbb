"""A cell trains to the same bytes however often it is stopped, and says so when it diverges."""

import csv
import hashlib
import math
import random

import pytest
import torch
from safetensors.torch import load_file

from eqcollapse.collapse.moments import Moments
from eqcollapse.data.splits import read_split
from eqcollapse.data.store import read_dataset
from eqcollapse.equilibrium import ContractiveConv
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.training import checkpoints, job
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.job import train
from eqcollapse.training.log import TrainingLog

OUTPUTS = ("history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors")


def run(spec, files, folder, **options):
    options = {"device": "cpu", "checkpoint": folder / "checkpoint.pt"} | options
    with TrainingLog(options.pop("live", None), options.pop("tensorboard", None)) as log:
        train(TrainSpec.model_validate(spec), *files, folder, log=log, **options)
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


DROPOUT = """
from torch import nn


def net(channels, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, num_classes))
"""


SHARED = """
from torch import nn


def net(channels, num_classes):
    one, other = nn.Linear(36, 36), nn.Linear(36, 36)
    other.weight = one.weight
    return nn.Sequential(nn.Flatten(), nn.ReLU(), one, nn.ReLU(), other, nn.ReLU(), nn.Linear(36, num_classes))
"""


@pytest.mark.parametrize("head", ["explicit", "equilibrium", "dropout"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(spec, files, tmp_path, monkeypatch, capsys, head, stop):
    spec["network"]["head"] = "equilibrium" if head == "equilibrium" else "explicit"
    if head != "equilibrium":
        spec["equilibrium"] = None
    if head == "dropout":
        monkeypatch.chdir(tmp_path)
        (tmp_path / f"own_dropout_{stop}.py").write_text(DROPOUT)
        spec["network"]["architecture"] = f"own_dropout_{stop}.py:net"
        spec["train"] |= {"optimizer": "adamw", "lr": 0.01, "optimizer_options": {"beta2": 0.99, "eps": 1e-8}}
    whole = run(spec, files, tmp_path / "whole")

    saved = []

    def save_then_stop(path, state):
        checkpoints_save(path, state)
        saved.append(path)
        if len(saved) == stop:
            raise KeyboardInterrupt

    checkpoints_save = checkpoints.save
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(job.checkpoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run(spec, files, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "history.csv").exists()
    monkeypatch.setattr(job.checkpoints, "save", checkpoints_save)
    capsys.readouterr()
    assert run(spec, files, tmp_path / "stopped") == whole
    said = capsys.readouterr().err  # the log of the job that goes on has every epoch, and where it began
    assert [f"epoch {epoch}/4" in said for epoch in range(1, 5)] == [True] * 4
    assert f"goes on after epoch {stop}" in said
    assert not saved[0].exists()


@pytest.mark.parametrize("after", [2, 3])
def test_a_run_that_is_told_to_end_keeps_its_last_whole_epoch(spec, files, tmp_path, monkeypatch, capsys, after):
    """Though the epoch under way has changed the weights, and no checkpoint was due."""
    whole = run(spec, files, tmp_path / "whole")
    step = torch.optim.SGD.step
    steps = []

    def step_or_end(optimizer, *arguments):
        step(optimizer, *arguments)
        steps.append(optimizer)
        if len(steps) == after * 3 + 2:  # three batches an epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", step_or_end)
    with pytest.raises(KeyboardInterrupt):
        run(spec, files, tmp_path / "stopped")
    capsys.readouterr()
    assert run(spec, files, tmp_path / "stopped") == whole
    assert f"goes on after epoch {after}" in capsys.readouterr().err


def test_a_run_that_is_told_to_end_after_its_last_epoch_keeps_it(spec, files, tmp_path, monkeypatch, capsys):
    whole = run(spec, files, tmp_path / "whole")

    def end(cell):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "solver_accuracy", end)
        with pytest.raises(KeyboardInterrupt):
            run(spec, files, tmp_path / "stopped")
    capsys.readouterr()
    assert run(spec, files, tmp_path / "stopped") == whole
    assert "goes on after epoch 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("duration", "written"),
    [(7.0, [1, 9, 17]), (25.0, [1, 3, 5, 7]), (31.0, [1, 2, 3, 4]), (100.0, [1, 2, 3, 4])],
)
def test_what_a_kill_loses_is_a_minute_or_an_epoch(tmp_path, monkeypatch, duration, written):
    now, saved = [0.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoints, "save", lambda path, state: saved.append(state["epoch"]))
    checkpointing = checkpoints.Checkpointing(tmp_path / "checkpoint.pt")
    lost = []
    for epoch in range(1, 18):
        now[0] += duration
        lost.append(now[0] - duration * (saved[-1] if saved else 0))  # of a kill just before this epoch's end
        checkpointing.epoch({"epoch": epoch})
    assert max(lost) <= max(60, duration)
    assert saved[: len(written)] == written


def test_a_torn_checkpoint_is_no_checkpoint(spec, files, tmp_path, capsys):
    whole = run(spec, files, tmp_path / "whole")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"PK\x03\x04 half a file")
    assert run(spec, files, tmp_path / "anew", checkpoint=torn) == whole
    assert "not a whole checkpoint" in capsys.readouterr().err


def test_a_checkpoint_in_which_a_bit_is_turned_is_none(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {"weights": torch.randn(50), "epoch": 3}
    checkpoints.save(path, state)
    assert checkpoints.load(path, torch.device("cpu"))["epoch"] == 3
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(50):
        held = bytearray(whole)
        held[draw.randrange(len(held))] ^= 1 << draw.randrange(8)
        path.write_bytes(held)
        assert checkpoints.load(path, torch.device("cpu")) is None


@pytest.mark.parametrize("sealed", [False, True])
def test_a_checkpoint_with_code_is_not_run(tmp_path, sealed):
    """Neither as torch writes it, nor by one who knows our form."""

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    path = tmp_path / "attack.pt"
    torch.save({"cell": Attack()}, path)
    if sealed:
        path.write_bytes(hashlib.sha256(path.read_bytes()).digest() + path.read_bytes())
    assert checkpoints.load(path, torch.device("cpu")) is None
    assert not (tmp_path / "harm").exists()


def test_history_and_snapshots_hold_what_was_asked_for(spec, files, tmp_path):
    run(spec, files, tmp_path)
    with open(tmp_path / "history.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [bool(row["train_accuracy"]) for row in rows] == [True, False, True, True]
    assert all(float(row[f"{part}solver_converged"]) == 1.0 for row in rows for part in ("", "test_"))
    measured = [row for row in rows if row["train_accuracy"]]
    assert all(float(row["train_solver_converged"]) == 1.0 for row in measured)
    for row in measured:
        certified, slack = (float(row[f"solver_contraction_{name}"]) for name in ("certified", "slack"))
        assert float(row["solver_spectral_radius"]) <= certified <= 0.9 + 1e-6
        assert 0.9 - certified <= slack + 1e-6
    snapshots = load_file(tmp_path / "snapshots.safetensors")
    assert {name.split("/")[0] for name in snapshots} == {
        *("epoch-000001", "epoch-000003", "epoch-000004"),
        "answers",
    }


def test_the_answers_on_the_test_images_are_those_behind_the_last_accuracies(spec, files, tmp_path):
    run(spec, files, tmp_path)
    with open(tmp_path / "history.csv", newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    snapshots = load_file(tmp_path / "snapshots.safetensors")
    labels = snapshots["answers/labels"]
    assert labels.tolist() == read_dataset(files[1]).labels.tolist()
    majority = torch.isin(labels, torch.tensor(read_split(files[2]).majority))
    for way in ("test", "skipped", "solved"):
        right = snapshots[f"answers/{way}"].double()
        assert right.mean().item() == pytest.approx(float(last[f"{way}_accuracy"]))
        for group, among in (("majority", majority), ("minority", ~majority)):
            assert right[among].mean().item() == pytest.approx(float(last[f"{way}_accuracy_{group}"]))


def test_the_test_set_is_evaluated_at_snapshot_epochs_only_and_at_the_last(spec, files, tmp_path):
    spec["snapshots"]["epochs"] = [2]
    written = {}
    for evaluate in ("every", "snapshots"):
        spec["train"]["evaluate"] = evaluate
        folder = tmp_path / evaluate
        written[evaluate] = run(spec, files, folder)
        with open(folder / "history.csv", newline="") as stream:
            evaluated = [int(row["epoch"]) for row in csv.DictReader(stream) if row["test_accuracy"]]
        assert evaluated == {"every": [1, 2, 3, 4], "snapshots": [2, 4]}[evaluate]
    assert written["every"]["model.safetensors"] == written["snapshots"]["model.safetensors"]


def test_validation_samples_are_measured_and_not_trained_on(spec, files, tmp_path):
    split = files[2].read_text().splitlines()
    files[2].write_text(
        "\n".join([split[0], *(line.replace(",train", ",validation") for line in split[1:13]), *split[13:]])
    )
    run(spec, files, tmp_path)
    with open(tmp_path / "history.csv", newline="") as stream:
        shares = [float(row["validation_accuracy"]) * 12 for row in csv.DictReader(stream)]
    assert shares == pytest.approx([round(share) for share in shares])
    snapshots = load_file(tmp_path / "snapshots.safetensors")
    assert snapshots["epoch-000004/features/counts"].sum() == 40 - 12


def test_snapshots_agree_with_the_kept_weights(spec, files, tmp_path):
    """Counts and the last accuracy, from the stored moments alone."""
    run(spec, files, tmp_path)
    snapshots = load_file(tmp_path / "snapshots.safetensors")
    prefix = "epoch-000004/features/"
    moments = Moments.from_tensors({n.removeprefix(prefix): t for n, t in snapshots.items() if n.startswith(prefix)})
    assert moments.counts.tolist() == [20, 10, 10]
    weights = load_file(tmp_path / "model.safetensors")
    assert torch.equal(snapshots["epoch-000004/weight"], weights["linear.weight"])
    kept = load_file(tmp_path / "features.safetensors")
    assert torch.bincount(kept["train/labels"]).tolist() == [5, 5, 5]
    assert kept["test/features"].shape == (15, 16)


def test_no_features_are_kept_where_none_are_asked_for(spec, files, tmp_path):
    spec["snapshots"]["features_per_class"] = 0
    run(spec, files, tmp_path)
    kept = load_file(tmp_path / "features.safetensors")
    assert {name: tuple(values.shape) for name, values in kept.items()} == {
        "train/features": (0, 16),
        "train/labels": (0,),
        "test/features": (0, 16),
        "test/labels": (0,),
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_divergence_names_cell_and_epoch(spec, files, tmp_path, precision):
    spec["train"] |= {"lr": 1e30, "precision": precision}
    with pytest.raises(EqcollapseError, match=r"noise/ka1-r2/deq/seed-0 diverged in epoch \d.*residual.*train\.lr"):
        run(spec, files, tmp_path)
    assert not (tmp_path / "history.csv").exists()


def test_a_finite_divergence_is_one_too(spec, files, tmp_path):
    """The residual layer at a large step: loss and residual stay finite, and mean nothing."""
    spec["equilibrium"]["layer"] = "residual"
    spec["train"] |= {"lr": 30.0, "schedule": spec["train"]["schedule"] | {"warmup": 0}}
    with pytest.raises(EqcollapseError, match=r"noise/ka1-r2/deq/seed-0 diverged in epoch \d.*solver residual"):
        run(spec, files, tmp_path)
    assert not (tmp_path / "history.csv").exists()


def test_too_few_converged_samples_can_stop_a_cell(spec, files, tmp_path):
    spec["equilibrium"]["forward"] = spec["equilibrium"]["forward"] | {"max_iter": 3, "tol": 1e-9}
    spec["equilibrium"]["convergence"] = {"share": 0.5, "action": "stop", "method": "broyden"}
    with pytest.raises(EqcollapseError, match=r"noise/ka1-r2/deq/seed-0, epoch 1.*solver_converged.*residual"):
        run(spec, files, tmp_path)


def test_what_evaluation_did_not_solve_counts_too(spec, files, tmp_path, monkeypatch):
    """A layer that is a contraction in training alone: features are measured where it is none."""
    spec["equilibrium"]["convergence"] = {"share": 0.99, "action": "stop", "method": "broyden"}
    bind = ContractiveConv.bind

    def expanding(layer, x):
        f = bind(layer, x)
        return f if layer.training else lambda z: 3 * z + f(z)

    monkeypatch.setattr(ContractiveConv, "bind", expanding)
    spec["equilibrium"]["forward"] = spec["equilibrium"]["forward"] | {"method": "picard"}
    with pytest.raises(EqcollapseError, match=r"epoch 1.*solver_converged 0\.0"):
        run(spec, files, tmp_path)


def test_a_gpu_that_is_not_there(spec, files, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EqcollapseError, match="device: cuda"):
        run(spec, files, tmp_path, device="cuda")


@pytest.mark.parametrize(
    "change", [{"loss": "mse", "loss_options": {}}, {"precision": "bfloat16"}, {"batch_size": 1}, {"batch_size": 39}]
)
def test_other_settings_train(spec, files, tmp_path, change):
    spec["train"] |= {**change, "epochs": 1, "lr": 1e-3}
    spec["snapshots"]["epochs"] = [1]
    run(spec, files, tmp_path)
    with open(tmp_path / "history.csv", newline="") as stream:
        assert math.isfinite(float(next(csv.DictReader(stream))["loss"]))


def test_weights_that_are_shared_are_kept(spec, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_shared.py").write_text(SHARED)
    spec["network"] |= {"head": "explicit", "architecture": "own_shared.py:net"}
    spec["equilibrium"] = None
    run(spec, files, tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    assert torch.equal(kept["encoder.network.2.weight"], kept["encoder.network.4.weight"])


def test_feature_decay_makes_features_small(spec, files, tmp_path):
    spec["network"]["head"], spec["equilibrium"] = "explicit", None
    norms = {}
    for decay in (0.0, 1.0):
        spec["train"]["feature_decay"] = decay
        run(spec, files, tmp_path / str(decay))
        norms[decay] = load_file(tmp_path / str(decay) / "features.safetensors")["train/features"].norm()
    assert norms[1.0] < 0.7 * norms[0.0]


@pytest.mark.parametrize("classifier", ["etf", "cosine"])
def test_what_is_kept_of_a_classifier_is_what_decides(spec, files, tmp_path, classifier):
    spec["network"] |= {"head": "explicit", "classifier": classifier, "classifier_norm": 4.0}
    spec["equilibrium"] = None
    run(spec, files, tmp_path)
    kept = load_file(tmp_path / "snapshots.safetensors")
    weight, bias = kept["epoch-000004/weight"], kept["epoch-000004/bias"]
    features = load_file(tmp_path / "features.safetensors")
    logits = features["test/features"] @ weight.T + bias
    right = (logits.argmax(dim=1) == features["test/labels"]).double().mean()
    assert torch.allclose(weight.norm(dim=1), torch.full((3,), 4.0), rtol=1e-5)
    first = torch.cat([(kept["answers/labels"] == k).nonzero()[:5, 0] for k in range(3)]).sort().values
    assert right == pytest.approx(kept["answers/test"][first].double().mean())


def test_a_penalty_in_low_precision(spec, files, tmp_path):
    """The layer's float32 kernels take what autocast left in bfloat16."""
    spec["train"] |= {"precision": "bfloat16", "epochs": 1}
    spec["snapshots"]["epochs"] = [1]
    losses = {}
    for weight in (0.0, 1.0):
        spec["equilibrium"]["jacobian_penalty"] = weight
        run(spec, files, tmp_path / str(weight))
        with open(tmp_path / str(weight) / "history.csv", newline="") as stream:
            losses[weight] = float(next(csv.DictReader(stream))["loss"])
    assert losses[0.0] != losses[1.0]


def test_the_jacobian_penalty_holds_the_jacobian_down(spec, files, tmp_path):
    """With a heavy penalty the spectral radius of df/dz at the equilibrium is clearly smaller."""
    spec["equilibrium"] |= {"layer": "residual"}
    spec["network"]["width"] = 8
    radius = {}
    for weight in (0.0, 30.0):
        spec["equilibrium"]["jacobian_penalty"] = weight
        run(spec, files, tmp_path / str(weight))
        with open(tmp_path / str(weight) / "history.csv", newline="") as stream:
            radius[weight] = float(list(csv.DictReader(stream))[-1]["solver_spectral_radius"])
    assert radius[30.0] < 0.9 * radius[0.0]
