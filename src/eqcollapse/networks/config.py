"""The sections `network` and `equilibrium` of params.yaml."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from eqcollapse.runtime.section import (
    Count,
    Flag,
    Integer,
    Keywords,
    Maybe,
    NonNegative,
    Positive,
    Real,
    Section,
    or_own,
)

MethodName = Literal["anderson", "broyden", "picard"]
"""The solvers: those of equilibrium.solvers.SOLVERS, which needs torch."""

Layer = Literal["residual", "contractive"]
"""The equilibrium layers: those of networks.deq.LAYERS, which needs torch."""

Named = Annotated[str, Field(min_length=1, max_length=200)]
"""The name of a network of torchvision or of a submodule, or a reference to code of the user's own."""


class NoOptions(Section):
    """What has no options, or keys of its own for them."""


class MLPOptions(Section):
    """`depth` hidden layers of `width` units with ReLU."""

    width: Annotated[Integer, Field(ge=1, le=10**6)] = 512
    depth: Annotated[Integer, Field(ge=1, le=1000)] = 3


class Network(Section):
    """Which network: of `resnet`, the width doubles and the image halves from stage to stage."""

    architecture: Literal["resnet", "mlp"] | Named
    options: Keywords
    cut: Maybe[Named]
    channels: Maybe[Count]
    stem: Literal["cifar", "imagenet"]
    width: Annotated[Integer, Field(ge=1, le=4096)]
    stages: Annotated[Integer, Field(ge=2, le=6)]
    blocks: Annotated[Integer, Field(ge=1, le=100)]
    head: Literal["explicit", "equilibrium"]
    classifier: Literal["linear", "etf", "cosine"]
    classifier_norm: Positive
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
    """The equilibrium head; `options` are those of a layer of the user's own."""

    layer: Annotated[Layer | Named, or_own(get_args(Layer))]
    options: Keywords
    hidden: Maybe[Count]
    bound: Annotated[Real, Field(gt=0, lt=1)]
    gradient: Literal["implicit", "one-step", "unrolled"]
    freeze: Flag
    forward: Solver
    backward: Solver
    convergence: Convergence
    jacobian_penalty: NonNegative
