"""Descent of eqcollapse.theory against the plain autograd loop, per seed and iteration, in one process.

Run: `OMP_NUM_THREADS=1 PYTHONPATH=src python benchmarks/theory.py`. Prints a markdown table. Both do the same
float64 iterations from the same starts; the last column is the largest relative difference of the losses at the end.
Linear models run in K + d rotated columns instead of N. ReLU models cannot: most of their time goes into six matrix
products, of which nothing can be left out, and so depends on the kernels of NumPy's BLAS, which are named: OpenBLAS
takes those of the processor, unless OPENBLAS_CORETYPE asks for others.
"""

import statistics
import time

import torch
from threadpoolctl import threadpool_info, threadpool_limits

from eqcollapse.theory.ufm.descent import minimise
from eqcollapse.theory.ufm.problem import Problem

SEEDS = 10
ITERATIONS = 2000
ROUNDS = 5
STARTS = {1: 1.0, 2: 0.3}
LOGGED = 2
"""Of so few iterations: the figures log 60 of 50 000 and more."""
GOAL = 8
CASES = {
    "figure 1: linear, 1 layer, no bias": (1, "identity", "none"),
    "figure 2: linear, 1 layer, free bias": (1, "identity", "free"),
    "figure 3: linear, 2 layers, no bias": (2, "identity", "none"),
    "figure 4: ReLU, 2 layers, no bias": (2, "relu", "none"),
}


def main() -> None:
    """Time each case in alternation and print the table."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    print(f"NumPy's BLAS: {', '.join(sorted(kernels()))}\n")
    print("| case | autograd, µs | ours, µs | times faster | goal | holds | difference |")
    print("|---|---|---|---|---|---|---|")
    totals = [0.0, 0.0]
    for name, (layers, activation, bias) in CASES.items():
        lambdas = (0.005,) * layers
        case = Problem(4, 20, 50, layers, activation, bias, "mse", lambdas, 0.005, 0.0)
        theirs, ours, difference = compare(case, STARTS[layers])
        ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
        a, b = statistics.median(theirs), statistics.median(ours)
        totals = [totals[0] + a, totals[1] + b]
        print(f"| {name} | {a:.1f} | {b:.1f} | {verdict(ratio)} | {difference:.0e} |")
    print(f"| all four | {totals[0]:.1f} | {totals[1]:.1f} | {verdict(totals[0] / totals[1])} | |")


def kernels() -> set[str]:
    """Return the BLAS libraries that can be asked, each with the kernels that it has chosen."""
    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return {f"{x['internal_api']} {x['version']}, {x.get('architecture', 'unknown')} kernels" for x in found}


def verdict(ratio: float) -> str:
    """Return three cells: how many times faster, the goal, and whether it holds."""
    return f"{ratio:.1f} | {GOAL} | {'yes' if ratio >= GOAL else 'no'}"


def compare(case: Problem, start: float) -> tuple[list[float], list[float], float]:
    """Return CPU µs per seed-iteration of the autograd loop (one seed) and of the batch, a value a round."""
    options = {"step": 0.1, "start": start, "logged": LOGGED}
    origin = minimise(case, range(SEEDS), iterations=0, **options).final
    theirs, ours, difference = [], [], 0.0
    for turn in range(ROUNDS):
        began = time.process_time()
        loss = autograd(case, origin, turn, 0.1)
        theirs.append((time.process_time() - began) / ITERATIONS * 1e6)
        began = time.process_time()
        end = minimise(case, range(SEEDS), iterations=ITERATIONS, **options)
        ours.append((time.process_time() - began) / ITERATIONS / SEEDS * 1e6)
        difference = max(difference, abs(loss / float(end.loss[-1, turn]) - 1))
    return theirs, ours, difference


def autograd(case: Problem, origin, seed: int, step: float) -> float:
    """Run what one would write first: the objective, `backward`, a step; return the last loss."""
    variables = [value[seed].clone().requires_grad_() for value in (*origin.weights, origin.features)]
    bias = torch.zeros(case.num_classes, 1, dtype=torch.float64, requires_grad=case.bias != "none")
    learnt = [*variables, bias] if bias.requires_grad else variables
    targets = torch.eye(case.num_classes, dtype=torch.float64).repeat_interleave(case.per_class, 1)
    for _ in range(ITERATIONS):
        loss = objective(case, variables, bias, targets)
        loss.backward()
        with torch.no_grad():
            for variable in learnt:
                variable -= step * variable.grad
                variable.grad = None
    return objective(case, variables, bias, targets).item()


def objective(case: Problem, variables: list, bias: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the objective of Tirer & Bruna as it is written."""
    *weights, features = variables
    output = features
    for weight in weights[:-1]:
        output = weight @ output
        output = torch.relu(output) if case.activation == "relu" else output
    output = weights[-1] @ output
    output = output + bias if case.bias != "none" else output
    penalties = sum(lam / 2 * w.square().sum() for lam, w in zip(case.lambda_weights, weights, strict=True))
    fit = (output - targets).square().sum() / (2 * case.num_samples)
    return fit + penalties + case.lambda_features / 2 * features.square().sum()


if __name__ == "__main__":
    main()
