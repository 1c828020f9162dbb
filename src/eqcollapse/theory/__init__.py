"""Unconstrained features models, extended and layer-peeled, with their closed-form optima."""

from eqcollapse.theory.descent import State, Trajectory, minimise
from eqcollapse.theory.optimum import Optimum, optimum
from eqcollapse.theory.problem import Problem

__all__ = ["Optimum", "Problem", "State", "Trajectory", "minimise", "optimum"]
