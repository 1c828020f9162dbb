"""The results files, read and cut to what a table, a figure or a claim is made from."""

import pandas as pd

from eqcollapse.report.config import Runs

CELL = ["dataset", "split", "model", "seed"]
CONVERGED = 0.99
"""The least share of samples whose solve converged in the last epoch for a DEQ to be one, and its run to count."""
SHARES = ("solver_converged", "train_solver_converged", "test_solver_converged")
NAMES = {"explicit": "Explicit", "deq": "DEQ"}


def read(path: str) -> pd.DataFrame:
    """Read a results file."""
    return pd.read_csv(path, dtype=dict.fromkeys(CELL[:3], str))


def chosen(frame: pd.DataFrame, dataset: str, splits: list[str], spec: Runs) -> pd.DataFrame:
    """Return the rows of `dataset` and `splits` for the models and seeds of `spec`."""
    return frame[
        (frame.dataset == dataset)
        & frame.split.isin(splits)
        & frame.model.isin(spec.models)
        & frame.seed.isin(spec.seeds)
    ]


def last_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    """Return each run's last row."""
    return frame.sort_values("epoch", kind="stable").groupby(CELL, sort=False).tail(1)


def converged(frame: pd.DataFrame) -> pd.Series:
    """Return each row's lowest share of samples whose solve converged: in training, and where features are measured.

    nan for models without a solver.
    """
    columns = [name for name in SHARES if name in frame]
    return frame[columns].min(axis=1) if columns else pd.Series(float("nan"), index=frame.index)


def unconverged(final: pd.DataFrame) -> list[str]:
    """Return the names of the runs in `final`, a row a run, whose solver converged for less than `CONVERGED`."""
    failed = final[converged(final) < CONVERGED]
    return [f"{row.dataset}/{row.split}/{row.model}/seed-{row.seed}" for row in failed.itertuples()]


def model_name(model: str) -> str:
    """Return how tables and legends call a model."""
    return NAMES.get(model, model)


def has_groups(split: str) -> bool:
    """Return whether the classes of a split are majority or minority: those of a long tail are neither."""
    return split.startswith("ka")


def split_name(split: str) -> str:
    """Return how titles call a split: `Balanced`, KA and R, or a long tail with its imbalance factor."""
    if split == "balanced":
        return "Balanced"
    if not has_groups(split):
        kind, _, factor = split.partition("-")
        return f"{'LDAM, ' if kind == 'ldam' else 'Long tail, '}IF = {factor}"
    majority, _, ratio = split.removeprefix("ka").partition("-r")
    return f"$K_A$ = {majority}, $R$ = {ratio}"


def ufm_layers(runs: pd.DataFrame) -> list[int]:
    """Return the numbers of the layers that the rows of an unconstrained features model have metrics of, from 1."""
    return [int(name.removeprefix("nc1_")) for name in runs.columns if name.startswith("nc1_")]
