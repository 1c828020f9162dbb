"""Deep equilibrium models: solve z = f(z), say what was solved, differentiate it. Knows torch only.

>>> import torch
>>> solution = solve(lambda z: 0.5 * z + 1, torch.zeros(3, 4), method="picard", tol=1e-3, max_iter=20)
>>> solution.converged.tolist(), solution.evaluations
([True, True, True], 10)

>>> config = SolverConfig(tol=1e-5, max_iter=50)
>>> equilibrium = Equilibrium(ContractiveConv(channels=8, bound=0.9), forward=config, backward=config)
>>> x = torch.ones(2, 8, 4, 4, requires_grad=True)
>>> equilibrium(x).sum().backward()
>>> summary = equilibrium.statistics.summary()
>>> summary["solver_converged"], summary["adjoint_converged"]
(1.0, 1.0)
>>> ConvergencePolicy(share=0.99, action="stop").apply(equilibrium, summary)
"""

from .exceptions import ConfigError, DoubleBackwardError, EquilibriumError, LayerError, NotConverged
from .jacobian import jacobian_regularisation, nan_origin, spectral_radius
from .layers import ContractiveConv, LinearEquilibrium, ResidualConv
from .lipschitz import Contraction, conv_norm_bound, matrix_norm_bound
from .module import Equilibrium
from .policy import ConvergencePolicy
from .solve import Solution, solve
from .solver_config import SolverConfig
from .statistics import Statistics

__all__ = [
    "ConfigError",
    "Contraction",
    "ContractiveConv",
    "ConvergencePolicy",
    "DoubleBackwardError",
    "Equilibrium",
    "EquilibriumError",
    "LayerError",
    "LinearEquilibrium",
    "NotConverged",
    "ResidualConv",
    "Solution",
    "SolverConfig",
    "Statistics",
    "conv_norm_bound",
    "jacobian_regularisation",
    "matrix_norm_bound",
    "nan_origin",
    "solve",
    "spectral_radius",
]
