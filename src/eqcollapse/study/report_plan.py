"""The report of a study: its tables, figures, claims and page, as jobs.

Imports neither torch nor numpy.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

from eqcollapse.data.order import natural
from eqcollapse.report.config import (
    AccuracyTable,
    ClaimsSpec,
    FeaturesFigure,
    Figures,
    JudgedExperiment,
    PageSpec,
    Runs,
    RunsFigure,
    SelectionTable,
    SolverTable,
    StagesFigure,
    TheoryFigure,
    TheoryTable,
)
from eqcollapse.runtime.section import Section
from eqcollapse.study.captions import caption
from eqcollapse.study.jobs import Job, planned
from eqcollapse.study.mappings import leaves
from eqcollapse.study.params import LONG_TAIL, Experiment, Params
from eqcollapse.study.stages import STAGES
from eqcollapse.theory.config import UfmExperiment, UfmSpec

Drawing = Literal["descent", "low-rank", "layer_peeled"]
"""How the theory's experiments are drawn."""


def report_jobs(params: Params, jobs: Mapping[str, Mapping[str, Job]], code: Mapping[str, str]) -> list[Job]:
    """Return the report's jobs: tables, figures, then the claims and the page that shows all the others.

    `jobs` are those that it is made from, by stage and path; `code` has the digest of each stage's code.
    """
    (metrics,) = jobs["collapse"].values()
    theory = dict(zip(params.theory, jobs["theory"].values(), strict=True))
    report = _Report(params, code, metrics, theory, jobs["train"])
    tables, figures, claims = list(report.tables()), list(report.figures()), report.claims()
    counts = {stage: len(there) for stage, there in jobs.items() if there}
    return [*tables, *figures, claims, report.page(counts, tables, figures, claims)]


@dataclass(frozen=True)
class _Report:
    """What the report is made from: the metrics of all runs, theory experiments by name, and runs by path."""

    params: Params
    code: Mapping[str, str]
    metrics: Job
    theory: Mapping[str, Job]
    runs: Mapping[str, Job]

    def tables(self) -> Iterator[Job]:
        """Yield all tables."""
        for name, experiment in self.params.experiments.items():
            if experiment.report == "a":
                yield from self._accuracy(name, experiment)
                yield from self._solver_accuracy(name, experiment)
            if experiment.report == "selection":
                yield self._selection(name, experiment)
        if self.theory:
            spec = TheoryTable(kind="theory", experiments=list(self.theory))
            yield self._of_theory("table", "theory", spec, list(self.theory.values()))

    def figures(self) -> Iterator[Job]:
        """Yield all figures."""
        for name, experiment in self.params.experiments.items():
            if experiment.report == "a":
                yield from self._curves(name, experiment)
                yield from self._features(name, experiment)
                yield from self._solver(name, experiment)
            if experiment.report == "b":
                yield from self._stages(name, experiment)
        yield from self._theory_figures()

    def claims(self) -> Job:
        """Return the claims, judged by paper A's first experiment with both models, figure B-5's models, the theory."""
        experiments = self.params.experiments.values()
        pairs = [(each, pair) for each in experiments if each.report == "a" and (pair := self._pair(each.models))]
        networks = None
        if pairs:
            experiment, pair = pairs[0]
            # Paper A says nothing about long tails.
            splits = {
                dataset: [split for split in names if not LONG_TAIL.match(split)]
                for dataset, names in self._splits(experiment).items()
            }
            networks = Runs(splits=splits, models=pair, seeds=experiment.seeds)
        spec = ClaimsSpec(
            networks=networks,
            stages=sorted({model for each in experiments if each.report == "b" for model in each.models}),
            # A list: a mapping's order is lost in the spec's JSON, and each is to meet its file.
            theory=[JudgedExperiment(name=name, settings=job.spec) for name, job in self.theory.items()],
        )
        files = ["results/claims.json", "results/claims.md"]
        return self._of_metrics("claims", spec, files, list(self.theory.values()))

    def page(self, counts: Mapping[str, int], tables: list[Job], figures: list[Job], claims: Job) -> Job:
        """Return the page that shows all the rest; `counts` has the number of jobs of each stage before the report."""
        spec = PageSpec(
            jobs={**counts, "report": len(tables) + len(figures) + 2},
            tables=[_stem(job.path) for job in tables],
            figures=[_stem(job.path) for job in figures],
            captions={_stem(job.path): job.caption for job in (*tables, *figures)},
        )
        shown = [*(job.outputs[1] for job in tables), *(job.outputs[2] for job in figures)]
        return planned(
            "page",
            spec,
            self.code,
            upstream=[self.metrics, claims, *tables, *figures],
            inputs=[self.metrics.outputs[1], claims.outputs[1], *shown],
            files=["results/report.html"],
        )

    def _accuracy(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Tables A-1 (balanced) and A-2, A-3, A-4 (a table a KA, by R), and one of long tails."""
        splits = self._splits(experiment)
        balanced = {dataset: ["balanced"] for dataset, names in splits.items() if "balanced" in names}
        tails = {dataset: found for dataset, names in splits.items() if (found := list(filter(LONG_TAIL.match, names)))}
        by_majority = {dataset: list(_by_kind(names, tails=False).values()) for dataset, names in splits.items()}
        chosen = {"1": balanced} | {
            f"{position + 2}": {
                dataset: groups[position] for dataset, groups in by_majority.items() if position < len(groups)
            }
            for position in range(max(map(len, by_majority.values())))
        }
        for number, cells in (chosen | {"longtail": tails}).items():
            if cells:
                spec = AccuracyTable(kind="accuracy", **_runs(experiment, cells))
                yield self._of_metrics("table", spec, _files("table", f"{name}-table-{number}"))

    def _solver_accuracy(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Table solver: each DEQ with its solver as trained, skipped, and run to 1e-8."""
        if models := self._deqs(experiment):
            runs = {**_runs(experiment, self._splits(experiment)), "models": models}
            yield self._of_metrics("table", SolverTable(kind="solver", **runs), _files("table", f"{name}-solver"))

    def _selection(self, name: str, experiment: Experiment) -> Job:
        """Table selection: the models of an experiment by their accuracy on the validation share."""
        spec = SelectionTable(
            kind="selection",
            **_runs(experiment, self._splits(experiment)),
            heads={model: self._head(model) for model in experiment.models},
            settings={model: ", ".join(self._changes(model)) for model in experiment.models},
        )
        return self._of_metrics("table", spec, _files("table", f"{name}-selection"))

    def _changes(self, model: str) -> Iterator[str]:
        """Yield what a model changes, as `train.lr = 0.1`; its head has a column of its own."""
        for path, _ in leaves(self.params.models[model]):
            if path != ("network", "head"):
                # As it is taken: 1 for 1.0 is no other setting.
                yield f"{'.'.join(path)} = {reduce(_inner, path, self.params.resolved(model))}"

    def _curves(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Figure A-3 (balanced, and the first imbalanced split) and a figure for each KA and kind of long tail."""
        for dataset, names in self._splits(experiment).items():
            groups = _by_kind(names)
            first = [split for split in names if split == "balanced"] + [group[0] for group in groups.values()][:1]
            shown = {f"{name}-figure-3-{dataset}": first}
            shown |= {f"{name}-figure-appendix-{dataset}-{kind}": group for kind, group in groups.items()}
            for title, splits in shown.items():
                spec = RunsFigure(kind="curves", **_runs(experiment, {dataset: splits}), style=self._style)
                yield self._of_metrics("figure", spec, _files("figure", title))

    def _features(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Figure A-2: KA = 3, R = 10, or the first split there is, imbalanced if any is; of the first seed."""
        for dataset, names in self._splits(experiment).items():
            imbalanced = [split for split in names if split != "balanced"]
            split = "ka3-r10" if "ka3-r10" in names else [*imbalanced, *names][0]
            starts = [
                f"results/runs/{dataset}/{split}/{model}/seed-{experiment.seeds[0]}@" for model in experiment.models
            ]
            runs = [next(job for path, job in self.runs.items() if path.startswith(start)) for start in starts]
            spec = FeaturesFigure(kind="features", split=split, models=experiment.models, style=self._style)
            inputs = [f"{job.path}/features.safetensors" for job in runs]
            files = _files("figure", f"{name}-figure-2-{dataset}")
            job = planned("figure", spec, self.code, upstream=runs, inputs=inputs, files=files)
            yield replace(job, caption=caption(spec, self._sources([dataset])))

    def _solver(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Figure A-solver: what the DEQs' solves did over epochs, balanced and the most imbalanced split of each KA."""
        models = self._deqs(experiment)
        for dataset, names in self._splits(experiment).items() if models else []:
            largest = [group[-1] for group in _by_kind(names).values()]
            splits = [split for split in names if split == "balanced"] + largest
            runs = {**_runs(experiment, {dataset: splits}), "models": models}
            spec = RunsFigure(kind="solver", **runs, style=self._style)
            yield self._of_metrics("figure", spec, _files("figure", f"{name}-figure-solver-{dataset}"))

    def _stages(self, name: str, experiment: Experiment) -> Iterator[Job]:
        """Figure B-5, and its counterparts (appendix G) for further data sets, beside the ReLU model of figure B-4."""
        beside = [job for job in self.theory.values() if _is_figure_4(job.spec)][:1]
        unbiased = [model for model in experiment.models if not self.params.resolved(model).network.bias]
        for position, (dataset, names) in enumerate(self._splits(experiment).items()):
            title = f"{name}-figure-5" if position == 0 else f"{name}-figure-appendix-g-{dataset}"
            runs = _runs(experiment, {dataset: names[:1]})
            spec = StagesFigure(kind="stages", **runs, style=self._style, unbiased=unbiased)
            yield self._of_metrics("figure", spec, _files("figure", title), beside)

    def _theory_figures(self) -> Iterator[Job]:
        """Figures B-1 .. B-4 and A-theory; experiments with one figure are drawn together."""
        drawn: dict[str, tuple[Drawing, list[Job]]] = {}
        for name, job in self.theory.items():
            chosen = self.params.theory_experiment(name)
            kind: Drawing = chosen.drawn if isinstance(chosen, UfmExperiment) else chosen.kind
            drawn.setdefault(chosen.figure, (kind, []))[1].append(job)
        for name, (kind, jobs) in sorted(drawn.items(), key=lambda item: natural(item[0])):
            yield self._of_theory("figure", name, TheoryFigure(kind=kind, style=self._style), jobs)

    def _of_theory(self, stage: str, name: str, spec: Section, jobs: list[Job]) -> Job:
        inputs = [job.path for job in jobs]
        job = planned(stage, spec, self.code, upstream=jobs, inputs=inputs, files=_files(stage, name))
        return replace(job, caption=caption(spec, {}, [job.spec for job in jobs]))

    def _of_metrics(self, stage: str, spec: Section, files: list[str], theory: list[Job] | None = None) -> Job:
        """What is made from collapse.csv, accuracy.csv and, but for figures, all answers; and theory experiments."""
        theory = theory or []
        upstream = [self.metrics, *theory]
        inputs = [*self.metrics.outputs[: 2 if stage == "figure" else 3], *(job.path for job in theory)]
        job = planned(stage, spec, self.code, upstream=upstream, inputs=inputs, files=files)
        if not isinstance(spec, Runs):
            return job
        return replace(job, caption=caption(spec, self._sources(spec.splits), [one.spec for one in theory]))

    def _sources(self, datasets: Iterable[str]) -> dict[str, str]:
        """Return where the images of each data set come from."""
        return {name: self.params.datasets[name].source for name in datasets}

    def _splits(self, experiment: Experiment) -> dict[str, list[str]]:
        """Return the names of an experiment's splits by data set."""
        return {dataset: self.params.splits_of(experiment, dataset) for dataset in experiment.datasets}

    def _pair(self, models: list[str]) -> list[str] | None:
        """Return the first explicit model and the first DEQ; None if one of them is missing."""
        heads = {self._head(model): model for model in reversed(models)}
        return [heads["explicit"], heads["equilibrium"]] if len(heads) == 2 else None

    def _deqs(self, experiment: Experiment) -> list[str]:
        return [model for model in experiment.models if self._head(model) == "equilibrium"]

    def _head(self, model: str) -> str:
        return self.params.resolved(model).network.head

    @property
    def _style(self) -> Figures:
        return self.params.report.figures


def _inner(settings: Any, key: str) -> Any:
    """Return what a section, or a mapping of options, has under `key`."""
    return settings.get(key) if isinstance(settings, Mapping) else getattr(settings, key)


def _runs(experiment: Experiment, splits: dict[str, list[str]]) -> dict[str, Any]:
    return {"splits": splits, "models": experiment.models, "seeds": experiment.seeds}


def _is_figure_4(spec: Section) -> bool:
    wanted = {"layers": 2, "activation": "relu", "bias": "none", "loss": "mse"}
    return isinstance(spec, UfmSpec) and wanted.items() <= dict(spec).items()


def _files(stage: str, name: str) -> list[str]:
    return [f"results/{stage}s/{name}.{suffix}" for suffix in STAGES[stage].writes]


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


def _by_kind(splits: list[str], tails: bool = True) -> dict[str, list[str]]:
    """Group imbalanced splits in their order: by KA (`ka3`), and, with `tails`, `longtail` and `ldam`."""
    groups: dict[str, list[str]] = {}
    for split in splits:
        if split != "balanced" and (tails or not LONG_TAIL.match(split)):
            groups.setdefault(split.partition("-")[0], []).append(split)
    return groups
