"""Whether networks, layers and losses that are not ours can be trained: each is built and run on a few samples.

`study.trial` runs this as a program: a JSON list of what is to be tried on standard input, and as the last line of
standard output a JSON list of what is wrong with each, `key: why` or null.
"""

import json
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqcollapse.collapse.probes import Probes
from eqcollapse.equilibrium import EquilibriumError
from eqcollapse.networks.architectures import check_call
from eqcollapse.networks.classifier import Classifier, build, stage_names
from eqcollapse.networks.config import EquilibriumSettings, Network
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.references import imported_callable, is_reference
from eqcollapse.training.losses import loss_in

SAMPLES = 4


def fault(asked: dict[str, Any]) -> str | None:
    """Return what is wrong with the network, layer and loss of `asked`, as `key: why` in one line; None if nothing."""
    key = "network.architecture"
    try:
        network, images = _built(asked)
        key = "equilibrium.layer" if is_reference((asked["equilibrium"] or {}).get("layer", "")) else key
        _check_layer(network, images)
        logits = network.train()(images)
        key = "snapshots.layers"
        _check_stages(network, images, asked["layers"])
        key = "train.loss"
        _check_loss(asked, logits)
    except (EqcollapseError, ValueError, EquilibriumError) as error:
        line = " ".join(str(error).split())
        return line if line.startswith(("network.", "equilibrium.", "train.")) else f"{key}: {line}"
    except Exception as error:  # of code that is not ours: any
        return f"{key}: {_words(error)}, with images of {'×'.join(map(str, asked['shape']))}"
    return None


def _built(asked: dict[str, Any]) -> tuple[Classifier, Tensor]:
    channels, *size = asked["shape"]
    equilibrium = asked["equilibrium"] and EquilibriumSettings.model_validate(asked["equilibrium"])
    settings = Network.model_validate(asked["network"])
    network = build(settings, equilibrium, channels, asked["num_classes"], 0, (size[0], size[1]))
    return network, torch.rand(SAMPLES, channels, *size)


def _check_layer(network: Classifier, images: Tensor) -> None:
    head = network.head
    if isinstance(head, EquilibriumHead):
        x = head.injected(network.encoder(images))
        z = head.equilibrium.layer_at(x)(torch.zeros_like(x))
        if not isinstance(z, Tensor) or z.shape != x.shape:
            found = "×".join(map(str, z.shape)) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"equilibrium.layer: f(z, x) must have the shape of z, {tuple(x.shape)}, and is {found}")


def _check_stages(network: Classifier, images: Tensor, layers: str | list[str]) -> None:
    with Probes(network.eval(), names := stage_names(network, layers)) as probes, torch.no_grad():
        network.features(images)
    for name in names:
        if name not in probes.features:
            raise ValueError(f"{name} is not run")


def _check_loss(asked: dict[str, Any], logits: Tensor) -> None:
    name, options = asked["loss"], asked["loss_options"]
    if is_reference(name):
        check_call(imported_callable(name), f"train.loss: {name}", ("logits", "labels", "class_counts"), options)
    classes = asked["num_classes"]
    labels = torch.arange(len(logits)) % classes
    loss = loss_in(1, name, options, torch.arange(classes, 0, -1))(logits.float(), labels)
    if not isinstance(loss, Tensor) or loss.ndim:
        raise ValueError(f"train.loss: {name} must return one number as a tensor, and returned {_described(loss)}")
    loss.backward()


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _words(error: Exception) -> str:
    """Return an error of code that is not ours in one line, with the last place in it that is the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    here = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd()) and "eqcollapse" not in
            Path(frame.filename).parts]  # fmt: skip
    place = f" ({Path(here[-1].filename).relative_to(Path.cwd())}, line {here[-1].lineno})" if here else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"


def try_all() -> None:
    """Answer standard input; what the code that is tried prints goes to standard error."""
    requests = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        answers = [fault(asked) for asked in requests]
    print(f"\n{json.dumps(answers)}")


if __name__ == "__main__":
    try_all()
