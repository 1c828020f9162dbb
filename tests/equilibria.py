"""The section `equilibrium` of params.yaml that tests of networks and of training begin from."""

from copy import deepcopy
from typing import Any

SOLVER = {"method": "anderson", "tol": 1e-3, "criterion": "relative", "max_iter": 20, "memory": 5, "check_every": 1}
EQUILIBRIUM = {
    "layer": "contractive",
    "hidden": None,
    "bound": 0.9,
    "gradient": "implicit",
    "freeze": True,
    "forward": SOLVER,
    "backward": SOLVER,
    "convergence": {"share": 0.99, "action": "warn", "method": "broyden"},
    "jacobian_penalty": 0.0,
}


def equilibrium(**changes: Any) -> dict[str, Any]:
    """Return the section with `changes`, as mappings that a test may change."""
    return deepcopy(EQUILIBRIUM | changes)
