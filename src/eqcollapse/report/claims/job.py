"""The claims of both papers, each with its numbers and a verdict: claims.json and claims.md."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from eqcollapse.report.claims import networks, theory
from eqcollapse.report.claims.criteria import UNDECIDED, Criterion, combined
from eqcollapse.report.config import ClaimsSpec, Runs
from eqcollapse.report.results import CONVERGED, read
from eqcollapse.runtime.files import write_text

ABOUT = """# What the papers claim, and what this study says of it

A criterion is a statistic, averaged over the settings named, one number a seed, and two thresholds that are part of
the code. Its 95 % interval (Student's t over seeds) lies wholly on the one side: *supported*; wholly on the other:
*contradicted*; else, or with fewer than two seeds: *undecided*. A claim is contradicted by one of its criteria,
supported by all of them, else undecided. A DEQ's run counts only where its solver converged for {converged:g} % of the
samples in the last epoch; its explicit counterpart is left out with it.
"""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper: its number, what it says, its criteria, and the settings and left-out runs behind them."""

    number: str
    text: str
    criteria: tuple[Criterion, ...]
    settings: str
    left_out: int

    @property
    def verdict(self) -> str:
        """supported, contradicted or undecided."""
        return combined(self.criteria)


def run(spec: ClaimsSpec, inputs: list[str], outputs: list[str]) -> None:
    """Judge the claims from (collapse.csv, accuracy.csv, theory CSVs...), and write them to `outputs` (json, md)."""
    collapse, accuracy, *files = inputs
    experiments = {each.name: (each.settings, pd.read_csv(file)) for each, file in zip(spec.theory, files, strict=True)}
    claims = judged(spec, read(collapse), read(accuracy), experiments)
    json_file, md_file = outputs
    write_text(json_file, json.dumps([as_json(claim) for claim in claims], indent=1) + "\n")
    write_text(md_file, as_markdown(claims))


def judged(
    spec: ClaimsSpec, collapse: pd.DataFrame, accuracy: pd.DataFrame, experiments: dict[str, theory.Experiment]
) -> list[Claim]:
    """Return all claims, A1 to B4; one that the study has no runs for has no criteria."""
    return [*_of_networks(spec.networks, collapse, accuracy), *_of_theory(spec.stages, collapse, experiments)]


def _of_networks(chosen: Runs | None, collapse: pd.DataFrame, accuracy: pd.DataFrame) -> Iterator[Claim]:
    runs = None
    if chosen:
        cells = [(dataset, split) for dataset, splits in chosen.splits.items() for split in splits]
        frames = [_of_cells(frame, cells, chosen.seeds) for frame in (collapse, accuracy)]
        runs = networks.counted(*frames, tuple(chosen.models))
    for number, (text, criteria, which) in networks.CLAIMS.items():
        splits = _covered(chosen.splits, which) if chosen else {}
        found = tuple(criteria(runs)) if splits and len(runs.accuracy) else ()
        settings = "; ".join(f"{dataset}: {', '.join(names)}" for dataset, names in splits.items())
        yield Claim(number, text, found, settings, runs.left_out if runs else 0)


def _of_cells(frame: pd.DataFrame, cells: list[tuple[str, str]], seeds: list[int]) -> pd.DataFrame:
    wanted = pd.MultiIndex.from_frame(frame[["dataset", "split"]]).isin(cells)
    return frame[wanted & frame.seed.isin(seeds)]


def _covered(splits: dict[str, list[str]], which: str) -> dict[str, list[str]]:
    chosen = {
        dataset: [name for name in names if which == "all" or (name == "balanced") == (which == "balanced")]
        for dataset, names in splits.items()
    }
    return {dataset: names for dataset, names in chosen.items() if names}


def _of_theory(stages: list[str], collapse: pd.DataFrame, experiments: dict[str, theory.Experiment]) -> Iterator[Claim]:
    rows = collapse[collapse.model.isin(stages)]
    for number, (text, criteria) in theory.CLAIMS.items():
        found = tuple(criteria(experiments, rows))
        names = dict.fromkeys(criterion.rule.statistic.removeprefix("log10 of ").split(":")[0] for criterion in found)
        yield Claim(number, text, found, ", ".join(names), 0)


def as_json(claim: Claim) -> dict:
    """Return `claim` as plain values; what was not measured is null."""
    return {
        "claim": claim.number,
        "text": claim.text,
        "verdict": claim.verdict,
        "settings": claim.settings,
        "pairs_left_out": claim.left_out,
        "criteria": [
            {
                "statistic": criterion.rule.statistic,
                "sense": criterion.rule.sense,
                "supports": criterion.rule.supports,
                "contradicts": criterion.rule.contradicts,
                "mean": _plain(criterion.mean),
                "interval": [_plain(criterion.low), _plain(criterion.high)],
                "seeds": criterion.seeds,
                "verdict": criterion.verdict,
            }
            for criterion in claim.criteria
        ],
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def as_markdown(claims: list[Claim]) -> str:
    """Return the claims for people: a table of verdicts, then each claim's numbers."""
    lines = [ABOUT.format(converged=100 * CONVERGED), "| claim | verdict |", "| --- | --- |"]
    lines += [f"| {claim.number}. {claim.text} | {claim.verdict} |" for claim in claims]
    for claim in claims:
        lines += ["", f"## {claim.number}: {claim.verdict}", "", claim.text, ""]
        if not claim.criteria:
            lines.append(f"This study has no run that bears on it: {UNDECIDED}.")
            continue
        lines.append(f"Settings: {claim.settings}.")
        if claim.left_out:
            lines.append(f"\nLeft out, for a solver that did not converge: {claim.left_out} pairs of runs.")
        lines += [
            "",
            "| statistic | mean | 95 % interval | seeds | rule | verdict |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for each in claim.criteria:
            interval = "none" if math.isnan(each.low) else f"{each.low:.4g} .. {each.high:.4g}"
            mean = "none" if math.isnan(each.mean) else f"{each.mean:.4g}"
            statistic = each.rule.statistic.replace("|", "\\|")
            lines.append(f"| {statistic} | {mean} | {interval} | {each.seeds} | {each.rule} | {each.verdict} |")
    return "\n".join(lines) + "\n"
