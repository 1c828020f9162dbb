"""The sections `network` and `equilibrium` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from eqcollapse.runtime.section import Count, Flag, Integer, Maybe, NonNegative, Positive, Real, Section

MethodName = Literal["anderson", "broyden", "picard"]
"""The solvers: those of equilibrium.solvers.SOLVERS, which needs torch."""

Layer = Literal["residual", "contractive"]
"""The equilibrium layers: those of networks.deq.LAYERS, which needs torch."""


class Network(Section):
    """Stem, residual stages, head; the width doubles and the image halves from stage to stage."""

    channels: Maybe[Count]
    stem: Literal["cifar", "imagenet"]
    width: Annotated[Integer, Field(ge=1, le=4096)]
    stages: Annotated[Integer, Field(ge=2, le=6)]
    blocks: Annotated[Integer, Field(ge=1, le=100)]
    head: Literal["explicit", "equilibrium"]
    bias: Flag


class Solver(Section):
    """One fixed-point solve."""

    method: MethodName
    tol: Positive
    criterion: Literal["relative", "absolute"]
    max_iter: Count
    memory: Count
    check_every: Count


class Convergence(Section):
    """What follows an epoch in which less than `share` of the samples converged."""

    share: Annotated[Real, Field(ge=0, le=1)]
    action: Literal["warn", "stop", "switch"]
    method: MethodName


class EquilibriumSettings(Section):
    """The equilibrium head."""

    layer: Layer
    hidden: Maybe[Count]
    bound: Annotated[Real, Field(gt=0, lt=1)]
    gradient: Literal["implicit", "one-step", "unrolled"]
    freeze: Flag
    forward: Solver
    backward: Solver
    convergence: Convergence
    jacobian_penalty: NonNegative
