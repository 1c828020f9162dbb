"""Projects of their own: a clone of this tree with a study that runs in a minute, driven by the real tools."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SMALL = {
    "splits": {"majority": [3], "ratios": [10]},
    "network": {"width": 8, "stages": 2, "blocks": 1},
    "train": {"epochs": 2},
}

THEORY = {
    "b-figure-1": {"iterations": 200, "seeds": [0, 1], "logged": 10},
    "layer-peeled-e1": {"iterations": 50, "seeds": [0], "majority": [3], "ratios": [1, 10], "num_classes": 10},
}


def environment_here() -> dict[str, str]:
    """Return this process' environment with this Python's programs first, as an activated .venv has it.

    And without byte code, as `make` and a run have it: CPython leaves it torn on a full disk.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": "src", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Project:
    """A clone in a folder of its own."""

    folder: Path

    def run(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Run a command of this Python's environment in the clone."""
        variables = {**environment_here(), **environment}
        answer = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, env=variables, check=False)
        assert not check or answer.returncode == 0, answer.stdout[-5000:] + answer.stderr[-5000:]
        return answer

    def start(self, *words: str, log: Path | None = None) -> subprocess.Popen:
        """Start a command in the clone, in a process group of its own; what it says is added to `log`, or `self.log`.

        Whoever starts it waits for its end.
        """
        with open(log or self.log, "a") as said:
            return subprocess.Popen(
                words, cwd=self.folder, env=environment_here(), stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> Path:
        """Where the commands that were started say what they say: beside the clone, which it is no part of."""
        return self.folder.parent / f"{self.folder.name}-said.log"

    @property
    def said(self) -> str:
        """What the commands that were started have said so far."""
        return self.log.read_text() if self.log.exists() else ""

    def snakemake(self, *words: str, check: bool = True) -> str:
        """Run snakemake on all cores; return what it said."""
        answer = self.run("snakemake", "--cores", "all", *words, check=check)
        return answer.stdout + answer.stderr

    def planned(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans."""
        said = self.snakemake(*words, "--dry-run", "--quiet", "rules")
        counts = {}
        for line in said.partition("Reasons:")[0].splitlines():
            name, _, number = line.partition(" ")
            if number.strip().isdigit():
                counts[name] = int(number)
        counts.pop("total", None)
        counts.pop("all", None)
        return counts

    def edit(self, change: dict, path: Path | None = None) -> None:
        """Lay `change` over params.yaml, or over the settings in `path`."""
        path = path or self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), change), sort_keys=False))

    def dvc(self, *words: str, check: bool = True) -> str:
        """Run dvc; return what it said."""
        answer = self.run("dvc", *words, check=check)
        return answer.stdout + answer.stderr

    def git(self, *words: str) -> str:
        """Run git, as somebody."""
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", *words).stdout

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def copy(self, folder: Path) -> "Project":
        """Copy the project as it is, with results, attic and caches, to `folder`."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def clone(self, folder: Path) -> "Project":
        """Clone this project's repository, at its commit and without results, to `folder`."""
        self.run("git", "clone", "-q", ".", str(folder))
        return Project(folder)

    def files(self, *roots: str) -> dict[str, bytes]:
        """Return the content of every file under `roots`, by path."""
        found = {}
        for root in roots or ("results", "resources"):
            for path in sorted((self.folder / root).rglob("*")):
                if path.is_file():
                    found[str(path.relative_to(self.folder))] = path.read_bytes()
        return found


def children_seconds() -> float:
    """Processor seconds of the commands run so far: unlike wall time, the same beside other work."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ran(said: str) -> dict[str, int]:
    """Return how many jobs of each rule were started, from what Snakemake (or DVC, which runs it) said.

    The rules that only name a stage's files do not count.
    """
    counts = Counter(re.findall(r"^(?:local)?rule (\w+):$", said, flags=re.MULTILINE))
    targets = ("all", "data", "splits", "train", "theory", "collapse", "report")
    return {rule: count for rule, count in counts.items() if rule not in targets}


def merged(base: dict, change: dict) -> dict:
    """Lay `change` over `base`, mapping by mapping."""
    both = {key: merged(base[key], value) for key, value in change.items() if isinstance(value, dict) and key in base}
    return {**base, **change, **both}


def cloned(folder: Path) -> Project:
    """Copy what git knows of this tree, as it is now, to `folder`, as a repository of its own; make its study small."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            target.chmod((ROOT / name).stat().st_mode)
    project = Project(folder)
    _make_small(project)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "small study"]):
        project.run(*git, *words, GIT_AUTHOR_DATE="2026-01-01T00:00:00Z", GIT_COMMITTER_DATE="2026-01-01T00:00:00Z")
    return project


def _make_small(project: Project) -> None:
    path = project.folder / "params.yaml"
    content = merged(yaml.safe_load(path.read_text()), SMALL)
    content["theory"] = {name: content["theory"][name] | change for name, change in THEORY.items()}
    content["experiments"] = {"a": content["experiments"]["a"] | {"seeds": [0]}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
