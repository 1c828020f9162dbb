"""What the report shows of a study: its tables, figures, claims and page, as jobs to be planned.

Imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from eqcollapse.study.sections import SPLIT, Experiment, leaves, natural

if TYPE_CHECKING:
    from eqcollapse.study.grid import Job, Study

TABLE = ("csv", "md", "tex")
FIGURE = ("pdf", "png", "svg")


@dataclass(frozen=True)
class Shown:
    """One job of the report: what it is made from (`upstream` and, of their files, `inputs`) and what it writes."""

    stage: str
    spec: dict[str, Any]
    upstream: list[Job]
    inputs: list[str]
    files: list[str]


def shown(study: Study) -> Iterator[Shown]:
    """Yield the report of `study`, whose other jobs are planned; add each job before asking for the next."""
    for name, experiment in study.params.experiments.items():
        if experiment.report == "a":
            yield from _accuracy_tables(study, name, experiment)
            yield from _curves(study, name, experiment)
            yield from _features(study, name, experiment)
            yield from _solver(study, name, experiment)
        if experiment.report == "b":
            yield from _stages(study, name, experiment)
        if experiment.report == "selection":
            yield _selection(study, name, experiment)
    yield from _theory(study)
    yield _claims(study)
    yield _page(study)


def _accuracy_tables(study: Study, name: str, experiment: Experiment) -> Iterator[Shown]:
    """Tables A-1 (balanced) and A-2, A-3, A-4 (a table a KA, by R)."""
    splits = {dataset: study.splits(experiment, dataset) for dataset in experiment.datasets}
    balanced = [dataset for dataset, names in splits.items() if "balanced" in names]
    if balanced:
        yield _table(study, f"{name}-table-1", experiment, {dataset: ["balanced"] for dataset in balanced})
    by_majority = {dataset: _by_majority(names) for dataset, names in splits.items()}
    for position in range(max(len(groups) for groups in by_majority.values())):
        chosen = {d: groups[position] for d, groups in by_majority.items() if position < len(groups)}
        yield _table(study, f"{name}-table-{position + 2}", experiment, chosen)


def _curves(study: Study, name: str, experiment: Experiment) -> Iterator[Shown]:
    """Figure A-3 (balanced, and the first imbalanced split) and a figure of all R for each KA."""
    for dataset in experiment.datasets:
        names = study.splits(experiment, dataset)
        groups = _by_majority(names)
        first = [split for split in names if split == "balanced"] + [group[0] for group in groups[:1]]
        yield _figure(study, "curves", f"{name}-figure-3-{dataset}", experiment, {dataset: first})
        for group in groups:
            majority = group[0].partition("-")[0]
            yield _figure(study, "curves", f"{name}-figure-appendix-{dataset}-{majority}", experiment, {dataset: group})


def _features(study: Study, name: str, experiment: Experiment) -> Iterator[Shown]:
    """Figure A-2: KA = 3, R = 10, or the first split there is, imbalanced if any is; of the first seed."""
    for dataset in experiment.datasets:
        names = study.splits(experiment, dataset)
        imbalanced = [split for split in names if split != "balanced"]
        split = "ka3-r10" if "ka3-r10" in names else [*imbalanced, *names][0]
        jobs = [_run(study, dataset, split, model, experiment.seeds[0]) for model in experiment.models]
        spec = {"kind": "features", "split": split, "models": experiment.models, "style": _style(study)}
        inputs = [f"{job.path}/features.safetensors" for job in jobs]
        yield Shown("figure", spec, jobs, inputs, _files("figures", f"{name}-figure-2-{dataset}", FIGURE))


def _solver(study: Study, name: str, experiment: Experiment) -> Iterator[Shown]:
    """Figure A-solver: what the DEQs' solves did over epochs, balanced and the most imbalanced split of each KA."""
    models = [model for model in experiment.models if _head(study, model) == "equilibrium"]
    for dataset in experiment.datasets if models else []:
        names = study.splits(experiment, dataset)
        splits = [split for split in names if split == "balanced"] + [group[-1] for group in _by_majority(names)]
        spec = {"kind": "solver", **_compared(experiment, {dataset: splits}), "models": models, "style": _style(study)}
        yield _of_metrics(study, "figure", spec, _files("figures", f"{name}-figure-solver-{dataset}", FIGURE))


def _stages(study: Study, name: str, experiment: Experiment) -> Iterator[Shown]:
    """Figure B-5, and its counterparts (appendix G) for every further data set, beside the ReLU model of figure B-4."""
    beside = [job for job in study.jobs["theory"].values() if _is_figure_4(job.spec)][:1]
    for position, dataset in enumerate(experiment.datasets):
        title = f"{name}-figure-5" if position == 0 else f"{name}-figure-appendix-g-{dataset}"
        splits = {dataset: study.splits(experiment, dataset)[:1]}
        item = _figure(study, "stages", title, experiment, splits)
        unbiased = [model for model in experiment.models if not study.params.resolved(model).network.bias]
        yield replace(
            item,
            spec={**item.spec, "unbiased": unbiased},
            upstream=[*item.upstream, *beside],
            inputs=[*item.inputs, *(job.path for job in beside)],
        )


def _selection(study: Study, name: str, experiment: Experiment) -> Shown:
    """Table selection: the models of an experiment by their accuracy on the validation share."""
    spec = {
        "kind": "selection",
        **_compared(experiment, {dataset: study.splits(experiment, dataset) for dataset in experiment.datasets}),
        "heads": {model: _head(study, model) for model in experiment.models},
        "settings": {model: ", ".join(_changes(study, model)) for model in experiment.models},
    }
    return _of_metrics(study, "table", spec, _files("tables", f"{name}-selection", TABLE))


def _changes(study: Study, model: str) -> Iterator[str]:
    """Yield what a model changes, as `train.lr = 0.1`; its head has a column of its own."""
    for path, _ in leaves(study.params.models[model]):
        if path != ("network", "head"):
            # As it is taken: 1 for 1.0 is no other setting.
            yield f"{'.'.join(path)} = {reduce(getattr, path, study.params.resolved(model))}"


def _is_figure_4(spec: dict[str, Any]) -> bool:
    wanted = {"kind": "ufm", "layers": 2, "activation": "relu", "bias": "none", "loss": "mse"}
    return wanted.items() <= spec.items()


def _claims(study: Study) -> Shown:
    """What claims are judged by: paper A's first experiment with both models, figure B-5's models, the theory."""
    experiments = study.params.experiments.items()
    pairs = [(each, pair) for _, each in experiments if each.report == "a" and (pair := _pair(study, each.models))]
    networks = None
    if pairs:
        experiment, pair = pairs[0]
        splits = {dataset: study.splits(experiment, dataset) for dataset in experiment.datasets}
        networks = {**_compared(experiment, splits), "models": pair}
    keys = ("kind", "layers", "activation", "bias", "loss")
    theory = list(study.jobs["theory"].values())
    spec = {
        "networks": networks,
        "stages": sorted({model for _, each in experiments if each.report == "b" for model in each.models}),
        # A list: a mapping's order is lost in the spec's JSON, and each is to meet its file.
        "theory": [
            {"name": name, **{key: value for key, value in job.spec.items() if key in keys}}
            for name, job in zip(study.params.theory, theory, strict=True)
        ],
    }
    item = _of_metrics(study, "claims", spec, ["results/claims.json", "results/claims.md"])
    return replace(item, upstream=[*item.upstream, *theory], inputs=[*item.inputs, *(job.path for job in theory)])


def _page(study: Study) -> Shown:
    """The page that shows all the rest."""
    (metrics,), (claims,) = study.jobs["collapse"].values(), study.jobs["claims"].values()
    tables, figures = (list(study.jobs[stage].values()) for stage in ("table", "figure"))
    spec = {
        "jobs": {**{stage: len(jobs) for stage, jobs in study.jobs.items()}, "report": len(tables) + len(figures) + 2},
        "tables": [_stem(job.path) for job in tables],
        "figures": [_stem(job.path) for job in figures],
    }
    inputs = [metrics.outputs[1], claims.outputs[1], *(job.outputs[1] for job in tables)]
    upstream = [metrics, claims, *tables, *figures]
    return Shown("page", spec, upstream, [*inputs, *(job.outputs[2] for job in figures)], ["results/report.html"])


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]


def _pair(study: Study, models: list[str]) -> list[str] | None:
    """Return the first explicit model and the first DEQ; None if one of them is missing."""
    heads = {_head(study, model): model for model in reversed(models)}
    return [heads["explicit"], heads["equilibrium"]] if len(heads) == 2 else None


def _head(study: Study, model: str) -> str:
    return study.params.resolved(model).network.head


def _run(study: Study, dataset: str, split: str, model: str, seed: int) -> Job:
    start = f"results/runs/{dataset}/{split}/{model}/seed-{seed}@"
    return next(job for path, job in study.jobs["train"].items() if path.startswith(start))


def _theory(study: Study) -> Iterator[Shown]:
    """Figures B-1 .. B-4 and A-theory (experiments with one figure are drawn together), and table theory."""
    experiments = zip(study.params.theory.values(), study.jobs["theory"].values(), strict=True)
    figures: dict[str, list[Job]] = {}
    kinds: dict[str, str] = {}
    for chosen, job in experiments:
        figures.setdefault(chosen.figure, []).append(job)
        kinds[chosen.figure] = getattr(chosen, "drawn", chosen.kind)
    for name, jobs in sorted(figures.items(), key=lambda item: natural(item[0])):
        spec = {"kind": kinds[name], "style": _style(study)}
        yield Shown("figure", spec, jobs, [job.path for job in jobs], _files("figures", name, FIGURE))
    if study.params.theory:
        jobs = list(study.jobs["theory"].values())
        spec = {"kind": "theory", "experiments": list(study.params.theory)}
        yield Shown("table", spec, jobs, [job.path for job in jobs], _files("tables", "theory", TABLE))


def _table(study: Study, name: str, experiment: Experiment, splits: dict[str, list[str]]) -> Shown:
    spec = {"kind": "accuracy", **_compared(experiment, splits)}
    return _of_metrics(study, "table", spec, _files("tables", name, TABLE))


def _figure(study: Study, kind: str, name: str, experiment: Experiment, splits: dict[str, list[str]]) -> Shown:
    spec = {"kind": kind, **_compared(experiment, splits), "style": _style(study)}
    return _of_metrics(study, "figure", spec, _files("figures", name, FIGURE))


def _of_metrics(study: Study, stage: str, spec: dict[str, Any], files: list[str]) -> Shown:
    """What is made from collapse.csv and accuracy.csv."""
    (metrics,) = study.jobs["collapse"].values()
    return Shown(stage, spec, [metrics], list(metrics.outputs[:2]), files)


def _files(folder: str, name: str, suffixes: tuple[str, ...]) -> list[str]:
    return [f"results/{folder}/{name}.{suffix}" for suffix in suffixes]


def _style(study: Study) -> dict[str, Any]:
    return study.params.report.figures.model_dump()


def _compared(experiment: Experiment, splits: dict[str, list[str]]) -> dict[str, Any]:
    return {"splits": splits, "models": experiment.models, "seeds": experiment.seeds}


def _by_majority(splits: list[str]) -> list[list[str]]:
    """Group imbalanced splits by KA, in their order."""
    groups: dict[str, list[str]] = {}
    for split in splits:
        if match := SPLIT.match(split):
            groups.setdefault(match["majority"], []).append(split)
    return list(groups.values())
