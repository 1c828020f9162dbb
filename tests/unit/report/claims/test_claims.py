"""Claims: made-up results that must come out supported, contradicted, undecided and not learnt, for every claim."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eqcollapse.report.answers import write_answers
from eqcollapse.report.claims.criteria import FITTED
from eqcollapse.report.claims.job import Claim, judged, run
from eqcollapse.report.config import ClaimsSpec, Runs
from eqcollapse.report.results import CONVERGED
from eqcollapse.theory.config import UfmSpec
from made_up_answers import all_right

VERDICTS = ("supported", "contradicted", "undecided", "not learnt")
SEEDS = (0, 1, 2, 3)
DESCENTS = tuple(range(10))
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
                    measured = geometry(cell, epoch, claim, verdict) | fitted(cell, claim, verdict)
                    collapse.append(cell | {"epoch": epoch, "layer": "features"} | measured)
                    accuracy.append(
                        cell | {"epoch": epoch, "solver_converged": converged} | rates(cell, claim, verdict)
                    )
    return pd.DataFrame(collapse), pd.DataFrame(accuracy)


def fitted(cell: dict, claim: str, verdict: str) -> dict:
    """The lowest training accuracy of a class: all are learnt, but those that `claim` is about where it says so."""
    everywhere = {"accuracy_least": 1.0, "accuracy_least_majority": 1.0, "accuracy_least_minority": 1.0}
    if verdict != "not learnt":
        return everywhere
    if claim == "A1" and cell["split"] == "balanced":
        return everywhere | {"accuracy_least": FITTED - 0.01}
    if claim in ("A2", "A4") and cell["split"] != "balanced":
        return everywhere | {"accuracy_least": 0.0, "accuracy_least_minority": 0.0}
    if claim == "A3" and cell["split"] != "balanced" and cell["model"] == "deq":
        return everywhere | {"accuracy_least": 0.5, "accuracy_least_majority": 0.5}
    return everywhere


def swing(seed: int, claim: str, wanted: str, verdict: str) -> float:
    """+1 as claimed, -1 against it, and from seed to seed either where it is to be undecided."""
    if claim != wanted or verdict in ("supported", "not learnt"):
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
        "cos_weight_minority": -1 / 9 + (0.5 if epoch == 10 else 0.2) * swing(seed, claim, "A2", verdict),
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
    """A theory experiment that ends collapsed, far from it, now here, now there, or with features that vanished."""
    rows = []
    for seed in DESCENTS:
        ends = {"supported": -6, "contradicted": -0.5, "undecided": -6 * (seed % 2), "not learnt": -6}
        end = ends[verdict] + 0.01 * seed
        row = {"seed": seed, "iteration": 100, "loss": 1 + 10.0**end, "optimum": 1.0}
        for layer in range(1, settings.layers + 1):
            row |= {f"nc{n}_{layer}": 10.0 ** (end - deeper * (layer - 1)) for n in (1, 2, 3)}
            row |= {f"rank_{layer}": 0 if verdict == "not learnt" else 4}
        rows += [{**row, "iteration": 0, "loss": 50.0}, row]
    return pd.DataFrame(rows)


def spec_of(stages=()) -> ClaimsSpec:
    networks = Runs(splits=SPLITS, models=["explicit", "deq"], seeds=list(SEEDS))
    return ClaimsSpec(networks=networks, stages=list(stages), theory=[])


def claims(collapse, accuracy, theory=None) -> dict[str, Claim]:
    return {
        each.number: each
        for each in judged(spec_of(stages=["mse"]), collapse, accuracy, all_right(accuracy), theory or {})
    }


def verdicts(collapse, accuracy, theory=None) -> dict[str, str]:
    return {number: claim.verdict for number, claim in claims(collapse, accuracy, theory).items()}


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("claim", ["A1", "A2", "A3", "A4"])
def test_each_claim_on_networks_comes_out_in_every_way(claim, verdict):
    said = verdicts(*networks(verdict, claim))
    assert said[claim] == verdict
    if (claim, verdict) not in {("A2", "not learnt"), ("A4", "not learnt")}:  # which leave nothing to the others
        assert {said[other] for other in ("A1", "A2", "A3", "A4") if other != claim} == {"supported"}


@pytest.mark.parametrize("verdict", VERDICTS)
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
    cell = {"dataset": "digits", "split": "balanced", "model": "mse", "epoch": 10, "accuracy_least": 1.0}
    for deep, expected in ((0.1, "supported"), (10.0, "contradicted")):
        rows = [
            cell | {"seed": seed, "layer": layer, "tirer2022_nc1": (1 + 0.1 * seed) * value}
            for seed in SEEDS
            for layer, value in (("stage-1", 1.0), ("features", deep * (1 + 0.1 * seed)))
        ]
        assert verdicts(pd.concat([collapse, pd.DataFrame(rows)]), accuracy, theory)["B4"] == expected


def test_a_first_stage_that_is_not_learnt_counts_for_neither():
    collapse, accuracy = networks("supported", "A1")
    (settings,) = THEORY["B4"].values()
    cell = {"dataset": "digits", "split": "balanced", "model": "mse", "epoch": 10, "accuracy_least": 0.5}
    rows = [
        cell | {"seed": seed, "layer": layer, "tirer2022_nc1": value}
        for seed in SEEDS
        for layer, value in (("stage-1", 1.0), ("features", 0.1))
    ]
    said = verdicts(
        pd.concat([collapse, pd.DataFrame(rows)]), accuracy, {"relu": (settings, descent(settings, "supported"))}
    )
    assert said["B4"] == "not learnt"


def test_a_minority_that_was_never_learnt_is_no_minority_collapse():
    """Its classifiers are all the same and its accuracy 0: so they are before any training."""
    said = claims(*networks("not learnt", "A2"))["A2"]
    assert [criterion.mean for criterion in said.criteria if not np.isnan(criterion.mean)] == []
    assert {criterion.not_learnt for criterion in said.criteria} == {len(SEEDS)}
    assert said.verdict == "not learnt"


def test_a_minority_that_was_as_close_when_it_was_learnt_did_not_merge():
    collapse, accuracy = networks("supported", "A2")
    assert verdicts(collapse.assign(cos_weight_minority=0.4), accuracy)["A2"] != "supported"


def test_the_angle_is_compared_with_the_epoch_of_learning():
    collapse, accuracy = networks("supported", "A2")
    late = collapse[collapse.epoch == 1].assign(epoch=5, cos_weight_minority=0.9)
    collapse.loc[collapse.epoch == 1, "accuracy_least_minority"] = 0.0
    said = claims(pd.concat([collapse, late]), accuracy)["A2"]
    apart = [each.mean for each in said.criteria if "was learnt" in each.rule.statistic]
    assert apart == pytest.approx([-1 / 9 + 0.5 * 1.015 - 0.9] * 2)
    assert said.verdict == "contradicted"


@pytest.mark.parametrize("failed", [1, len(SEEDS)])
def test_no_number_in_the_last_epoch_is_a_failure(failed):
    collapse, accuracy = networks("supported", "A1")
    collapse.loc[(collapse.epoch == 10) & (collapse.seed < failed), "sun2024_nc2"] = np.nan
    said = claims(collapse, accuracy)["A1"]
    assert said.verdict == ("undecided" if failed == 1 else "contradicted")
    assert [criterion.failures for criterion in said.criteria] == [0, failed, 0] * 2


def test_a_loss_below_a_claimed_minimum_contradicts_it():
    for below, verdict in ((1e-13, "supported"), (1e-6, "contradicted")):
        frame = descent(UFM, "supported")
        frame.loc[(frame.seed == 3) & (frame.iteration == 100), "loss"] = 1.0 - below
        assert verdicts(*networks("supported", "A1"), {"plain": (UFM, frame)})["B1"] == verdict


def test_b4_states_the_share_of_seeds_that_got_there():
    """Six seeds of ten at 1e-12: their geometric mean with the other four's 0.1 to 1 is below 1e-3."""
    settings = UFM.model_copy(update={"layers": 2, "activation": "relu", "bias": "free"})
    frame = descent(settings, "supported")
    frame.loc[frame.seed >= 6, "nc3_2"] = 0.2
    said = claims(*networks("supported", "A1"), {"relu": (settings, frame)})["B4 with a free bias"]
    nc3 = said.criteria[-1]
    assert (nc3.mean, nc3.seeds, nc3.verdict) == (0.6, 10, "undecided")
    assert (nc3.low, nc3.high) == pytest.approx((0.2624, 0.8784), abs=1e-4)  # Clopper and Pearson (1934)
    assert said.verdict == "undecided"


def test_a_deq_that_did_not_converge_does_not_count():
    said = verdicts(*networks("contradicted", "A3", converged=0.5))
    assert {said[claim] for claim in ("A1", "A2", "A3", "A4")} == {"undecided"}


def test_files_say_the_same_and_repeat(tmp_path):
    inputs = [str(tmp_path / name) for name in ("collapse.csv", "accuracy.csv")]
    for path, frame in zip(inputs, networks("contradicted", "A4"), strict=True):
        frame.to_csv(path, index=False)
    inputs.append(str(tmp_path / "answers.safetensors"))
    write_answers(inputs[-1], all_right(frame))
    spec = spec_of()
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
    assert a4["criteria"][0]["seeds"] == len(SEEDS)
    raw, corrected = a4["criteria"][0]["p_contradicts"]
    assert raw <= corrected < 0.05
    assert a4["settings"] == "digits: balanced, ka3-r10"
    assert np.isclose(a4["criteria"][0]["mean"], -2.03)
    assert "## A4: contradicted" in written[0][1]


RULES = {
    "A1": ["below -1/0", "below -0.301/0", "below -0.301/0"] * 2,
    "A2": ["above 0.1/0", "above 0/0", "above 0/0"] * 2,
    "A3": ["below 0/0"] * 2,
    "A4": ["above -0.5/-0.5", "above 0/0", "above 0/0"],
    "B1": ["above 0.5/0.5"] * 4,
    "B2": ["above 0.5/0.5"] * 4,
    "B3": ["above 0.5/0.5"] * 3,
    "B4": ["above 0.5/0.5"] * 4 + ["below 0/0"],
    "B4 with a free bias": ["above 0.5/0.5"] * 4,
}
"""Sense and thresholds (supports/contradicts) of each criterion, as they were written before the numbers."""


@pytest.mark.parametrize("number", RULES)
def test_the_rules_are_those_that_were_written_down(number):
    theory = {name: (case, descent(case, "supported")) for name, case in THEORY.get(number, {}).items()}
    collapse, accuracy = networks("supported", "A1")
    claim = {each.number: each for each in judged(spec_of(), collapse, accuracy, all_right(accuracy), theory)}[number]
    rules = [criterion.rule for criterion in claim.criteria]
    expected = RULES[number] * len(THEORY["B3"]) if number == "B3" else RULES[number]
    assert [f"{rule.sense} {rule.supports:g}/{rule.contradicts:g}" for rule in rules] == expected
    assert (CONVERGED, FITTED) == (0.99, 0.95)
