"""A layer stays one function during a solve, or is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from eqcollapse.equilibrium import Equilibrium, LayerError, ResidualConv, SolverConfig
from eqcollapse.equilibrium.replay import refuse_dropout


class Mixing(nn.Module):
    """tanh(W z + x), ||W|| = 1/2, 32 features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.linalg.qr(inputs(32, 32).detach())[0])

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(z, self.weight) + x)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_dropout_is_drawn_once_a_solve():
    class Dropped(Mixing):
        def forward(self, z, x):
            return F.dropout(super().forward(z, x), 0.5, self.training)

    torch.manual_seed(0)
    equilibrium = Equilibrium(Dropped(), SolverConfig(tol=1e-5, max_iter=60))
    x = inputs(4, 32)
    first, second = equilibrium(x), equilibrium(x)
    assert equilibrium.solution.converged.all()
    assert (first == 0).float().mean() > 0.3
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    first = equilibrium(x)
    torch.manual_seed(7)
    assert torch.equal(first, equilibrium(x))
    torch.manual_seed(7)
    equilibrium.layer(torch.zeros_like(x), x)
    after_one_evaluation = torch.rand(1)
    torch.manual_seed(7)
    equilibrium(x)
    assert torch.equal(torch.rand(1), after_one_evaluation)


@pytest.mark.parametrize("child", [False, True])
def test_dropout_in_evaluation_mode_is_drawn_once_a_solve(child):
    """Monte Carlo dropout: functional, or a child put back into training mode."""

    class Sampled(Mixing):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, z, x):
            image = super().forward(z, x)
            return self.drop(image) if child else F.dropout(image, 0.5, True)

    torch.manual_seed(0)
    equilibrium = Equilibrium(Sampled(), SolverConfig(tol=1e-5, max_iter=60)).eval()
    equilibrium.layer.drop.train(child)
    with torch.no_grad():
        first, second = equilibrium(inputs(4, 32)), equilibrium(inputs(4, 32))
    assert equilibrium.solution.converged.all()
    assert not torch.equal(first, second)


def test_dropout_gradient_uses_the_same_masks():
    class Masked(nn.Module):
        def forward(self, z, x):
            return 0.5 * z + F.dropout(x, 0.5, self.training)

    torch.manual_seed(0)
    x = torch.ones(4, 32, requires_grad=True)
    z = Equilibrium(Masked(), SolverConfig(tol=1e-6, max_iter=60), SolverConfig(tol=1e-6, max_iter=60))(x)
    (gradient,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(gradient, z.detach(), rtol=1e-4, atol=1e-4)  # x = 1: z = mask 2 / (1 - 1/2) = dz/dx


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(8),
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.SyncBatchNorm(8),
        nn.InstanceNorm2d(8, track_running_stats=True),
    ],
)
def test_running_statistics_are_refused(norm):
    layer = ResidualConv(8)
    layer.norm2 = norm
    with pytest.raises(LayerError, match="norm2"):
        Equilibrium(layer)


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_put_in_later_is_refused(training):
    layer = ResidualConv(8)
    equilibrium = Equilibrium(layer).train(training)
    layer.norm2 = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(LayerError, match="norm2"):
        equilibrium(inputs(2, 8, 4, 4))


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(0.9 * self.linear(z) + x)


class RunningMean(nn.Module):
    def __init__(self, write) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self._write = write

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        self._write(self, z.detach().mean(0))
        return 0.5 * torch.tanh(z - self.mean) + x


def in_place(module: nn.Module, mean: Tensor) -> None:
    module.mean.mul_(0.9).add_(0.1 * mean)


def by_replacement(module: nn.Module, mean: Tensor) -> None:
    module.mean = 0.9 * module.mean + 0.1 * mean


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    ("build", "buffer"),
    [
        (Spectral, r"linear\.parametrizations\.weight\.0\._[uv]"),
        (lambda: RunningMean(in_place), "mean"),
        (lambda: RunningMean(by_replacement), "mean"),
    ],
)
def test_a_layer_that_an_evaluation_changes_is_refused(build, buffer, mode):
    equilibrium = Equilibrium(build())
    with mode(), pytest.raises(LayerError, match=f"the buffer {buffer}"):
        equilibrium(inputs(3, 6).detach())


def test_a_buffer_made_in_inference_mode_is_compared_by_value():
    with torch.inference_mode():
        layer = RunningMean(in_place)
        layer.mean.fill_(1.0)
        with pytest.raises(LayerError, match="the buffer mean"):
            Equilibrium(layer)(inputs(3, 6).detach())
        layer = RunningMean(lambda module, mean: None)
        assert Equilibrium(layer)(inputs(3, 6).detach()).isfinite().all()


def test_buffers_may_change_between_solves():
    class Bound(Spectral):
        def bind(self, x):
            weight = self.linear.weight  # one step of the power iteration a solve
            return lambda z: torch.tanh(0.9 * F.linear(z, weight, self.linear.bias) + x)

    torch.manual_seed(0)
    equilibrium = Equilibrium(Bound(), SolverConfig(tol=1e-5, max_iter=60))
    equilibrium(inputs(3, 6)).sum().backward()
    assert equilibrium.solution.converged.all()
    unbound = Equilibrium(Spectral()).eval()  # in evaluation mode torch's spectral norm stands still
    assert unbound(inputs(3, 6)).isfinite().all()


def test_sample_norms_are_accepted():
    layer = ResidualConv(8)
    layer.norm2 = nn.InstanceNorm2d(8)
    Equilibrium(layer)


def test_dropout_that_cannot_be_replayed_is_refused_by_name():
    layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    with pytest.raises(LayerError, match=r"Dropout \(1\) changes the layer during a solve that is captured"):
        refuse_dropout(layer)
    refuse_dropout(layer.eval())
    refuse_dropout(nn.Dropout(0.0))
