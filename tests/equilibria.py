"""The settings of params.yaml that tests of networks and of training begin from."""

from copy import deepcopy
from typing import Any

SOLVER = {"method": "anderson", "tol": 1e-3, "criterion": "relative", "max_iter": 20, "memory": 5, "check_every": 1}
EQUILIBRIUM = {
    "layer": "contractive",
    "options": {},
    "hidden": None,
    "bound": 0.9,
    "gradient": "implicit",
    "freeze": True,
    "forward": SOLVER,
    "backward": SOLVER,
    "convergence": {"share": 0.99, "action": "warn", "method": "broyden"},
    "jacobian_penalty": 0.0,
}
RESNET = {"architecture": "resnet", "options": {}, "cut": None, "classifier": "linear", "classifier_norm": 1.0}
"""The keys of the section `network` that choose our ResNet as it is."""
CE = {"label_smoothing": 0.0, "class_balanced": 0.0, "deferred": 0}
PLAIN = {"optimizer": "sgd", "optimizer_options": {}, "feature_decay": 0.0, "loss_options": CE}
"""The keys of the section `train` that change nothing in plain SGD with cross-entropy."""


def equilibrium(**changes: Any) -> dict[str, Any]:
    """Return the section with `changes`, as mappings that a test may change."""
    return deepcopy(EQUILIBRIUM | changes)
