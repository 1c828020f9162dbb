"""The equilibrium of a layer, as a module."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from .exceptions import ConfigError
from .implicit import attach_implicit, attach_one_step, unroll
from .jacobian import NanWatch, spectral_radius
from .replay import OneFunction, refuse_dropout, refuse_running_statistics
from .solve import Map, Solution, fixed_point
from .solver_config import SolverConfig
from .statistics import Statistics
from .workspace import Workspace


class Equilibrium(nn.Module):
    """z* with z* = layer(z*, x), sample by sample (Bai et al. 2019).

    A layer that has a method `bind(x)`, returning z -> layer(z, x), may compute there once a solve what does
    not depend on z. The layer's random draws (dropout) are made once a solve, in either mode; a layer that its own
    evaluations change is refused, as far as `eqcollapse.equilibrium.replay` says that it is noticed.

    Args:
        layer: a module called as `layer(z, x)`, or a layer with `bind`.
        forward: how the equilibrium is solved.
        backward: how the adjoint is solved; its relative criterion is relative to each sample's cotangent. (An
            absolute one makes the gradient depend on the scale of the loss: under a mean over the batch 1e-3 is
            often met by the cotangent itself, which is the one-step gradient.)
        gradient: `"implicit"`: of the equilibrium, by the implicit function theorem; `"one-step"`: of one
            evaluation at z*, cheap and biased; `"unrolled"`: of `forward.max_iter` recorded steps z <- layer(z, x)
            and one evaluation more that measures what they arrive at. It ignores `forward.method`, and never
            stops early, in evaluation neither: it is an explicit network of tied layers.

    Attributes:
        solution: the last forward solve (without a graph), None before it.
        adjoint: the last adjoint solve, None before it.
        statistics: sums over all solves since `statistics.reset()`.

    Raises:
        ConfigError: an unknown gradient.
        LayerError: a layer with a BatchNorm, or an InstanceNorm that keeps running statistics; at a solve, also one
            whose first evaluation changes a buffer, which is named.
    """

    def __init__(
        self,
        layer: nn.Module,
        forward: SolverConfig | None = None,
        backward: SolverConfig | None = None,
        gradient: str = "implicit",
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS:
            raise ConfigError(f"gradient {gradient!r}: expected one of {', '.join(GRADIENTS)}")
        refuse_running_statistics(layer)
        self.layer = layer
        self.forward_solver = forward or SolverConfig()
        self.backward_solver = backward or SolverConfig()
        self.gradient = gradient
        self.statistics = Statistics()
        self._workspace = Workspace()
        self.solution: Solution | None = None
        self.adjoint: Solution | None = None

    def forward(self, x: Tensor, z0: Tensor | None = None) -> Tensor:
        """Solve from z0 (B, ...), by default zeros of x's shape; return z* of z0's shape and precision.

        What is returned is the caller's: it may be changed in place, and `solution` and the gradient stay right.
        In evaluation mode converged samples are always frozen: no sample's result depends on its batch mates, but for
        the rounding of a layer that computes otherwise in a batch of another size. A sample that does not converge may
        make much of such a rounding.
        """
        z0 = self._start(x) if z0 is None else z0.clone()
        f = self._one_function(x)
        # Unrolled, it is an explicit network of max_iter tied layers, and the same one where no gradient is wanted.
        if self.gradient != "unrolled" and not self._wants_graph(f, x, z0):
            return self._keep(self._solve(f, z0)).z.clone()
        return GRADIENTS[self.gradient](self, f, z0).clone()

    def spectral_radius(self, x: Tensor, steps: int = 60, seed: int = 0) -> Tensor:
        """Estimate the spectral radius (B,) of df/dz at the equilibria for x (B, ...), in the module's present mode.

        `steps` and `seed` are those of the function of this name. The solve is not counted in `statistics`, and
        `solution` stays as it is.
        """
        f = self._one_function(x.detach())
        return spectral_radius(f, self._solve(f, self._start(x)).z, steps=steps, seed=seed)

    def layer_at(self, x: Tensor) -> Map:
        """Return z -> layer(z, x), with what does not depend on z computed once where the layer has `bind`."""
        bind: Callable[[Tensor], Map] | None = getattr(self.layer, "bind", None)
        return bind(x) if bind else lambda z: self.layer(z, x)

    def explain_nan(self, x: Tensor) -> str | None:
        """Solve for x again, watching the layer; say where the first number that is not finite came from.

        Ask it when `solution.residual` is not finite, or a loss is not. (Dropout draws anew, unless the generator's
        state is put back first. The backward pass is not looked at.)

        Returns:
            The dotted name of the first module inside the layer whose output was not finite though its inputs
            were, or that of a parameter of the layer itself; `""`: the layer's own arithmetic; `"x"`: the input;
            `"z"`: no module, but an iterate that left the range of its precision (the solve diverged); None:
            all was finite.
        """
        with NanWatch(self.layer) as watch:
            if watch.finite(x, "x"):
                f = self._one_function(x.detach())
                self._solve(lambda z: watch.evaluate(f, z), self._start(x))
        return watch.origin

    @staticmethod
    def _start(x: Tensor) -> Tensor:
        return x.new_zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32))

    def _one_function(self, x: Tensor) -> Map:
        refuse_running_statistics(self.layer)  # one may have been put in since
        f = self.layer_at(x)
        if x.is_cuda and torch.cuda.is_current_stream_capturing():
            refuse_dropout(self.layer)  # whose generator cannot be looked at, and so not be set back, meanwhile
            return f
        return OneFunction(f, self.layer, x.device)

    def _wants_graph(self, f: Map, x: Tensor, z0: Tensor) -> bool:
        if not torch.is_grad_enabled():
            return False
        if x.requires_grad or any(parameter.requires_grad for parameter in self.layer.parameters()):
            return True
        return f(z0).requires_grad  # of a tensor that is neither, and that only an evaluation can tell of

    def _solve(self, f: Map, z0: Tensor) -> Solution:
        config = self.forward_solver if self.training else replace(self.forward_solver, freeze=True)
        return fixed_point(f, z0, config, self._workspace)

    def _keep(self, solution: Solution) -> Solution:
        self.solution = solution
        self.statistics.update("solver", solution)
        return solution

    def _keep_adjoint(self, solution: Solution) -> None:
        self.adjoint = solution
        self.statistics.update("adjoint", solution)


def _implicit(module: Equilibrium, f: Map, z0: Tensor) -> Tensor:
    z = module._keep(module._solve(f, z0)).z
    return attach_implicit(f, z, module.backward_solver, module._workspace, module._keep_adjoint)


def _one_step(module: Equilibrium, f: Map, z0: Tensor) -> Tensor:
    return attach_one_step(f, module._keep(module._solve(f, z0)).z)


def _unrolled(module: Equilibrium, f: Map, z0: Tensor) -> Tensor:
    z, solution = unroll(f, z0, module.forward_solver)
    module._keep(solution)
    return z


GRADIENTS: dict[str, Callable[[Equilibrium, Map, Tensor], Tensor]] = {
    "implicit": _implicit,
    "one-step": _one_step,
    "unrolled": _unrolled,
}
