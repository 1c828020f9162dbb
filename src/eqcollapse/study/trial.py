"""A trial of networks, layers and losses that are not ours, before any job: each is built and run on a few samples.

It takes torch, which the study does without, and runs code of the user's own: so in a process of its own. What passed
is noted in .cache/trials and not tried again until its settings, its code, torch or torchvision are others.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.files import write_text
from eqcollapse.study import own_code
from eqcollapse.study.fingerprint import ROOT, code_digest
from eqcollapse.study.options import ARCHITECTURES
from eqcollapse.training.config import Model

TRIAL = "eqcollapse.training.trial"
PASSED = Path(".cache/trials")


def request(model: Model, shape: tuple[int, int, int], num_classes: int) -> dict[str, Any] | None:
    """Return what a trial of `model` on images of `shape` (C, H, W) takes; None where all that it names is ours."""
    if model.network.architecture in ARCHITECTURES and not any(own_code.references(model)):
        return None
    deq = model.network.head == "equilibrium"
    return {
        "network": model.network.model_dump(),
        "equilibrium": model.equilibrium.model_dump() if deq else None,
        "loss": model.train.loss,
        "loss_options": model.train.loss_options,
        "layers": model.snapshots.layers,
        "shape": list(shape),
        "num_classes": num_classes,
        "own": own_code.digests(model),
    }


def untrainable(requests: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Yield what keeps each of `requests`, by the name of its model, from being trained: `key (model name): why`."""
    waiting = {name: asked for name, asked in requests.items() if not _note(asked).exists()}
    if not waiting:
        return
    answers = _ask(list(waiting.values()))
    for (name, asked), answer in zip(waiting.items(), answers, strict=True):
        if answer is None:
            _keep(_note(asked))
            continue
        key, _, why = answer.partition(": ")
        yield f"{key} (model {name.partition(' ')[0]}): {why}"


def _note(asked: dict[str, Any]) -> Path:
    content = json.dumps([asked, code_digest(TRIAL), *map(_version, ("torch", "torchvision"))], sort_keys=True)
    return PASSED / hashlib.sha256(content.encode()).hexdigest()[:32]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _keep(note: Path) -> None:
    with suppress(OSError, EqcollapseError):  # of a folder that is read only: then it is tried each time
        write_text(note, "")


def _ask(requests: list[dict[str, Any]]) -> list[str | None]:
    places = os.pathsep.join([str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    answer = subprocess.run(
        [sys.executable, "-m", TRIAL],
        input=json.dumps(requests), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        return json.loads(answer.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        named = ", ".join(sorted({asked["network"]["architecture"] for asked in requests}))
        return [f"network.architecture: the trial of {named} ended early: {last}"] * len(requests)


@cache
def torchvision_classifiers() -> list[str]:
    """Return the names of torchvision's classifiers, read from its source without importing it; [] without it."""
    spec = PathFinder.find_spec("torchvision")
    places = list(spec.submodule_search_locations or []) if spec else []
    sources = [path.read_text(encoding="utf-8") for place in places for path in Path(place, "models").glob("*.py")]
    return sorted(name for text in sources for name in re.findall(r"@register_model\(\)\n(?:@.*\n)*def (\w+)", text))
