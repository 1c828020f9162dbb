"""Buffers kept between solves change no result and are never shared."""

import copy
import math

import torch

from eqcollapse.equilibrium import ContractiveConv, Equilibrium
from eqcollapse.equilibrium.workspace import Workspace


def test_a_buffer_is_lent_once_and_kept_for_its_shape():
    workspace, like = Workspace(), torch.zeros(1)
    first = workspace.take((2, 3), like)
    assert workspace.take((2, 3), like) is not first
    workspace.give(first)
    assert workspace.take((2, 3), like) is first
    workspace.give(first)
    assert workspace.take((4, 3), like).shape == (4, 3)
    assert workspace.take((2, 3), like) is not first  # another shape came: the old one is let go
    workspace.give(first)
    assert workspace.take((2, 3), like.double()).dtype == torch.float64


def test_what_was_left_in_a_buffer_changes_nothing():
    torch.manual_seed(0)
    equilibrium = Equilibrium(ContractiveConv(8))
    x = torch.randn(4, 8, 3, 3)
    fresh = copy.deepcopy(equilibrium)(x)
    equilibrium(x * math.nan)
    assert not equilibrium.solution.converged.any()
    assert torch.equal(equilibrium(x), fresh)


def test_training_after_inference_mode():
    equilibrium = Equilibrium(ContractiveConv(8))
    x = torch.randn(4, 8, 3, 3)
    with torch.inference_mode():
        equilibrium(x)
    equilibrium(x).sum().backward()


def test_an_earlier_result_survives_later_solves():
    torch.manual_seed(0)
    equilibrium = Equilibrium(ContractiveConv(8))
    first, second = torch.randn(2, 4, 8, 3, 3)
    z = equilibrium(first).detach()
    solution = equilibrium.solution
    kept = z.clone(), solution.residual.clone()
    equilibrium(second).sum().backward()
    assert torch.equal(z, kept[0])
    assert torch.equal(solution.residual, kept[1])
