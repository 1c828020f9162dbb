"""The equilibrium head: the last stage of the ResNet as a deep equilibrium model."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import relu

from eqcollapse.equilibrium import (
    ContractiveConv,
    Equilibrium,
    ResidualConv,
    SolverConfig,
    jacobian_regularisation,
)
from eqcollapse.networks.architectures import made
from eqcollapse.networks.config import EquilibriumSettings

LAYERS: dict[str, Callable[[int, EquilibriumSettings], nn.Module]] = {
    "residual": lambda channels, settings: ResidualConv(channels, settings.hidden),
    "contractive": lambda channels, settings: ContractiveConv(channels, settings.hidden, bound=settings.bound),
}


def equilibrium_layer(channels: int, settings: EquilibriumSettings) -> nn.Module:
    """Return the layer f of `equilibrium.layer`: one of LAYERS, or what a callable of the user's own makes.

    That is called as `(channels, **options)`. Raises ValueError where it does not take them.
    """
    if settings.layer in LAYERS:
        return LAYERS[settings.layer](channels, settings)
    return made(settings.layer, "equilibrium.layer", settings.options, channels=channels)


class EquilibriumHead(nn.Module):
    """Solve z = f(z, x) with x a strided convolution of H0; features relu(norm(z*)), averaged over the image: N×`dim`.

    The last stage of the ResNet ends with batch normalisation and ReLU, and so does this counterpart. z* alone would
    not do: an equilibrium raises some directions of x by up to 1 / (1 - bound) and others hardly (a linear one is
    (I - W)^-1 x). That is scale which weight decay does not pay for, and unequal: the class means grow uneven and stay
    far from the simplex ETF. Normalised by channel, no such scale is left to gain
    (numbers: docs/reference/results.md).

    `settings` is the section `equilibrium` of params.yaml.
    """

    def __init__(self, channels_in: int, settings: EquilibriumSettings):
        super().__init__()
        self.dim = 2 * channels_in
        self.inject = nn.Conv2d(channels_in, self.dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(self.dim)
        forward, backward = (
            SolverConfig(**solver.model_dump(), freeze=settings.freeze)
            for solver in (settings.forward, settings.backward)
        )
        layer = equilibrium_layer(self.dim, settings)
        self.equilibrium = Equilibrium(layer, forward=forward, backward=backward, gradient=settings.gradient)
        self.norm_out = nn.BatchNorm2d(self.dim)
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        injected = self.injected(x)
        equilibrium = self.equilibrium(injected)
        # What is asked about the layer later is asked outside autocast, whose bfloat16 its kernels would refuse.
        self._last = (injected.to(equilibrium.dtype), equilibrium) if self.training else None
        return relu(self.norm_out(equilibrium), inplace=True).mean(dim=(2, 3))

    def train(self, mode: bool = True) -> "EquilibriumHead":
        """Set the mode; evaluation lets the last batch of training go, with its graph."""
        if not mode:
            self._last = None
        return super().train(mode)

    def injected(self, x: Tensor) -> Tensor:
        """Return what the layer f(z, .) reads beside z, for the encoder's output H0 (N×C×H×W)."""
        return relu(self.norm(self.inject(x)), inplace=True)

    def jacobian_penalty(self, seed: int) -> Tensor:
        """Return Hutchinson's estimate of ||df/dz||_F^2 / d at the last equilibrium in training (Bai et al. 2021)."""
        injected, equilibrium = self._at_last()
        return jacobian_regularisation(self.equilibrium.layer_at(injected), equilibrium, seed=seed)

    def nan_origin(self) -> str | None:
        """Return which part of the layer made the first NaN at the last input in training; None if none did."""
        injected, _ = self._at_last()
        return self.equilibrium.explain_nan(injected.detach())

    def _at_last(self) -> tuple[Tensor, Tensor]:
        if self._last is None:
            raise RuntimeError("no batch was seen in training mode since the last evaluation")
        return self._last
