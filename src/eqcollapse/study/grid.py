"""The study that params.yaml asks for: every job, every path and the digest that it carries.

The path of everything costly carries a digest of all that its content depends on: stage, resolved spec, the digests
of what it reads, and the code that the stage imports. So existence is the whole question of what is to be done.
Imports neither torch nor numpy.
"""

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.params import Params
from eqcollapse.study.report_plan import shown
from eqcollapse.study.sections import SPLIT, Experiment, natural

STAGES = {
    "data": "eqcollapse.data.job",
    "splits": "eqcollapse.data.splits",
    "train": "eqcollapse.training.job",
    "theory": "eqcollapse.theory.job",
    "collapse": "eqcollapse.report.metrics",
    "table": "eqcollapse.report.tables.job",
    "figure": "eqcollapse.report.figures.job",
    "claims": "eqcollapse.report.claims.job",
    "page": "eqcollapse.report.page",
}
"""The module that runs each kind of job: what it imports is the code that the job's digest covers."""

ABOUT = {
    "data": "fetch, check and convert a data set",
    "splits": "choose the training samples of a split",
    "train": "train one cell",
    "theory": "run one theory experiment",
    "collapse": "measure collapse and accuracy of all runs",
    "table": "write a table",
    "figure": "draw a figure",
    "claims": "judge the papers' claims",
    "page": "write the page that shows everything",
}
"""What each kind of job does."""

SCARCE = 10_000_000
"""Bytes; with less, a disk is as good as full."""

RUN = "results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}"
COLLAPSE = "results/metrics/collapse.csv"
ACCURACY = "results/metrics/accuracy.csv"
SUMMARY = "results/metrics/summary.json"


@dataclass(frozen=True)
class Job:
    """One job: a pure function from input files and a spec to output files.

    `path` is what the digest stands in (a file or a folder), or, for files with fixed names, the first output.
    """

    stage: str
    path: str
    digest: str
    spec: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    record: str

    @property
    def pinned(self) -> bool:
        """Whether the path itself carries the digest."""
        return f"@{self.digest}" in self.path

    @cached_property
    def spec_json(self) -> str:
        """The spec as one line of JSON, for the command line."""
        return json.dumps(self.spec, sort_keys=True, separators=(",", ":"))

    @cached_property
    def files(self) -> tuple[str, ...]:
        """All that the job writes: outputs and record."""
        return (*self.outputs, self.record)


@dataclass
class Study:
    """All jobs of a study, by path; `jobs[stage]` is a mapping from path to job.

    `code` has the digest of each stage's code: that of the source as it is, or as it was when the study was planned.
    """

    params: Params
    code: Mapping[str, str] = field(default_factory=lambda: code_digests())
    jobs: dict[str, dict[str, Job]] = field(default_factory=lambda: {stage: {} for stage in STAGES})

    def __post_init__(self) -> None:
        for experiment in self.params.experiments.values():
            self._plan_runs(experiment)
        # DVC sees which runs the collapse stage reads, not in which order params.yaml has them: that is no matter.
        self.jobs["train"] = dict(sorted(self.jobs["train"].items(), key=lambda item: natural(item[0])))
        self._plan_theory()
        self._plan_collapse()
        self._plan_report()

    def __iter__(self) -> Iterator[Job]:
        return (job for stage in self.jobs.values() for job in stage.values())

    def job(self, stage: str, path: str) -> Job:
        """Return the job of `stage` at `path`; EqcollapseError if this study has none there."""
        try:
            return self.jobs[stage][path]
        except KeyError:
            raise EqcollapseError(
                f"{path} is not in the study of params.yaml and the source as they are now: see `snakemake -n`"
            ) from None

    def run_path(self, wildcards: Any) -> str:
        """Return the folder of the run that these wildcards name."""
        return RUN.format(
            **{name: getattr(wildcards, name) for name in ("dataset", "split", "model", "seed", "digest")}
        )

    def inputs(self, stage: str, path: str) -> list[str]:
        """Return what the job of `stage` at `path` reads."""
        return list(self.job(stage, path).inputs)

    def command(self, stage: str, path: str) -> str:
        """Return the options that every job of the command line takes: digests and spec, quoted for a shell."""
        job = self.job(stage, path)
        return f"--digest {job.digest} --code {self.code[stage][:12]} --spec {shlex.quote(job.spec_json)}"

    def where(self, dataset: str) -> str:
        """Return the options that say where the bytes of a data set lie."""
        places = {"--path": self.params.datasets[dataset].path, "--mirror": self.params.mirror}
        return " ".join(f"{option} {shlex.quote(place)}" for option, place in places.items() if place)

    def closing_words(self) -> str:
        """Return what a run says at its end: where its results are and what to look at first."""
        return f"All results are in results/. Look first at {next(iter(self.jobs['page']))}."

    def words_of_failure(self) -> str:
        """Return how to go on when a run has failed or was interrupted, and what is wrong with the machine."""
        lines = ["What is finished is kept: the same command goes on from here, a cell from its last epoch."]
        free = shutil.disk_usage(".").free
        if free < SCARCE:
            lines.append(f"This disk is full: {free} bytes are free. Make room first.")
        lines.append(
            "A job whose log has no line that begins with `eqcollapse` was killed from outside, most often for memory: "
            "`dmesg` or the cluster says so; README.md has what a cell takes; fewer --cores run fewer jobs at a time."
        )
        return "\n".join(lines)

    def files(self, stage: str) -> list[str]:
        """Return all files that the jobs of `stage` write."""
        return [file for job in self.jobs[stage].values() for file in job.files]

    def outputs(self, stage: str, name: str) -> list[str]:
        """Return the outputs of `stage` whose file name is `name`, a job each."""
        return [file for job in self.jobs[stage].values() for file in job.outputs if file.endswith(f"/{name}")]

    def _add(self, stage: str, spec: dict, upstream: list[Job], path: str, inputs: list[str], files: list[str]) -> Job:
        """Add the job unless it is there; `{digest}` in `path` and `{path}` in `files` are filled in."""
        digest = job_digest(stage, spec, [job.digest for job in upstream], self.code[stage])
        path = path.format(digest=digest)
        outputs = tuple(file.format(path=path) for file in files)
        if path not in self.jobs[stage]:
            job = Job(stage, path, digest, spec, tuple(inputs), outputs, record_path(outputs))
            self.jobs[stage][path] = job
        elif self.jobs[stage][path].digest != digest:
            raise EqcollapseError(f"params.yaml: {path} would be made twice: give its theory figure another name")
        return self.jobs[stage][path]

    def _dataset(self, name: str) -> Job:
        # Where the bytes lie (`path`, `mirror`) does not change them: their sha256 is in the spec or the registry.
        spec = {
            "name": name,
            **self.params.datasets[name].model_dump(include={"source", "sha256", "size", "classes"}),
        }
        path = f"resources/datasets/{name}@{{digest}}"
        return self._add("data", spec, [], path, [], ["{path}/train.safetensors", "{path}/test.safetensors"])

    def _split(self, data: Job, split: str) -> Job:
        dataset = data.spec["name"]
        chosen = self.params.splits
        match = SPLIT.match(split)
        spec = {
            "dataset": dataset,
            "split": split,
            "majority": int(match["majority"]) if match else None,
            "ratio": float(match["ratio"]) if match else None,
            "majority_classes": chosen.majority_classes if match else "first",
            "per_class": self.params.datasets[dataset].per_class,
            "seed": chosen.seed,
            "validation": chosen.validation,
        }
        path = f"results/splits/{dataset}/{split}@{{digest}}.csv"
        return self._add("splits", spec, [data], path, [data.outputs[0]], ["{path}"])

    def _settings(self, name: str) -> dict[str, Any]:
        """Return the part of a run's spec that all runs of model `name` share."""
        model = self.params.resolved(name)
        spec = {"model": name, **model.model_dump()}
        spec["snapshots"]["epochs"] = snapshot_epochs(model.snapshots.epochs, model.snapshots.count, model.train.epochs)
        del spec["snapshots"]["count"]
        if model.network.head == "explicit":
            del spec["equilibrium"]
        return spec

    def _run(self, data: Job, part: Job, settings: dict[str, Any], seed: int) -> Job:
        spec = {"dataset": part.spec["dataset"], "split": part.spec["split"], "seed": seed, **settings}
        path = RUN.format(**spec, digest="{digest}")
        files = ["history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors"]
        inputs = [*data.outputs, part.path]
        return self._add("train", spec, [data, part], path, inputs, [f"{{path}}/{file}" for file in files])

    def _plan_runs(self, experiment: Experiment) -> None:
        models = [self._settings(name) for name in experiment.models]
        for dataset in experiment.datasets:
            data = self._dataset(dataset)
            for split in self.splits(experiment, dataset):
                part = self._split(data, split)
                for settings in models:
                    for seed in experiment.seeds:
                        self._run(data, part, settings, seed)

    def splits(self, experiment: Experiment, dataset: str) -> list[str]:
        """Return the names of the splits that `experiment` trains on `dataset`, balanced and by KA and R."""
        chosen = self.params.splits
        grid = [
            f"ka{majority}-r{int(ratio) if ratio == int(ratio) else ratio}"
            for majority in self.params.datasets[dataset].majority or chosen.majority
            for ratio in chosen.ratios
        ]
        names = [name for split in experiment.splits for name in (grid if split == "imbalanced" else [split])]
        return list(dict.fromkeys(names))

    def _plan_theory(self) -> None:
        for name, chosen in self.params.theory.items():
            spec = chosen.model_dump(exclude={"figure", "drawn"})
            self._add("theory", spec, [], f"results/theory/{name}@{{digest}}.csv", [], ["{path}"])

    def _plan_collapse(self) -> None:
        runs = list(self.jobs["train"].values())
        inputs = [*self.outputs("train", "snapshots.safetensors"), *self.outputs("train", "history.csv")]
        self._add("collapse", {}, runs, COLLAPSE, inputs, [COLLAPSE, ACCURACY, SUMMARY])

    def _plan_report(self) -> None:
        for item in shown(self):  # one at a time: later ones are made from what earlier ones made
            self._add(item.stage, item.spec, item.upstream, item.files[0], item.inputs, item.files)


def code_digests() -> dict[str, str]:
    """Return the digest of each stage's code as it is now."""
    return {stage: code_digest(module) for stage, module in STAGES.items()}


def job_digest(stage: str, spec: dict[str, Any], upstream: list[str], code: str) -> str:
    """Return the ten hexadecimal digits that stand for all that a job's outputs depend on."""
    content = json.dumps([stage, spec, upstream, code], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def record_path(outputs: tuple[str, ...]) -> str:
    """Return where the provenance record of a job with these outputs lies: in its folder, or beside its file."""
    first = outputs[0]
    folder, _, _ = first.rpartition("/")
    if "@" in folder:
        return f"{folder}/provenance.json"
    stem = first.rpartition(".")[0] if len(outputs) > 1 else first
    return f"{stem}.provenance.json"


def snapshot_epochs(epochs: str | list[int], count: int, last: int) -> list[int]:
    """Return the epochs at which features are measured: those given, or about `count` log-spaced ones; and the last."""
    if epochs == "log":
        steps = max(count - 1, 1)
        epochs = [round(last ** (step / steps)) for step in range(count)]
    return sorted({*epochs, last})
