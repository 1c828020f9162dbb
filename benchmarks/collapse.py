"""NC metrics of 50,000 features: the K×K side against d×d covariances and a pseudo-inverse, both in
float64.

    OMP_NUM_THREADS=1 python benchmarks/collapse.py [--rounds 3] [--samples 50000] [--batch 1024]
        [--output FILE.md]

Prints a markdown table: goal beside measured. Both methods run in turns in one process and read the
same float32 features in the same batches, as small as training's; each ratio is the median over the
rounds of the paired ratios of process CPU time. The d×d method is written from its formula (three
passes: means; S_W and traces; nearest class centres; then pinv(hermitian=True)), with the metrics that
such tools have: NC1, CDNV, NC2, NC3, NC4. Ours has all of `COLUMNS`. Peak memory is what each adds to
the features.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eqcollapse.collapse import Moments, collapse_metrics

BATCH = 1024


@dataclass(frozen=True)
class Case:
    """Sizes, and the goals: how many times the peer's speed, how much extra memory (MiB)."""

    dim: int
    num_classes: int
    speed: float | None = None
    memory: float | None = None


CASES = (
    Case(512, 10, speed=2),
    Case(512, 100, speed=2),
    Case(2048, 10, speed=12),
    Case(2048, 100, speed=4, memory=100),
    Case(2048, 1000, memory=1024),
)


@dataclass(frozen=True)
class Data:
    """Features (N×d float32), labels (N) and a linear classifier; `batch`, how many samples are read at a time."""

    features: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    batch: int

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """The batches that both methods are given."""
        return list(zip(self.features.split(self.batch), self.labels.split(self.batch), strict=True))


def draw(case: Case, samples: int, batch: int = BATCH) -> Data:
    """Return features with well separated class means, as late in training."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, case.num_classes, (samples,), generator=generator)
    means = torch.randn(case.num_classes, case.dim, generator=generator)
    features = torch.randn(samples, case.dim, generator=generator).mul_(0.3)
    for part, of_part in zip(features.split(BATCH), labels.split(BATCH), strict=True):
        part += means[of_part]
    return Data(features, labels, means, torch.zeros(case.num_classes), batch)


def ours(data: Data, case: Case) -> dict[str, float]:
    """Every metric of the table, majority and minority included."""
    moments = Moments(case.num_classes, case.dim)
    for begin in (lambda: None, lambda: moments.second_pass(data.weight, data.bias)):
        begin()
        for H, y in data.batches:
            moments.update(H, y)
    return collapse_metrics(moments, data.weight, data.bias, majority=range(case.num_classes // 2))


def dxd(data: Data, case: Case) -> dict[str, float]:
    """The usual way, in float64."""
    K, d, N = case.num_classes, case.dim, len(data.labels)
    batches = data.batches
    W, b = data.weight.double(), data.bias.double()
    counts = torch.bincount(data.labels, minlength=K).double()
    sums = torch.zeros(K, d, dtype=torch.float64)
    for H, y in batches:
        sums.index_add_(0, y, H.double())
    means = sums / counts[:, None]
    S_W, traces = torch.zeros(d, d, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    for H, y in batches:
        centred = H.double() - means[y]
        S_W.addmm_(centred.T, centred)
        traces.index_add_(0, y, centred.square().sum(1))
    agreeing = 0
    for H, _ in batches:
        Z = H.double()
        nearest = ((means**2).sum(1) - 2 * Z @ means.T).argmin(1)
        agreeing += int(((Z @ W.T + b).argmax(1) == nearest).sum())
    M = means - means.mean(0)
    S_B = M.T @ M / K
    E = (torch.eye(K, dtype=torch.float64) - 1 / K) / math.sqrt(K - 1)
    variances, distances = traces / counts, torch.cdist(M, M).square()
    pairs = ((variances[:, None] + variances) / (2 * distances))[~torch.eye(K, dtype=torch.bool)]
    return {
        "nc1": float(torch.trace(S_W / N @ torch.linalg.pinv(S_B, hermitian=True))) / K,
        "cdnv": float(pairs.mean()),
        "nc2_means_etf": frame_error(M @ M.T, E),
        "nc2_weight_etf_uncentred": frame_error(W @ W.T, E),
        "nc3_etf_uncentred": frame_error(W @ M.T, E),
        "nc4": agreeing / N,
    }


def frame_error(gram: Tensor, target: Tensor) -> float:
    """Return ||G/||G||_F - E||_F."""
    return float(torch.linalg.norm(gram / torch.linalg.norm(gram) - target))


@dataclass(frozen=True)
class Run:
    """CPU and wall time (s), extra peak memory (MiB), and what came out."""

    cpu: float
    wall: float
    memory: float
    found: dict[str, float]


def timed(method: Callable[[Data, Case], dict[str, float]], data: Data, case: Case) -> Run:
    """Run `method` once."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs have freed is not to hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory starts anew
    before = _memory("VmRSS")
    cpu, wall = time.process_time(), time.perf_counter()
    found = method(data, case)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Run(cpu, wall, _memory("VmHWM") - before, found)


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def row(case: Case, samples: int, batch: int, rounds: int) -> str:
    """Return the table's row of `case`."""
    data = draw(case, samples, batch)
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(timed(ours, data, case))
        if case.speed is not None:
            theirs.append(timed(dxd, data, case))
    cells = [str(case.dim), str(case.num_classes), f"{statistics.median(run.cpu for run in mine):.2f}"]
    if theirs:
        ratio = statistics.median(b.cpu / a.cpu for a, b in zip(mine, theirs, strict=True))
        worst = max(abs(mine[0].found[name] / value - 1) for name, value in theirs[0].found.items())
        cells += [
            f"{statistics.median(run.cpu for run in theirs):.2f}",
            f"{ratio:.1f}×",
            f"≥ {case.speed:g}×",
        ]
        cells += [f"{worst:.0e}"]
    else:
        cells += ["", "", "", ""]
    cells += [f"{max(run.memory for run in mine):.0f}", f"< {case.memory:g}" if case.memory else ""]
    cells += [f"{max(run.memory for run in theirs):.0f}" if theirs else ""]
    return f"| {' | '.join(cells)} |"


HEADER = """\
| d | K | ours, CPU s | d×d, CPU s | ratio | goal | relative difference | ours, MiB | goal | d×d, MiB |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description="NC metrics: the K×K side against d×d matrices")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=1024, help="samples that both are given at a time")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    timed(ours, draw(CASES[0], 2000), CASES[0])
    timed(dxd, draw(CASES[0], 2000), CASES[0])
    lines = [
        f"N = {args.samples:,}, float32 features, both in batches of {args.batch}, {torch.get_num_threads()} thread(s)",
        "",
        HEADER,
    ]
    print("\n".join(lines), flush=True)
    for case in CASES:
        lines.append(row(case, args.samples, args.batch, args.rounds))
        print(lines[-1], flush=True)
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
