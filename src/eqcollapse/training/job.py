"""Train one cell: files in, files out."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from eqcollapse.data.batches import Batches, channel_statistics
from eqcollapse.data.splits import Split, read_split
from eqcollapse.data.store import Dataset, read_dataset
from eqcollapse.equilibrium import EquilibriumError
from eqcollapse.networks.classifier import Classifier, build
from eqcollapse.networks.config import Network
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import replacing
from eqcollapse.runtime.gpus import claim
from eqcollapse.training import backends, checkpoints
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.evaluation import LARGEST_BATCH
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.snapshots import kept_features, measure
from eqcollapse.training.solver_accuracy import solver_accuracy
from eqcollapse.training.trainer import Cell, train_epoch

METADATA = "eqcollapse.run"


def run(
    spec: TrainSpec,
    inputs: list[str],
    outputs: list[str],
    *,
    device: str,
    checkpoint: Path,
    live: Path | None = None,
    tensorboard: Path | None = None,
) -> dict[str, Any]:
    """Train the cell of `spec` from `inputs` (train, test, split) to `outputs` (history, snapshots, features, weights).

    See `train`. On a machine with several GPUs, the job is given one of them until it ends. `live` is the file of the
    live history, `tensorboard` the folder of the cell's event files (`TrainingLog`); None: without.
    """
    claimed = claim() if device != "cpu" else None
    train_file, test_file, split_file = map(Path, inputs)
    folder = Path(outputs[0]).parent
    try:
        with TrainingLog(live, tensorboard) as log:
            return train(spec, train_file, test_file, split_file, folder, device=device, checkpoint=checkpoint, log=log)
    finally:
        if claimed:
            claimed.close()


def train(
    spec: TrainSpec,
    train_file: Path,
    test_file: Path,
    split_file: Path,
    folder: Path,
    *,
    device: str,
    checkpoint: Path,
    log: TrainingLog,
) -> dict[str, Any]:
    """Train the cell of `spec` and write history, snapshots, features and weights to `folder`.

    Goes on from `checkpoint` where a run was stopped. Returns how it ran, for the record.
    """
    place = backends.prepare(device, spec.train.threads, spec.train.deterministic)
    dataset, split = read_dataset(train_file), read_split(split_file)
    cell = new_cell(spec, dataset, read_dataset(test_file), split, place)
    snapshots: dict[str, Tensor] = {}
    if state := checkpoints.load(checkpoint, place):
        cell.restore(state["cell"])
        snapshots = {name: value.cpu() for name, value in state["snapshots"].items()}
    log.begin(cell.name, spec.train.epochs, len(cell.train), cell.history)
    with checkpoints.Checkpointing(checkpoint) as checkpointing:
        while cell.epoch < spec.train.epochs:
            train_epoch(cell, log)
            snapshot = measure(cell) if cell.epoch in spec.snapshots.epochs else {}
            snapshots |= snapshot
            log.epoch(cell.history[-1], snapshot)
            checkpointing.epoch({"cell": cell.state(), "snapshots": snapshots})
        others, answers = solver_accuracy(cell)
        cell.history[-1] |= others
        _write(cell, snapshots, answers, dataset, split, folder)
    checkpoint.unlink(missing_ok=True)  # by a job that outlived its Snakemake, this one may be gone
    return backends.settings(place)


def new_cell(spec: TrainSpec, train: Dataset, test: Dataset, split: Split, device: torch.device) -> Cell:
    """Return the cell of `spec` before its first epoch, network and data on `device`."""
    settings = spec.train
    images = torch.from_numpy(train.images)
    indices = torch.from_numpy(split.indices)
    mean, std = channel_statistics(images, indices)
    common: dict[str, Any] = {"mean": mean, "std": std, "seed": spec.seed}
    try:
        size = (images.shape[2], images.shape[3])
        network = build(spec.network, spec.equilibrium, images.shape[1], len(train.classes), spec.seed, size)
    except (EquilibriumError, ValueError) as error:
        raise EqcollapseError(f"model {spec.model}: {error}: change network or equilibrium in params.yaml") from None
    return Cell(
        spec=spec,
        network=_placed(network, device, spec.network),
        train=Batches(
            images[indices].to(device),
            torch.from_numpy(split.labels).to(device),
            settings.batch_size,
            **settings.augment.model_dump(),
            **common,
        ),
        test=_unaltered(images=test.images, labels=test.labels, device=device, common=common),
        validation=_validation(train, split, device, common),
        majority=split.majority,
        device=device,
    )


def _placed(network: Classifier, device: torch.device, settings: Network) -> Classifier:
    """Return `network` on `device`, with channels last where that is faster and safe, which is known of our ResNet.

    With fewer than 8 channels the backward pass of such a convolution writes outside its memory on some processors
    (torch 2.15, oneDNN, AMD EPYC): glibc ends the process.
    """
    network = network.to(device)
    safe = settings.architecture == "resnet" and settings.width >= 8
    return network.to(memory_format=torch.channels_last) if safe else network


def _validation(train: Dataset, split: Split, device: torch.device, common: dict) -> Batches | None:
    kept = split.validation
    if not len(kept):
        return None
    return _unaltered(images=train.images[kept], labels=train.labels[kept], device=device, common=common)


def _unaltered(*, images: np.ndarray, labels: np.ndarray, device: torch.device, common: dict) -> Batches:
    return Batches(torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device), LARGEST_BATCH, **common)


def _write(
    cell: Cell,
    snapshots: dict[str, Tensor],
    answers: dict[str, Tensor],
    dataset: Dataset,
    split: Split,
    folder: Path,
) -> None:
    """Write the files of a run; the snapshots get, as `answers/<pass>`, which test images each forward pass got right
    after the last epoch (uint8), and their labels.
    """
    names = ("dataset", "split", "model", "seed")
    about = {
        **{name: getattr(cell.spec, name) for name in names},
        "classes": list(dataset.classes),
        "majority": list(split.majority),
    }
    metadata = {METADATA: json.dumps(about, sort_keys=True)}
    kept, right = kept_features(cell, cell.spec.snapshots.features_per_class)
    answers = {way: of.to(torch.uint8) for way, of in {"test": right, **answers}.items()}
    answers["labels"] = cell.test.labels.to(torch.int32)
    snapshots = snapshots | {f"answers/{name}": value.cpu() for name, value in answers.items()}
    _write_tensors(folder / "snapshots.safetensors", snapshots, metadata)
    _write_tensors(folder / "features.safetensors", kept, metadata)
    # Copied, since weights that a network shares with itself are no two tensors to safetensors.
    weights = {name: value.cpu().clone() for name, value in cell.network.state_dict().items()}
    _write_tensors(folder / "model.safetensors", weights, metadata)
    _write_history(folder / "history.csv", cell.history)


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def _write_history(path: Path, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, open(temporary, "w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
