"""Claims: made-up results that must come out supported, contradicted and undecided, for every claim."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eqcollapse.report.claims.criteria import Rule, combined, measured
from eqcollapse.report.claims.job import judged, run
from eqcollapse.report.config import ClaimsSpec, Runs
from eqcollapse.report.results import CONVERGED
from eqcollapse.theory.config import UfmSpec

SEEDS = (0, 1, 2)
SPLITS = {"digits": ["balanced", "ka3-r10"]}
UFM = UfmSpec.model_construct(kind="ufm", loss="mse", bias="none", activation="identity", layers=1)
THEORY = {
    "B1": {"plain": UFM},
    "B2": {"bias": UFM.model_copy(update={"bias": "free"})},
    "B3": {"linear": UFM.model_copy(update={"layers": 2})},
    "B4": {"relu": UFM.model_copy(update={"layers": 2, "activation": "relu"})},
    "B4 with a free bias": {"relu": UFM.model_copy(update={"layers": 2, "activation": "relu", "bias": "free"})},
}


def networks(verdict: str, claim: str, converged: float = 1.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results in which `claim` comes out as `verdict`; everything else is as the papers say."""
    collapse, accuracy = [], []
    for split in SPLITS["digits"]:
        for model in ("explicit", "deq"):
            for seed in SEEDS:
                cell = {"dataset": "digits", "split": split, "model": model, "seed": seed}
                for epoch in (1, 10):
                    collapse.append(
                        cell | {"epoch": epoch, "layer": "features"} | geometry(cell, epoch, claim, verdict)
                    )
                    accuracy.append(
                        cell | {"epoch": epoch, "solver_converged": converged} | rates(cell, claim, verdict)
                    )
    return pd.DataFrame(collapse), pd.DataFrame(accuracy)


def swing(seed: int, claim: str, wanted: str, verdict: str) -> float:
    """+1 as claimed, -1 against it, and from seed to seed either where it is to be undecided."""
    if claim != wanted or verdict == "supported":
        return 1.0 + 0.01 * seed
    return -1.0 - 0.01 * seed if verdict == "contradicted" else (-1.0) ** seed


def geometry(cell: dict, epoch: int, claim: str, verdict: str) -> dict:
    seed, deq = cell["seed"], cell["model"] == "deq"
    falls = 10 ** (-2 * swing(seed, claim, "A1", verdict)) if epoch == 10 else 1.0
    nearer = 10 ** (-0.1 * swing(seed, claim, "A3", verdict)) if deq else 1.0
    return {
        "classes": 10,
        "sun2024_nc1": falls,
        "sun2024_nc2": falls,
        "sun2024_nc3": falls,
        "cos_weight_minority": -1 / 9 + 0.5 * swing(seed, claim, "A2", verdict),
        "nc2_means_etf": 0.5 * nearer,
        "nc3_duality": 0.5 * nearer,
    }


def rates(cell: dict, claim: str, verdict: str) -> dict:
    gain = swing(cell["seed"], claim, "A4", verdict) if cell["model"] == "deq" else 0.0
    gap = 0.3 * swing(cell["seed"], claim, "A2", verdict)
    return {
        "test_accuracy": 0.6 + 0.02 * gain,
        "test_accuracy_majority": 0.6 + gap / 2 + 0.01 * gain,
        "test_accuracy_minority": 0.6 - gap / 2 + 0.05 * gain,
    }


def descent(settings: UfmSpec, verdict: str, deeper: float = 1.0) -> pd.DataFrame:
    """A theory experiment that ends collapsed, far from it, or now here, now there."""
    rows = []
    for seed in SEEDS:
        end = {"supported": -6, "contradicted": -0.5, "undecided": -6 * (seed % 2)}[verdict] + 0.01 * seed
        row = {"seed": seed, "iteration": 100, "gap": 10.0**end, "optimum": 1.0}
        for layer in range(1, settings.layers + 1):
            row |= {f"nc{n}_{layer}": 10.0 ** (end - deeper * (layer - 1)) for n in (1, 2, 3)}
        rows += [{**row, "iteration": 0, "gap": 50.0}, row]
    return pd.DataFrame(rows)


def spec_of(seeds=SEEDS, stages=()) -> ClaimsSpec:
    networks = Runs(splits=SPLITS, models=["explicit", "deq"], seeds=list(seeds))
    return ClaimsSpec(networks=networks, stages=list(stages), theory=[])


def verdicts(collapse, accuracy, theory=None) -> dict[str, str]:
    spec = spec_of(stages=["mse"])
    return {claim.number: claim.verdict for claim in judged(spec, collapse, accuracy, theory or {})}


@pytest.mark.parametrize("verdict", ["supported", "contradicted", "undecided"])
@pytest.mark.parametrize("claim", ["A1", "A2", "A3", "A4"])
def test_each_claim_on_networks_comes_out_in_every_way(claim, verdict):
    said = verdicts(*networks(verdict, claim))
    assert said[claim] == verdict
    assert {said[other] for other in ("A1", "A2", "A3", "A4") if other != claim} == {"supported"}


@pytest.mark.parametrize("verdict", ["supported", "contradicted", "undecided"])
@pytest.mark.parametrize("claim", list(THEORY))
def test_each_claim_on_theory_comes_out_in_every_way(claim, verdict):
    theory = {name: (settings, descent(settings, verdict)) for name, settings in THEORY[claim].items()}
    said = verdicts(*networks("supported", "A1"), theory)
    assert said[claim] == verdict
    assert {said[other] for other in THEORY if other != claim} == {"undecided"}  # no run bears on them


def test_the_deeper_layer_has_to_fall_deeper():
    (settings,) = THEORY["B4"].values()
    theory = {"relu": (settings, descent(settings, "supported", deeper=-1.0))}
    assert verdicts(*networks("supported", "A1"), theory)["B4"] == "contradicted"


def test_how_deep_rounding_falls_says_nothing():
    (settings,) = THEORY["B4"].values()
    frame = descent(settings, "supported")
    end = frame[frame.iteration == 100].assign(iteration=200, nc1_1=1e-17, nc1_2=1e-14)  # the wrong way round
    theory = {"relu": (settings, pd.concat([frame, end]))}
    assert verdicts(*networks("supported", "A1"), theory)["B4"] == "supported"


def test_the_practical_network_counts_for_the_deeper_layer():
    collapse, accuracy = networks("supported", "A1")
    (settings,) = THEORY["B4"].values()
    theory = {"relu": (settings, descent(settings, "supported"))}
    cell = {"dataset": "digits", "split": "balanced", "model": "mse", "epoch": 10}
    for deep, expected in ((0.1, "supported"), (10.0, "contradicted")):
        rows = [
            cell | {"seed": seed, "layer": layer, "tirer2022_nc1": (1 + 0.1 * seed) * value}
            for seed in SEEDS
            for layer, value in (("stage-1", 1.0), ("features", deep * (1 + 0.1 * seed)))
        ]
        assert verdicts(pd.concat([collapse, pd.DataFrame(rows)]), accuracy, theory)["B4"] == expected


def test_a_deq_that_did_not_converge_does_not_count():
    said = verdicts(*networks("contradicted", "A3", converged=0.5))
    assert {said[claim] for claim in ("A1", "A2", "A3", "A4")} == {"undecided"}


def test_one_seed_decides_nothing():
    rule = Rule("x", "below", 0.0, 0.0)
    assert measured(rule, pd.Series([-5.0])).verdict == "undecided"
    assert measured(rule, pd.Series([], dtype=float)).verdict == "undecided"
    assert combined([]) == "undecided"


def test_between_the_two_thresholds_is_undecided():
    rule = Rule("x", "below", -1.0, 0.0)
    assert [measured(rule, pd.Series([x, x + 0.01])).verdict for x in (-2.0, -0.5, 1.0)] == [
        "supported",
        "undecided",
        "contradicted",
    ]


def test_files_say_the_same_and_repeat(tmp_path):
    inputs = [str(tmp_path / name) for name in ("collapse.csv", "accuracy.csv")]
    for path, frame in zip(inputs, networks("contradicted", "A4"), strict=True):
        frame.to_csv(path, index=False)
    spec = spec_of(seeds=[0, 1, 2])
    written = []
    for name in ("first", "second"):
        outputs = [str(tmp_path / f"{name}.{suffix}") for suffix in ("json", "md")]
        run(spec, inputs, outputs)
        written.append([Path(path).read_text(encoding="utf-8") for path in outputs])
    assert written[0] == written[1]
    content = json.loads(written[0][0])
    assert [claim["claim"] for claim in content] == ["A1", "A2", "A3", "A4", *THEORY]
    (a4,) = (claim for claim in content if claim["claim"] == "A4")
    assert a4["verdict"] == "contradicted"
    assert a4["criteria"][0]["seeds"] == 3
    assert a4["settings"] == "digits: balanced, ka3-r10"
    assert np.isclose(a4["criteria"][0]["mean"], -2.02)
    assert "## A4: contradicted" in written[0][1]


RULES = {
    "A1": ["below -1/0", "below -0.301/0", "below -0.301/0"] * 2,
    "A2": ["above 0.1/0", "above 0/0"] * 2,
    "A3": ["below 0/0"] * 2,
    "A4": ["above -0.5/-0.5", "above 0/0", "above 0/0"],
    "B1": ["below -3/-1"] * 4,
    "B2": ["below -3/-1"] * 4,
    "B3": ["below -3/-1"] * 3,
    "B4": ["below -3/-1"] * 4 + ["below 0/0"],
    "B4 with a free bias": ["below -3/-1"] * 4,
}
"""Sense and thresholds (supports/contradicts) of each criterion, as they were written before the numbers."""


@pytest.mark.parametrize("number", RULES)
def test_the_rules_are_those_that_were_written_down(number):
    theory = {name: (case, descent(case, "supported")) for name, case in THEORY.get(number, {}).items()}
    spec = spec_of()
    (claim,) = (each for each in judged(spec, *networks("supported", "A1"), theory) if each.number == number)
    rules = [criterion.rule for criterion in claim.criteria]
    expected = RULES[number] * len(THEORY["B3"]) if number == "B3" else RULES[number]
    assert [f"{rule.sense} {rule.supports:g}/{rule.contradicts:g}" for rule in rules] == expected
    assert CONVERGED == 0.99
