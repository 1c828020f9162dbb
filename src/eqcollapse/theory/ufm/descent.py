"""Gradient descent on the (extended) unconstrained features model, by hand and for many runs at once.

One batch holds every (problem, seed) pair; the problems of a batch differ in their lambdas only. Three things make
an iteration cheap: the gradients are written out, into buffers that stay; matrices of this size are multiplied by
NumPy's BLAS, which is twice as fast at them as torch's on some processors and about as fast on the others; and linear
models with squared error run in a rotated sample space of K + d instead of N = K n columns (see samples.py), in which
the iterates are the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.theory.ufm.measure import Measurement, measure
from eqcollapse.theory.ufm.optimum import optimum
from eqcollapse.theory.ufm.problem import Problem
from eqcollapse.theory.ufm.samples import Samples, rotated, spelled_out

CHECK_EVERY = 100
"""Iterations between two looks for a diverged run; once infinite, a run stays so."""
RISE = 10.0
"""A loss so many times that of the start has diverged."""


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
    problems, seeds = (problems,) if isinstance(problems, Problem) else tuple(problems), tuple(seeds)
    _check(problems)
    state = _start(problems[0], len(problems), seeds, start)
    samples, state = _coordinates(problems[0], state)
    descent = _Descent(problems, len(seeds), samples, state, step)
    schedule = log_spaced(iterations, logged)
    measurements, losses = [], _Losses()
    with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is looked at
        for iteration in range(iterations + 1):
            descent.forward()
            if iteration in schedule or iteration % CHECK_EVERY == 0:
                loss = descent.loss()
                if losses.have_diverged(loss, descent.is_silent()):
                    raise _diverged(name, iteration, step, start)
            if iteration in schedule:
                measurements.append(measure(problems[0], samples, descent.activations, descent.weights, loss))
                if progress:
                    progress(iteration)
            if iteration < iterations:
                descent.backward()
    return _trajectory(problems, len(seeds), tuple(sorted(schedule)), measurements, samples.restore(descent.state()))


class _Losses:
    """The losses of a batch as far as they tell of divergence: those of the start, and the highest since."""

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._highest: Tensor | None = None

    def have_diverged(self, loss: Tensor, silent: Tensor) -> bool:
        """Return whether a loss (B) is infinite or much above its first, or a run `silent` (B) whose loss had risen.

        A step that is too long may kill all ReLUs: the output is 0 from then on, and the loss falls again. Where it had
        not risen, features have vanished as they should under large lambdas.
        """
        self._first = loss if self._first is None else self._first
        self._highest = loss if self._highest is None else torch.maximum(self._highest, loss)
        fine = (loss < RISE * self._first) & ~(silent & (self._highest > self._first))  # false for NaN
        return not bool(fine.all())


def log_spaced(iterations: int, logged: int) -> set[int]:
    """Return about `logged` log-spaced iterations from 0 to `iterations`, both included."""
    spaced = np.geomspace(1, iterations, max(logged, 2)) if iterations else np.zeros(1)
    return {0, iterations, *spaced.round().astype(int).tolist()}


def _check(problems: tuple[Problem, ...]) -> None:
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


_threshold_backward = torch.ops.aten.threshold_backward.grad_input
"""Of a ReLU: the error where the activation is positive, and 0 elsewhere; into a buffer, as no public function does."""


class _Descent:
    """The iterates of one batch, in the buffers of `state`, which it changes."""

    def __init__(self, problems: tuple[Problem, ...], seeds: int, samples: Samples, state: State, step: float) -> None:
        self._problem = problem = problems[0]
        self._lambdas = _lambdas(problems, seeds)
        self._decays = [_scalar_if_equal(1 - step * values) for values in self._lambdas]
        self._rate = -step / problem.num_samples
        self._relu = not problem.is_linear
        self._targets = samples.targets
        self._ones = samples.ones.expand(state.features.shape[0], 1, -1)
        self.weights, self._bias = state.weights, state.bias
        outputs = [state.features.new_empty(w.shape[0], w.shape[1], state.features.shape[2]) for w in self.weights]
        self.activations = [state.features, *outputs]
        self._changes = [torch.empty_like(weight) for weight in self.weights]
        self._errors = [torch.empty_like(activation) for activation in self.activations[:-1]] + outputs[-1:]
        columns = (self.weights, self._changes, self.activations, outputs, self._errors, self._errors[1:])
        self._layers = [_Layer(*buffers) for buffers in zip(*columns, strict=False)]

    def forward(self) -> None:
        """Compute the activations; the last of them becomes N dfit/dZ."""
        for layer in self._layers:
            layer.forward()
            if self._relu and layer is not self._layers[-1]:
                layer.above.clamp_min_(0)
        output = self.activations[-1]
        if self._problem.bias != "none":
            output.addcmul_(self._bias, self._ones)
        if self._problem.loss == "ce":
            self._fit = torch.logsumexp(output, 1).mean(1) - (output * self._targets).sum((1, 2)) / output.shape[2]
            torch.softmax(output, 1, out=output)
        output.sub_(self._targets)

    def backward(self) -> None:
        """Take one step, all variables at once, after `forward`."""
        error = self._errors[-1].mul_(self._rate)
        if self._problem.bias != "none":
            _decay_and_add(self._bias, self._decays[-1], error @ self._ones.mT)
        for layer, decay in zip(reversed(self._layers), reversed(self._decays[:-2]), strict=True):
            layer.backward()
            if self._relu and layer is not self._layers[0]:
                _threshold_backward(layer.error_below, layer.below, 0, grad_input=layer.error_below)
            _decay_and_add(layer.weight, decay, layer.change)
        _decay_and_add(self.activations[0], self._decays[-2], self._errors[0])

    def loss(self) -> Tensor:
        """Return the objective of each run, after `forward`."""
        fit = (
            self._fit if self._problem.loss == "ce" else _square(self.activations[-1]) / (2 * self._problem.num_samples)
        )
        variables = (*self.weights, self.activations[0], self._bias)
        penalties = [lam.flatten() / 2 * _square(v) for lam, v in zip(self._lambdas, variables, strict=True)]
        return fit + sum(penalties)

    def is_silent(self) -> Tensor:
        """Return for each run, after `forward`, whether all that the last layer reads is 0 to the bit."""
        return (self.activations[-2] == 0).all(2).all(1)

    def state(self) -> State:
        """Return the variables as they are now."""
        return State(self.weights, self.activations[0], self._bias)


class _Layer:
    """The buffers of one layer, and its three matrix products: of NumPy's views of them, since they stay in place."""

    def __init__(
        self, weight: Tensor, change: Tensor, below: Tensor, above: Tensor, error_below: Tensor, error_above: Tensor
    ) -> None:
        self.weight, self.change, self.below, self.above, self.error_below = weight, change, below, above, error_below
        self._weight, self._change, self._below, self._above = (x.numpy() for x in (weight, change, below, above))
        self._error_below, self._error_above = error_below.numpy(), error_above.numpy()

    def forward(self) -> None:
        """Compute W A, which is `above` but for the activation."""
        np.matmul(self._weight, self._below, out=self._above)

    def backward(self) -> None:
        """From the error above compute the `change` of the weight, E A^T, and the `error_below`, W^T E."""
        np.matmul(self._error_above, self._below.mT, out=self._change)
        np.matmul(self._weight.mT, self._error_above, out=self._error_below)


def _decay_and_add(variable: Tensor, decay: float | Tensor, change: Tensor) -> None:
    """variable = decay * variable + change, in one pass where all runs decay alike."""  # noqa: D403
    if isinstance(decay, float):
        torch.add(change, variable, alpha=decay, out=variable)
    else:
        variable.mul_(decay).add_(change)


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
