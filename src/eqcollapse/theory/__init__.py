"""Unconstrained features models, extended and layer-peeled, with their closed-form optima."""

from eqcollapse.theory.ufm.descent import State, Trajectory, minimise
from eqcollapse.theory.ufm.optimum import Optimum, optimum
from eqcollapse.theory.ufm.problem import Problem

__all__ = ["Optimum", "Problem", "State", "Trajectory", "minimise", "optimum"]
