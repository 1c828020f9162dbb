"""The claims of both papers, each with its numbers and a verdict: claims.json and claims.md."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from eqcollapse.report.answers import Answers, read_answers
from eqcollapse.report.claims import networks, theory
from eqcollapse.report.claims.criteria import FITTED, UNDECIDED, Criterion, combined, corrected_together
from eqcollapse.report.config import ClaimsSpec, Runs
from eqcollapse.report.intervals import p_text
from eqcollapse.report.results import CONVERGED, read
from eqcollapse.runtime.files import write_text

ABOUT = """# What the papers claim, and what this study says of it

One rule decides on every claim; it was written down before the numbers. A criterion is a statistic with one number a
seed and two thresholds. It is tested towards both sides: by Student's t over seeds (accuracies: over seeds and test
images), or, for a share of seeds, by the exact binomial test. The p-values of a claim's criteria are corrected together
by Holm's method, each side on its own, so that chance gives a claim a verdict in 5 % of studies at most. A claim is
contradicted by one of its criteria, supported by all of them, else undecided.

A run counts only where its classes are learnt (each fitted to {fitted:g} % in training at one measured epoch) and, for
a DEQ, where its solver converged for {converged:g} % of the samples in the last epoch; its explicit counterpart is left
out with it. Where no run of a criterion was learnt, the verdict is not learnt, which counts for neither side. No number
in the last measured epoch is a failure. A loss below a claimed minimum, by more than rounding, contradicts. Intervals
are not corrected; p-values are two-sided, those after Holm in brackets.
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
        """supported, contradicted, undecided or not learnt."""
        return combined(self.criteria)


def run(spec: ClaimsSpec, inputs: list[str], outputs: list[str]) -> None:
    """Judge the claims from (collapse.csv, accuracy.csv, answers, theory CSVs...), into `outputs` (json, md)."""
    collapse, accuracy, answers, *files = inputs
    experiments = {each.name: (each.settings, pd.read_csv(file)) for each, file in zip(spec.theory, files, strict=True)}
    claims = judged(spec, read(collapse), read(accuracy), read_answers(answers), experiments)
    json_file, md_file = outputs
    write_text(json_file, json.dumps([claim_as_json(claim) for claim in claims], indent=1) + "\n")
    write_text(md_file, as_markdown(claims))


def judged(
    spec: ClaimsSpec,
    collapse: pd.DataFrame,
    accuracy: pd.DataFrame,
    answers: Answers,
    experiments: dict[str, theory.TheoryRuns],
) -> list[Claim]:
    """Return all claims, A1 to B4; one that the study has no runs for has no criteria."""
    return [*_of_networks(spec.networks, collapse, accuracy, answers), *_of_theory(spec.stages, collapse, experiments)]


def _of_networks(
    chosen: Runs | None, collapse: pd.DataFrame, accuracy: pd.DataFrame, answers: Answers
) -> Iterator[Claim]:
    runs = _counted(chosen, collapse, accuracy, answers) if chosen else None
    for number, (text, criteria, which) in networks.CLAIMS.items():
        splits = _covered(chosen.splits, which) if chosen else {}
        found = corrected_together(criteria(runs)) if runs and splits and len(runs.accuracy) else ()
        settings = "; ".join(f"{dataset}: {', '.join(names)}" for dataset, names in splits.items())
        yield Claim(number, text, found, settings, runs.left_out if runs else 0)


def _counted(chosen: Runs, collapse: pd.DataFrame, accuracy: pd.DataFrame, answers: Answers) -> networks.PairedRuns:
    cells = [(dataset, split) for dataset, splits in chosen.splits.items() for split in splits]
    explicit, deq = chosen.models
    collapse, accuracy = (_of_cells(frame, cells, chosen.seeds) for frame in (collapse, accuracy))
    return networks.counted(collapse, accuracy, answers, (explicit, deq))


def _of_cells(frame: pd.DataFrame, cells: list[tuple[str, str]], seeds: list[int]) -> pd.DataFrame:
    wanted = pd.MultiIndex.from_frame(frame[["dataset", "split"]]).isin(cells)
    return frame[wanted & frame.seed.isin(seeds)]


def _covered(splits: dict[str, list[str]], which: str) -> dict[str, list[str]]:
    chosen = {
        dataset: [name for name in names if which == "all" or (name == "balanced") == (which == "balanced")]
        for dataset, names in splits.items()
    }
    return {dataset: names for dataset, names in chosen.items() if names}


def _of_theory(stages: list[str], collapse: pd.DataFrame, experiments: dict[str, theory.TheoryRuns]) -> Iterator[Claim]:
    rows = collapse[collapse.model.isin(stages)]
    for number, (text, criteria) in theory.CLAIMS.items():
        found = corrected_together(criteria(experiments, rows))
        names = dict.fromkeys(_setting(criterion) for criterion in found)
        yield Claim(number, text, found, ", ".join(names), 0)


def _setting(criterion: Criterion) -> str:
    """Return what a criterion's statistic names before its colon: an experiment, or a network."""
    return criterion.rule.statistic.split(":")[0].removeprefix("share of seeds with ")


def claim_as_json(claim: Claim) -> dict:
    """Return `claim` as plain values; what was not measured is null. p-values are pairs: raw, corrected by Holm."""
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
                "failures": criterion.failures,
                "runs_not_learnt": criterion.not_learnt,
                "p_supports": [_plain(criterion.p_values[0]), _plain(criterion.corrected[0])],
                "p_contradicts": [_plain(criterion.p_values[1]), _plain(criterion.corrected[1])],
                "verdict": criterion.verdict,
            }
            for criterion in claim.criteria
        ],
    }


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")


def as_markdown(claims: list[Claim]) -> str:
    """Return the claims for people: a table of verdicts, then each claim's numbers."""
    lines = [ABOUT.format(converged=100 * CONVERGED, fitted=100 * FITTED), "| claim | verdict |", "| --- | --- |"]
    lines += [f"| {claim.number}. {claim.text} | {claim.verdict} |" for claim in claims]
    for claim in claims:
        lines += ["", f"## {claim.number}: {claim.verdict}", "", claim.text, ""]
        if not claim.criteria:
            lines.append(f"This study has no run that bears on it: {UNDECIDED}.")
            continue
        lines.append(f"Settings: {claim.settings}.")
        if claim.left_out:
            lines.append(f"\nLeft out, for a solver that did not converge: {claim.left_out} pairs of runs.")
        lines += ["", f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(_cells(criterion))} |" for criterion in claim.criteria]
    return "\n".join(lines) + "\n"


COLUMNS = (
    *("statistic", "mean", "95 % interval", "seeds", "runs not learnt"),
    *("p for", "p against", "rule", "verdict"),
)


def _cells(criterion: Criterion) -> list[str]:
    """Return a criterion as a row of `COLUMNS`; p-values after Holm stand in brackets."""
    interval = "none" if math.isnan(criterion.low) else f"{criterion.low:.4g} .. {criterion.high:.4g}"
    remarks = [
        f"{count} {what}"
        for count, what in (
            (criterion.failures, "without a number at the end"),
            (criterion.counterexamples, "below the minimum"),
        )
        if count
    ]
    return [
        criterion.rule.statistic.replace("|", "\\|"),
        "none" if math.isnan(criterion.mean) else f"{criterion.mean:.4g}",
        interval,
        str(criterion.seeds) + (f" ({', '.join(remarks)})" if remarks else ""),
        str(criterion.not_learnt),
        *(f"{p_text(p)} ({p_text(fixed)})" for p, fixed in zip(criterion.p_values, criterion.corrected, strict=True)),
        str(criterion.rule),
        criterion.verdict,
    ]
