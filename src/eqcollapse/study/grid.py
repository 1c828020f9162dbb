"""The study that params.yaml asks for: every job, every path and the digest that it carries.

The path of everything costly carries a digest of all that its content depends on: stage, resolved spec, the digests
of what it reads, and the code that the stage imports. So existence is the whole question of what is to be done.
Imports neither torch nor numpy.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from eqcollapse.data.config import DatasetSpec, SplitSpec, SummarySpec
from eqcollapse.data.order import natural
from eqcollapse.report.config import CollapseSpec
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.section import Section
from eqcollapse.study import own_code
from eqcollapse.study.fingerprint import code_digest
from eqcollapse.study.jobs import Job, planned
from eqcollapse.study.params import LDAM_SEED, LONG_TAIL, SPLIT, Experiment, Params
from eqcollapse.study.report_plan import report_jobs
from eqcollapse.study.stages import STAGES
from eqcollapse.theory.config import LayerPeeledSpec, UfmSpec
from eqcollapse.training.config import Model, SnapshotEpochs, TrainSpec

RUN_FILES = ("history.csv", "snapshots.safetensors", "features.safetensors", "model.safetensors")
SPLIT_FILE = "results/splits/{dataset}/{split}/seed-{seed}@{digest}.csv"
RUN = "results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}"
COLLAPSE = "results/metrics/collapse.csv"
ACCURACY = "results/metrics/accuracy.csv"
ANSWERS = "results/metrics/answers.safetensors"
SUMMARY = "results/metrics/summary.json"


@dataclass
class Study:
    """All jobs of a study, by path; `jobs[stage]` is a mapping from path to job.

    `code` has the digest of each stage's code: that of the source as it is, or as it was when the study was planned.
    `own` has the same of the user's own code, by model.
    """

    params: Params
    code: Mapping[str, str] = field(default_factory=lambda: code_digests())
    own: dict[str, dict[str, str]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Job]] = field(default_factory=lambda: {stage: {} for stage in STAGES})

    def __post_init__(self) -> None:
        for experiment in self.params.experiments.values():
            self._plan_runs(experiment)
        # DVC sees which runs the collapse stage reads, not in which order params.yaml has them: that is no matter.
        self.jobs["train"] = dict(sorted(self.jobs["train"].items(), key=lambda item: natural(item[0])))
        self._plan_summaries()
        self._plan_theory()
        self._plan_collapse()
        for job in report_jobs(self.params, self.jobs, self.code):
            self._put(job)

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

    def split_path(self, wildcards: Any) -> str:
        """Return the file of the split that these wildcards name."""
        return SPLIT_FILE.format(**{name: getattr(wildcards, name) for name in ("dataset", "split", "seed", "digest")})

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

    def training_options(self) -> str:
        """Return the options of a training job that are in no digest: where it trains, and where it logs its epochs."""
        return f"--device {self.params.device}{' --log tensorboard' * self.params.log.tensorboard}"

    def closing_words(self) -> str:
        """Return what a run says at its end: where its results are and what to look at first."""
        return f"All results are in results/. Look first at {next(iter(self.jobs['page']))}."

    def files(self, stage: str) -> list[str]:
        """Return all files that the jobs of `stage` write."""
        return [file for job in self.jobs[stage].values() for file in job.files]

    def outputs(self, stage: str, name: str) -> list[str]:
        """Return the outputs of `stage` whose file name is `name`, a job each."""
        return [file for job in self.jobs[stage].values() for file in job.outputs if file.endswith(f"/{name}")]

    def _put(self, job: Job) -> Job:
        """Take the job up unless it is there; return the one that is."""
        there = self.jobs[job.stage].setdefault(job.path, job)
        if there.digest != job.digest:
            raise EqcollapseError(f"params.yaml: two theory figures would be {job.path}: give one another name")
        return there

    def _dataset(self, name: str) -> Job:
        spec = DatasetSpec(name=name, **_shared(self.params.datasets[name], DatasetSpec))
        files = ["{path}/train.safetensors", "{path}/test.safetensors"]
        return self._put(planned("data", spec, self.code, path=f"resources/datasets/{name}@{{digest}}", files=files))

    def _split(self, data: Job, dataset: str, split: str, run_seed: int) -> Job:
        """Return the split that the runs of `run_seed` train on; those of other seeds may share it."""
        chosen = self.params.splits
        match, tail = SPLIT.match(split), LONG_TAIL.match(split)
        draw = "ldam" if tail and tail["kind"] == "ldam" else "sha256"
        seed = LDAM_SEED if draw == "ldam" else run_seed if chosen.seed == "run" else chosen.seed
        spec = SplitSpec(
            dataset=dataset,
            split=split,
            majority=int(match["majority"]) if match else None,
            ratio=float(match["ratio"]) if match else None,
            factor=float(tail["factor"]) if tail else None,
            draw=draw,
            majority_classes=chosen.majority_classes if (match or tail) and draw == "sha256" else "first",
            per_class=self.params.datasets[dataset].per_class,
            seed=seed,
            validation=chosen.validation,
        )
        path = SPLIT_FILE.format(dataset=dataset, split=split, seed=seed, digest="{digest}")
        return self._put(planned("splits", spec, self.code, upstream=[data], inputs=data.outputs[:1], path=path))

    def _plan_summaries(self) -> None:
        """Plan a summary of each data set, by one split of each name: the seeds keep as many samples."""
        by_dataset: dict[str, dict[str, SplitSpec]] = {}
        for job in self.jobs["splits"].values():
            if isinstance(job.spec, SplitSpec):
                by_dataset.setdefault(job.spec.dataset, {}).setdefault(job.spec.split, job.spec)
        for data in self.jobs["data"].values():
            if isinstance(data.spec, DatasetSpec):
                self._put(self._summary(data, data.spec, by_dataset[data.spec.name]))

    def _summary(self, data: Job, images: DatasetSpec, splits: Mapping[str, SplitSpec]) -> Job:
        chosen = [splits[name] for name in sorted(splits, key=natural)]
        spec = SummarySpec(dataset=images.name, size=images.size, splits=chosen)
        path = f"results/data/{images.name}@{{digest}}"
        files = ["{path}/summary.csv", "{path}/summary.md"]
        return planned("summary", spec, self.code, upstream=[data], inputs=data.outputs, path=path, files=files)

    def _plan_runs(self, experiment: Experiment) -> None:
        models = {name: self._run_settings(name) for name in experiment.models}
        for dataset in experiment.datasets:
            data = self._dataset(dataset)
            for split, seed in product(self.params.splits_of(experiment, dataset), experiment.seeds):
                part = self._split(data, dataset, split, seed)
                for model, settings in models.items():
                    cell = {"dataset": dataset, "split": split, "model": model, "seed": seed}
                    path = RUN.format(**cell, digest="{digest}")
                    inputs = [*data.outputs, part.path]
                    files = [f"{{path}}/{file}" for file in RUN_FILES]
                    self._put(planned("train", TrainSpec(**cell, **settings), self.code, upstream=[data, part],
                                      inputs=inputs, path=path, files=files))  # fmt: skip

    def _run_settings(self, name: str) -> dict[str, Any]:
        model = self.params.resolved(name)
        if name not in self.own:
            self.own[name] = own_code.digests(model)
        return {**run_settings(model), "own": self.own[name]}

    def _plan_theory(self) -> None:
        for name in self.params.theory:
            chosen = self.params.theory_experiment(name)
            kind = UfmSpec if chosen.kind == "ufm" else LayerPeeledSpec
            path = f"results/theory/{name}@{{digest}}.csv"
            self._put(planned("theory", kind(**_shared(chosen, kind)), self.code, path=path))

    def _plan_collapse(self) -> None:
        runs = list(self.jobs["train"].values())
        inputs = [*self.outputs("train", "snapshots.safetensors"), *self.outputs("train", "history.csv")]
        files = [COLLAPSE, ACCURACY, ANSWERS, SUMMARY]
        self._put(planned("collapse", CollapseSpec(), self.code, upstream=runs, inputs=inputs, files=files))


def _shared(section: Section, spec: type[Section]) -> dict[str, Any]:
    """Return the keys of a section of params.yaml that the spec of its job has, too."""
    return {key: value for key, value in section if key in spec.model_fields}


def run_settings(model: Model) -> dict[str, Any]:
    """Return the part of a run's spec that all runs of `model` share."""
    settings = dict(model)
    if model.network.head == "explicit":
        settings |= {"equilibrium": None, "network": model.network.model_copy(update={"cut": None})}
    chosen = model.snapshots
    epochs = snapshot_epochs(chosen.epochs, chosen.count, model.train.epochs)
    settings["snapshots"] = SnapshotEpochs(**{**_shared(chosen, SnapshotEpochs), "epochs": epochs})
    return settings


def code_digests() -> dict[str, str]:
    """Return the digest of each stage's code as it is now."""
    return {name: code_digest(stage.module) for name, stage in STAGES.items()}


def snapshot_epochs(epochs: str | list[int], count: int, last: int) -> list[int]:
    """Return the epochs at which features are measured: those given, or about `count` log-spaced ones; and the last."""
    if epochs == "log":
        steps = max(count - 1, 1)
        epochs = [round(last ** (step / steps)) for step in range(count)]
    return sorted({*epochs, last})
