"""Gradient descent on the (extended) unconstrained features model, by hand and for many runs at once.

One batch holds every (problem, seed) pair; the problems of a batch differ in their lambdas only. Three things
make an
iteration cheap: the gradients are written out, the weight decay and the step ride on the matrix product
(`baddbmm`), and linear models with squared error run in a rotated sample space of K + d instead of N = K n
columns (see samples.py), in which the iterates are the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from eqcollapse.errors import EqcollapseError
from eqcollapse.theory.measure import Measurement, measure
from eqcollapse.theory.optimum import optimum
from eqcollapse.theory.problem import Problem
from eqcollapse.theory.samples import Samples, rotated, spelled_out

CHECK_EVERY = 100
"""Iterations between two looks for a diverged run; once infinite, a run stays so."""
RISE = 10.0
"""A loss so many times that of the start has diverged. The output does not tell: ReLUs that a step kills leave 0."""


@dataclass(frozen=True)
class State:
    """The variables of B runs: weights (each B x d x d, the last B x K x d), features B x d x N, bias B x K x 1."""

    weights: tuple[Tensor, ...]
    features: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Trajectory:
    """What was logged: T iterations of B runs, run b being problems[b // S] from seeds[b % S] of S seeds.

    loss, gap: T x B, gap = loss - optimum, nan where there is no closed form. nc1, nc2, nc3, rank: T x B x L, entry
    l for the features that W_{l+1} reads (0: the free features H). `final` is the state after the last iteration.
    """

    iterations: tuple[int, ...]
    loss: Tensor
    gap: Tensor
    nc1: Tensor
    nc2: Tensor
    nc3: Tensor
    rank: Tensor
    final: State


def minimise(
    problems: Problem | Sequence[Problem],
    seeds: Sequence[int],
    *,
    iterations: int,
    step: float,
    start: float,
    logged: int,
    name: str = "minimise",
    progress: Callable[[int], None] | None = None,
) -> Trajectory:
    """Run plain gradient descent of a fixed `step`, in float64, from `start` x standard normal weights and features.

    A seed's start depends on the seed and the sizes alone; the bias starts at 0. About `logged` log-spaced
    iterations are measured, 0 and the last among them; `progress` is told each. Raises EqcollapseError, with
    `name` and the iteration, where a run diverges, and for problems of different shapes.
    """
    problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
    _check(problems, seeds, iterations, step)
    state = _start(problems[0], len(problems), seeds, start)
    samples, state = _coordinates(problems[0], state)
    descent = _Descent(problems, len(seeds), samples, state, step)
    schedule = log_spaced(iterations, logged)
    measurements, highest = [], None
    for iteration in range(iterations + 1):
        descent.forward()
        if iteration in schedule or iteration % CHECK_EVERY == 0:
            loss = descent.loss()
            highest = loss * RISE if highest is None else highest
            if not bool((loss < highest).all()):  # false for NaN and infinity
                raise _diverged(name, iteration, step, start)
        if iteration in schedule:
            measurements.append(measure(problems[0], samples, descent.activations, descent.weights, loss))
            if progress:
                progress(iteration)
        if iteration < iterations:
            descent.backward()
    return _trajectory(problems, len(seeds), tuple(sorted(schedule)), measurements, samples.restore(descent.state()))


def log_spaced(iterations: int, logged: int) -> set[int]:
    """Return about `logged` log-spaced iterations from 0 to `iterations`, both included."""
    spaced = np.geomspace(1, iterations, max(logged, 2)) if iterations else np.zeros(1)
    return {0, iterations, *spaced.round().astype(int).tolist()}


def _check(problems: tuple[Problem, ...], seeds: Sequence[int], iterations: int, step: float) -> None:
    if not problems or not seeds:
        raise EqcollapseError("minimise needs at least one problem and one seed")
    if iterations < 0 or not step > 0:
        raise EqcollapseError(f"iterations is {iterations} and step {step}; neither may be negative, nor the step 0")
    first = problems[0]
    for problem in problems[1:]:
        lambdas = {name: getattr(first, name) for name in ("lambda_weights", "lambda_features", "lambda_bias")}
        if replace(problem, **lambdas) != first:
            raise EqcollapseError("the problems of one batch may differ in their lambdas only; run the others apart")


def _start(problem: Problem, copies: int, seeds: Sequence[int], scale: float) -> State:
    heights = [problem.dim] * (problem.layers - 1) + [problem.num_classes]
    shapes = [(height, problem.dim) for height in heights] + [(problem.dim, problem.num_samples)]
    generators = [np.random.default_rng(seed) for seed in seeds]
    draws = [[scale * torch.from_numpy(g.standard_normal(shape)) for shape in shapes] for g in generators]
    *weights, features = (torch.stack(column).repeat(copies, 1, 1) for column in zip(*draws, strict=True))
    bias = torch.zeros(copies * len(seeds), problem.num_classes, 1, dtype=torch.float64)
    return State(tuple(weights), features, bias)


def _coordinates(problem: Problem, state: State) -> tuple[Samples, State]:
    shrinks = problem.num_classes + problem.dim < problem.num_samples
    if problem.is_linear and problem.loss == "mse" and shrinks:
        samples, features = rotated(state.features, problem.num_classes)
        return samples, replace(state, features=features)
    return spelled_out(problem.num_classes, problem.per_class), state


class _Descent:
    """The iterates of one batch with their buffers; `forward` leaves N dfit/dZ in the last activation."""

    def __init__(self, problems: tuple[Problem, ...], seeds: int, samples: Samples, state: State, step: float) -> None:
        self._problem = problem = problems[0]
        self._lambdas = _lambdas(problems, seeds)
        self._decays = [_scalar_if_equal(1 - step * values) for values in self._lambdas]
        self._rate = -step / problem.num_samples
        self.weights, self._bias = list(state.weights), state.bias
        self._spare = [torch.empty_like(weight) for weight in self.weights]
        outputs = [state.features.new_empty(w.shape[0], w.shape[1], state.features.shape[2]) for w in self.weights]
        self.activations = [state.features.clone(), *outputs]
        self._errors = [torch.empty_like(output) for output in outputs[:-1]]
        self._ones = samples.ones.expand(outputs[-1].shape[0], 1, -1)
        self._targets = samples.targets
        self._negated = (-samples.targets).expand_as(outputs[-1]).contiguous()
        self._relu = not problem.is_linear

    def forward(self) -> Tensor:
        """Compute the activations and the error; return the error, B x K x C."""
        for weight, below, above in zip(self.weights[:-1], self.activations, self.activations[1:], strict=False):
            torch.bmm(weight, below, out=above)
            if self._relu:
                above.clamp_min_(0)
        output = self.activations[-1]
        if self._problem.loss == "mse":
            torch.baddbmm(self._negated, self.weights[-1], self.activations[-2], out=output)
            return self._plus_bias(output)
        torch.bmm(self.weights[-1], self.activations[-2], out=output)
        logits = self._plus_bias(output)
        self._fit = torch.logsumexp(logits, 1).mean(1) - (logits * self._targets).sum((1, 2)) / logits.shape[2]
        return torch.softmax(logits, 1, out=output).sub_(self._targets)

    def backward(self) -> None:
        """Take one step, all variables at once."""
        error = self.activations[-1]
        if self._problem.bias != "none":
            _step(self._bias, self._bias, self._decays[-1], error, self._ones.mT, self._rate)
        for layer in reversed(range(len(self.weights))):
            weight, below = self.weights[layer], self.activations[layer]
            _step(self._spare[layer], weight, self._decays[layer], error, below.mT, self._rate)
            if layer == 0:
                _step(below, below, self._decays[-2], weight.mT, error, self._rate)
            else:
                error = self._through(torch.bmm(weight.mT, error, out=self._errors[layer - 1]), below)
            self.weights[layer], self._spare[layer] = self._spare[layer], weight

    def loss(self) -> Tensor:
        """Return the objective of each run, after `forward`."""
        fit = (
            self._fit if self._problem.loss == "ce" else _square(self.activations[-1]) / (2 * self._problem.num_samples)
        )
        variables = (*self.weights, self.activations[0], self._bias)
        penalties = [lam.flatten() / 2 * _square(v) for lam, v in zip(self._lambdas, variables, strict=True)]
        return fit + sum(penalties)

    def state(self) -> State:
        """Return the variables as they are now."""
        return State(tuple(self.weights), self.activations[0], self._bias)

    def _plus_bias(self, output: Tensor) -> Tensor:
        return output if self._problem.bias == "none" else output.addcmul_(self._bias, self._ones)

    def _through(self, error: Tensor, activation: Tensor) -> Tensor:
        if not self._relu:
            return error
        return torch.ops.aten.threshold_backward.grad_input(error, activation, 0, grad_input=error)


def _step(out: Tensor, variable: Tensor, decay: float | Tensor, left: Tensor, right: Tensor, rate: float) -> None:
    """Out = decay * variable + rate * left @ right, in one pass where all runs decay alike."""
    if isinstance(decay, float):
        torch.baddbmm(variable, left, right, beta=decay, alpha=rate, out=out)
    else:
        torch.mul(variable, decay, out=out).baddbmm_(left, right, alpha=rate)


def _lambdas(problems: tuple[Problem, ...], seeds: int) -> list[Tensor]:
    """Return the lambdas of W_1 .. W_L, H and b, each B x 1 x 1."""
    rows = [(*p.lambda_weights, p.lambda_features, p.lambda_bias) for p in problems]
    table = torch.tensor(rows, dtype=torch.float64).repeat_interleave(seeds, 0)
    return [column[:, None, None] for column in table.T.contiguous()]


def _scalar_if_equal(values: Tensor) -> float | Tensor:
    return float(values[0]) if bool((values == values[0]).all()) else values


def _square(values: Tensor) -> Tensor:
    return values.square().sum((1, 2))


def _diverged(name: str, iteration: int, step: float, start: float) -> EqcollapseError:
    return EqcollapseError(
        f"{name}: gradient descent diverged by iteration {iteration} (step {step:g}, start {start:g}); "
        "take a smaller `step`, or a smaller `start`"
    )


def _trajectory(
    problems: tuple[Problem, ...],
    seeds: int,
    iterations: tuple[int, ...],
    log: list[Measurement],
    final: State,
) -> Trajectory:
    minima = [optimum(problem).loss for problem in problems]
    values = torch.tensor([np.nan if m is None else m for m in minima], dtype=torch.float64).repeat_interleave(seeds)
    columns = {name: torch.stack([getattr(row, name) for row in log]) for name in ("loss", "nc1", "nc2", "nc3", "rank")}
    return Trajectory(iterations=iterations, gap=columns["loss"] - values, final=final, **columns)
