"""Training on a device beside plain PyTorch: `python benchmarks/training.py` prints one Markdown table.

Images a second over whole epochs of random images, the contestants taking turns within a round; a ratio is the median
over rounds of the rounds' ratios. `plain` is what a first script has: torchvision's transforms on PIL images, a
DataLoader with a worker a core, the same explicit network in eager float32, NCHW, SGD, torch set as it comes.
`torchdeq` is our loop and network with the equilibrium solved by torchdeq: same solver and memory, tolerance,
evaluations at most and implicit gradient. Work is counted by torch's FlopCounterMode; its share is that of PEAKS, or of
`--peak` for other devices.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from eqcollapse.data.batches import Batches
from eqcollapse.networks.classifier import build
from eqcollapse.training import backends
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.snapshots import measure
from eqcollapse.training.trainer import Cell, descend

CLASSES, SIDE = 10, 32
MEAN, STD = (0.5,) * 3, (0.25,) * 3
SOLVER = {"method": "anderson", "tol": 1e-3, "criterion": "relative", "max_iter": 20, "memory": 6}
"""With the memory of torchdeq, whose adjoint takes no other."""
Epoch = Callable[[], object]
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""TFLOP/s in bfloat16, dense, by what a device's name holds (NVIDIA's data sheets)."""


def spec(head: str, options: argparse.Namespace) -> TrainSpec:
    solver = SOLVER | {"check_every": options.check_every}
    settings = {
        "dataset": "random", "split": "balanced", "model": head, "seed": 0, "own": {},
        "network": {
            "architecture": "resnet", "options": {}, "cut": None, "channels": None, "stem": "cifar",
            "width": options.width, "stages": 4, "blocks": 2, "head": head, "bias": True,
            "classifier": "linear", "classifier_norm": 1.0,
        },
        "equilibrium": {
            "layer": "contractive", "options": {}, "hidden": None, "bound": 0.9, "gradient": "implicit",
            "freeze": False,
            "forward": solver, "backward": solver, "jacobian_penalty": 0.0,
            "convergence": {"share": 0.0, "action": "warn", "method": "broyden"},
        },
        "train": {
            "epochs": 10**6, "batch_size": options.batch, "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4,
            "loss": "ce", "precision": options.precision, "augment": {"crop": 4, "flip": True},
            "schedule": {"kind": "constant", "every": 1, "factor": 1.0, "warmup": 0},
            "threads": 1, "deterministic": False, "evaluate": "snapshots",
            "loss_options": {"label_smoothing": 0.0, "class_balanced": 0.0, "deferred": 0}, "feature_decay": 0.0,
            "optimizer": "sgd", "optimizer_options": {},
        },
        "snapshots": {"epochs": [10**6], "layers": "features", "features_per_class": 0},
    }  # fmt: skip
    if head == "explicit":
        settings["equilibrium"] = None
    return TrainSpec.model_validate(settings)


def cell(head: str, images: Tensor, labels: Tensor, options: argparse.Namespace) -> Cell:
    device = torch.device(options.device)
    settings = spec(head, options)
    batches = Batches(
        images.to(device), labels.to(device), options.batch,
        **settings.train.augment.model_dump(), mean=MEAN, std=STD, seed=0,
    )  # fmt: skip
    network = build(settings.network, settings.equilibrium, 3, CLASSES, 0).to(device, memory_format=torch.channels_last)
    return Cell(spec=settings, network=network, train=batches, test=batches, majority=(), device=device)


class TorchDEQ(nn.Module):
    """In the place of an `Equilibrium`: z* = layer(z*, x), solved by torchdeq."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        from torchdeq import get_deq

        tol, most = SOLVER["tol"], SOLVER["max_iter"]
        settings = {f"{key}_{name}": value for key in "fb" for name, value in
                    (("solver", "anderson"), ("tol", tol), ("max_iter", most), ("stop_mode", "rel"))}  # fmt: skip
        self.layer, self.deq = layer, get_deq(ift=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        f = self.layer.bind(x)
        return self.deq(f, torch.zeros_like(x, dtype=torch.float32))[0][-1]


def with_torchdeq(own: Cell) -> Cell:
    network = copy.deepcopy(own.network)
    network.head.equilibrium = TorchDEQ(network.head.equilibrium.layer)
    return Cell(spec=own.spec, network=network, train=own.train, test=own.test, majority=(), device=own.device)


class Pictures(Dataset):
    """PIL images, as torchvision's data sets give them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._arrays = images.permute(0, 2, 3, 1).numpy()
        self._labels = labels.tolist()
        steps = [transforms.RandomCrop(SIDE, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self._transform = transforms.Compose([transforms.ToPILImage(), *steps, transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(np.ascontiguousarray(self._arrays[index])), self._labels[index]


def plain(images: Tensor, labels: Tensor, options: argparse.Namespace) -> Epoch:
    settings = spec("explicit", options)
    network = build(settings.network, None, 3, CLASSES, 0).to(options.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(
        Pictures(images, labels), options.batch, shuffle=True, num_workers=options.workers,
        pin_memory=options.device == "cuda", persistent_workers=options.workers > 0,
    )  # fmt: skip

    def epoch() -> None:
        with torch_as_it_comes():
            once()

    def once() -> None:
        network.train()
        for batch, of_class in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(batch.to(options.device)), of_class.to(options.device)).backward()
            optimizer.step()

    return epoch


@contextmanager
def torch_as_it_comes() -> Iterator[None]:
    """Undo what `backends.prepare` sets for our own training."""
    ours = torch.get_deterministic_debug_mode(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    torch.set_deterministic_debug_mode("default")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(ours[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = ours[1:]


def steps(trained: Cell) -> None:
    trained.epoch += 1
    descend(trained, TrainingLog())


def seconds(run: Epoch, device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def work(trained: Cell) -> float:
    """FLOP of one training step (forward and backward) an image, in the state that the network is in now."""
    images, labels = next(iter(trained.train.epoch(0)))
    with FlopCounterMode(display=False) as counted:
        F.cross_entropy(trained.network(images).float(), labels).backward()
    return counted.get_total_flops() / len(images)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=50_000, help="an epoch")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--check-every", type=int, default=1)
    parser.add_argument("--fast", action="store_true", help="not deterministic")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=float, help="TFLOP/s that the device has at most in this precision")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    backends.prepare(options.device, torch.get_num_threads(), deterministic=not options.fast)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (options.images, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (options.images,), generator=generator)
    explicit, deq = (cell(head, images, labels, options) for head in ("explicit", "equilibrium"))
    contestants: dict[str, Epoch] = {
        "explicit": partial(steps, explicit),
        "plain": plain(images, labels, options),
        "deq": partial(steps, deq),
        "torchdeq": partial(steps, with_torchdeq(deq)),
    }
    explicit.history.append({})
    contestants["collapse"] = partial(measure, explicit)
    for run in contestants.values():  # the first time makes buffers and chooses kernels
        run()
    rounds = [{name: seconds(run, options.device) for name, run in contestants.items()} for _ in range(options.rounds)]
    report(rounds, work(explicit), options)


def report(rounds: list[dict[str, float]], flop: float, options: argparse.Namespace) -> None:
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{device}, width {options.width}, batch {options.batch}, {options.precision}, {options.images} images, "
        f"a look every {options.check_every}, {'fastest' if options.fast else 'deterministic'}\n"
    )
    print("| | images/s | against |\n| --- | --- | --- |")
    against = {"explicit": "plain", "deq": "torchdeq"}
    for name in ("explicit", "plain", "deq", "torchdeq"):
        rate = options.images / statistics.median(times[name] for times in rounds)
        ratio = ""
        if other := against.get(name):
            ratio = f"{statistics.median(times[other] / times[name] for times in rounds):.2f} x {other}"
        print(f"| {name} | {rate:.0f} | {ratio} |")
    share = statistics.median(times["collapse"] / (times["collapse"] + times["explicit"]) for times in rounds)
    print(f"\nTo measure the training features of an epoch takes {share:.1%} of it, the passes over the data included.")
    done = flop * options.images / statistics.median(times["explicit"] for times in rounds) / 1e12
    known = [peak for name, peak in PEAKS.items() if name in device and options.precision == "bfloat16"]
    most = options.peak or next(iter(known), None)
    peak = f", {done / most:.0%} of {most:g}" if most else ""
    print(f"Explicit training computes {done:.3g} TFLOP/s{peak}.")


if __name__ == "__main__":
    main()
