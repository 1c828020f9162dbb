"""What gets in: packages by their hash alone, and no pickle, whether it is asked for or planted."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from eqcollapse.training import checkpoints
from hostile import full_only
from loaders import PICKLES, loaders
from projects import ROOT, environment_here

pytestmark = pytest.mark.faults

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
PLANTED = [
    "import pickle\npickle.load(file)",
    "import pickle as p\np.loads(text)",
    "import pickle\nread = pickle.loads",
    "import pickle\npickle.Unpickler(file).load()",
    "from pickle import loads",
    "from pickle import Unpickler as Reader",
    "from pickle import *",
    "from torch import *",
    "import _pickle\n_pickle.loads(text)",
    "import importlib\nimportlib.import_module('pickle').loads(text)",
    "__import__('pickle').loads(text)",
    "def f(path):\n    from cloudpickle import load\n    return load(path)",
    "import dill\ndill.load(file)",
    "import joblib\njoblib.load(path)",
    "import shelve\nshelve.open(path)",
    "import marshal\nmarshal.loads(text)",
    "import torch\ntorch.load(path)",
    "import torch\ntorch.load(path, map_location='cpu', weights_only=False)",
    "import torch\ntorch.load(path, weights_only=trusted)",
    "import torch\ntorch.load(path, **how)",
    "import torch as t\nt.load(path)",
    "import torch.serialization\ntorch.serialization.load(path)",
    "from torch import load\nload(path)",
    "from torch import load as read\nread(path)",
    "import torch\nread = torch.load\nread(path)",
    "import torch\nthings = map(torch.load, paths)",
    "import torch\ngetattr(torch, 'load')(path)",
    "import torch\nt = torch\nt.load(path)",
    "import torch\nt: object = torch\nt.load(path)",
    "import torch, numpy\nt, n = torch, numpy\nt.load(path)",
    "import torch, numpy\n[n, (t, *rest)] = [numpy, (torch, 1)]\nt.load(path)",
    "import pickle\nif p := pickle:\n    p.load(file)",
    "import pickle\n(p := pickle).load(file)",
    "import pickle\nclass A:\n    p: object = pickle\n    def f(self):\n        return p.load(file)",
    "import torch\ntorch.jit.load(path)",
    "import torch\ntorch.hub.load(where, what)",
    "from torch import hub",
    "import numpy\nnumpy.load(path, allow_pickle=True)",
    "import numpy as np\nnp.load(path, 'r', True)",
    "from numpy import load\nload(path, allow_pickle=True)",
    "import pandas as pd\npd.read_pickle(path)",
    "from pandas import read_pickle",
    "import yaml\nyaml.load(text)",
    "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    "import yaml\nyaml.load(text, yaml.UnsafeLoader)",
    "import yaml\nyaml.unsafe_load(text)",
    "import yaml\nclass Own(yaml.FullLoader): ...",
    "from yaml import full_load",
    "from torchvision.datasets import CIFAR10",
    "import torchvision\ntorchvision.datasets.CIFAR10(path)",
]
"""What runs the code that stands in a file, as it may be written."""
HARMLESS = """
import json, os, pickle, torch, yaml
import numpy as np
from yaml import SafeLoader, load
from numpy import load as read
def f(path):
    with open(path) as file:
        try:
            json.load(file)
        except pickle.UnpicklingError:
            raise
    torch.load(path, map_location="cpu", weights_only=True)
    np.load(path, allow_pickle=False)
    read(path, allow_pickle=False)
    yaml.safe_load(path), yaml.load(path, Loader=yaml.SafeLoader), yaml.load(path, yaml.CSafeLoader)
    load(path, Loader=SafeLoader)
    self.model.load(path), load_state(path), os.open(path, 0)
"""
HOLED = "urllib3==2.0.3 --hash=sha256:48e7fafa40319d358848e1bc6809b208340fafe2096f1725d05d67443d0483d1\n"
EXPLAINED: dict[str, str] = {}
"""Advisories that do not concern this project, by their id, with the reason."""


class Planted:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return os.system, ("touch planted",)


def wheel(folder: Path) -> Path:
    """Write the wheel of a package that holds nothing."""
    path = folder / "nothing_much-1.0-py3-none-any.whl"
    files = {
        "nothing_much.py": "",
        "nothing_much-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: nothing-much\nVersion: 1.0\n",
        "nothing_much-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "nothing_much-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def command(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command of eqcollapse in `folder`, with no way out to the network."""
    variables = environment_here() | {"PYTHONPATH": str(ROOT / "src"), "https_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-m", "eqcollapse", *words],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def installed(folder: Path, requirements: Path) -> subprocess.CompletedProcess:
    """Install as `make setup` does, from the wheels in `folder` and into a folder of its own."""
    words = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-index", "--find-links", str(folder)]
    return subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, "--target", str(folder / "site"), "-r", str(requirements)],
        capture_output=True, text=True, check=False, env=environment_here(),
    )  # fmt: skip


def test_pip_takes_a_wheel_by_its_hash_alone(tmp_path):
    path = wheel(tmp_path)
    digest = sha256(path.read_bytes()).hexdigest()
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"nothing-much==1.0 --hash=sha256:{digest}\n")
    assert installed(tmp_path, lock).returncode == 0
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("evil.py", "")
    answer = installed(tmp_path, lock)
    assert answer.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in answer.stderr
    lock.write_text("nothing-much==1.0\n")
    assert "Hashes are required" in installed(tmp_path, lock).stderr


@pytest.mark.parametrize("name", ["requirements.lock", "benchmarks/requirements.lock"])
def test_every_line_of_the_locks_has_its_hash(name):
    blocks = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    packages = [block for block in blocks if LOCKED.match(block)]
    assert packages
    for block in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block.split()[0]
    others = [
        block for block in blocks if block.strip() and not block.strip().startswith("#") and block not in packages
    ]
    assert others == []


def test_what_installs_asks_for_hashes_or_fetches_nothing():
    for name in ("Makefile", "containers/eqcollapse.def"):
        for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
            if re.search(r"\bpip install\b", line):
                alone = "--no-index" in line and "--no-deps" in line and "--no-build-isolation" in line
                assert "--require-hashes" in line or alone, f"{name}: {line}"


def test_nothing_in_the_sources_loads_a_pickle():
    """Nor code by another way: of what could, each use is a call that is told not to."""
    files = [path for folder in ("src", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in loaders(path.read_text())]
    assert found == []


def test_the_rules_import_nothing_that_could():
    """Rules are no Python that could be parsed, and need none of these modules."""
    modules = re.compile(rf"(?<![.\w])({'|'.join([*PICKLES, 'torch', 'numpy', 'pandas', 'yaml'])})\b")
    files = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
    assert len(files) > 1
    for path in files:
        for line in path.read_text().splitlines():
            assert not modules.search(line), f"{path}: {line}"


@full_only
@pytest.mark.parametrize("name", ["requirements.lock", "benchmarks/requirements.lock"])
def test_no_locked_package_has_a_known_hole(tmp_path, name):
    """By pip-audit, where there is one that reaches a list: without, it says that all is well (2.10.1 by a mirror)."""
    if not shutil.which("pip-audit"):
        pytest.skip("pip-audit is not installed")
    holed = tmp_path / "holed.lock"
    holed.write_text(HOLED)
    if not any(package.get("vulns") for package in audited(holed)):
        pytest.skip(
            "pip-audit reaches no list of advisories: it finds nothing in urllib3 2.0.3, which has CVE-2023-43804"
        )
    packages = audited(ROOT / name)
    assert packages
    assert [package["name"] for package in packages if "vulns" not in package] == []
    assert {hole["id"] for package in packages for hole in package["vulns"]} <= EXPLAINED.keys()


def audited(lock: Path) -> list[dict]:
    """Return what pip-audit says of each package of a lock."""
    words = [
        "--disable-pip",
        "--require-hashes",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--requirement",
        lock,
    ]
    answer = subprocess.run(["pip-audit", *words, "-r", lock], capture_output=True, text=True, check=False, timeout=600)
    return json.loads(answer.stdout)["dependencies"] if answer.stdout else []


@pytest.mark.parametrize("source", PLANTED)
def test_the_search_for_loaders_finds_one(source):
    """So that the test above can fail."""
    assert loaders(source)


def test_the_search_for_loaders_finds_nothing_in_what_is_harmless():
    assert loaders(HARMLESS) == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_planted_checkpoint_is_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(Planted(), protocol))
    assert checkpoints.load(path, torch.device("cpu")) is None
    torch.save({"cell": Planted()}, path)
    assert checkpoints.load(path, torch.device("cpu")) is None
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    "name", ["features.safetensors", "features.npz", "features.npy", "features.pt", "features.csv"]
)
def test_planted_features_are_not_run(tmp_path, name):
    """`metrics` reads files of anybody's."""
    (tmp_path / name).write_bytes(pickle.dumps(Planted()))
    if name.endswith(".npz"):
        import numpy as np

        held = io.BytesIO()
        np.savez(held, features=np.array([Planted()], dtype=object), labels=np.zeros(1))
        (tmp_path / name).write_bytes(held.getvalue())
    answer = command(tmp_path, "metrics", name)
    assert answer.returncode in (1, 2)
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "planted").exists()


def test_a_mirror_that_serves_a_pickle_is_no_source(tmp_path):
    """CIFAR's Python archive, a pickle, under the name of the binary one: refused by its hash before it is opened."""
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(pickle.dumps(Planted()))
    spec = {"name": "cifar10", "source": "cifar10", "sha256": None, "size": None, "classes": None}
    words = ["--digest", "0123456789", "--spec", json.dumps(spec), "--mirror", str(tmp_path)]
    answer = command(tmp_path, "data", *words, "--outputs", "out/train.safetensors", "out/test.safetensors")
    assert answer.returncode == 1
    assert "has the md5" in answer.stderr
    assert not (tmp_path / "out/train.safetensors").exists()
    assert not (tmp_path / "planted").exists()
