"""Training, an epoch at a time."""

import warnings
from dataclasses import dataclass, field, replace

import torch

from eqcollapse.data.batches import Batches, epoch_seed
from eqcollapse.equilibrium import ConvergencePolicy, Equilibrium, NotConverged
from eqcollapse.networks.classifier import Classifier
from eqcollapse.networks.deq import EquilibriumHead
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.training.config import TrainSpec
from eqcollapse.training.evaluation import accuracies, correct_by_class, features_of
from eqcollapse.training.log import TrainingLog
from eqcollapse.training.losses import feature_penalty, loss_in
from eqcollapse.training.optimizers import optimizer
from eqcollapse.training.schedule import learning_rate

LOST_LOSS = 1e4
"""A mean loss above this (chance has log K, or 1/2 under squared error) never comes back."""
LOST_RESIDUAL = 0.5
"""Of a relative residual, which is 1 where nothing was found; where no sample converged besides, there is nothing."""


@dataclass
class Cell:
    """One cell of the grid in training: its network, data and history."""

    spec: TrainSpec
    network: Classifier
    train: Batches
    test: Batches
    majority: tuple[int, ...]
    device: torch.device
    validation: Batches | None = None
    epoch: int = 0
    history: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = optimizer(self.network.parameters(), self.spec.train, fused=self.device.type == "cuda")
        self.class_counts = torch.bincount(self.train.labels, minlength=self.network.linear.out_features)
        self.equilibria = [part for part in self.network.modules() if isinstance(part, Equilibrium)]

    @property
    def name(self) -> str:
        """What errors and logs call this cell."""
        return f"{self.spec.dataset}/{self.spec.split}/{self.spec.model}/seed-{self.spec.seed}"

    def state(self) -> dict:
        """Return what a checkpoint needs to go on from here."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
            "methods": [(part.forward_solver.method, part.backward_solver.method) for part in self.equilibria],
        }

    def restore(self, state: dict) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.history = state["epoch"], state["history"]
        for part, (forward, backward) in zip(self.equilibria, state["methods"], strict=True):
            part.forward_solver = replace(part.forward_solver, method=forward)
            part.backward_solver = replace(part.backward_solver, method=backward)


def train_epoch(cell: Cell, log: TrainingLog) -> None:
    """Train one more epoch, evaluate where it is due, and add a row to the history.

    Raises EqcollapseError if it diverged.
    """
    cell.epoch += 1
    rate = learning_rate(cell.spec.train.schedule, cell.spec.train.lr, cell.epoch, _epochs(cell))
    for group in cell.optimizer.param_groups:
        group["lr"] = rate
    try:
        loss = descend(cell, log)
    except (ValueError, RuntimeError) as error:
        if (line := _line_for_people(cell, str(error))) is None:
            raise
        raise EqcollapseError(f"cell {cell.name}: {line}") from None
    row = {"epoch": cell.epoch, "lr": rate, "loss": loss, **_solver_summary(cell)}
    _check_finite(cell, row)
    for part, batches in (("test", cell.test), ("validation", cell.validation)):
        if batches is not None and _is_evaluated(cell):
            row |= {f"{part}_{name}": value for name, value in _evaluated(cell, batches).items()}
    cell.history.append(row)
    log.row(row)
    _check_converged(cell, row, log)


def _line_for_people(cell: Cell, error: str) -> str | None:
    """Return what is said of an error that settings lead to and mend; None of any other."""
    if "more than 1 value per channel" in error:
        return (
            "a batch of one image leaves one value a channel, which cannot be normalised: "
            f"set train.batch_size (it is {cell.spec.train.batch_size}) above 1, or network.stages lower"
        )
    if "does not have a deterministic implementation" in error:
        return f"{error.partition('.')[0]}: set train.deterministic to false, or choose another network"
    return None


def _is_evaluated(cell: Cell) -> bool:
    """Say whether the test set is evaluated after this epoch: `train.evaluate`, and always the last."""
    return (
        cell.spec.train.evaluate == "every" or cell.epoch in cell.spec.snapshots.epochs or cell.epoch == _epochs(cell)
    )


def descend(cell: Cell, log: TrainingLog) -> float:
    """Take the steps of `cell.epoch`; return the mean loss over its samples.

    No step waits for a GPU, but each look at what a solve has found so far does (`equilibrium.forward.check_every`).
    """
    settings = cell.spec.train
    loss_of = loss_in(cell.epoch, settings.loss, settings.loss_options, cell.class_counts)
    low = settings.precision == "bfloat16"
    penalty = cell.spec.equilibrium.jacobian_penalty if cell.spec.equilibrium else 0.0
    head = cell.network.head
    torch.manual_seed(epoch_seed(cell.spec.seed, cell.epoch))  # for dropout: the same after a resumed run
    cell.network.train()
    for equilibrium in cell.equilibria:
        equilibrium.statistics.reset()
    total = torch.zeros((), dtype=torch.float64, device=cell.device)
    count = 0
    for step, (images, labels) in enumerate(cell.train.epoch(cell.epoch)):
        cell.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(cell.device.type, dtype=torch.bfloat16, enabled=low):
            features = cell.network.features(images)
            logits = cell.network.linear(features)
        loss = loss_of(logits.float(), labels)
        batch_loss = loss.detach()
        if settings.feature_decay:
            loss = loss + feature_penalty(features.float(), settings.feature_decay)
        if penalty and isinstance(head, EquilibriumHead):
            loss = loss + penalty * head.jacobian_penalty(seed=(cell.epoch - 1) * len(cell.train) + step)
        loss.backward()
        cell.optimizer.step()
        total += batch_loss * len(labels)
        count += len(labels)
        log.batch()
    return total.item() / count


def _evaluated(cell: Cell, batches: Batches) -> dict[str, float]:
    """Return the accuracies on `batches` and, for a DEQ, the share of their samples whose solve converged."""
    for equilibrium in cell.equilibria:
        equilibrium.statistics.reset()
    counts = correct_by_class(cell.network, *features_of(cell.network, batches))
    return {**accuracies(counts.cpu(), cell.majority), **solver_share(cell)}


def solver_share(cell: Cell) -> dict[str, float]:
    """Return `solver_converged` of the evaluation's solves, those since the last reset; {} without a DEQ."""
    return {key: value for key, value in _solver_summary(cell).items() if key == "solver_converged"}


def _solver_summary(cell: Cell) -> dict[str, float]:
    return {key: value for equilibrium in cell.equilibria for key, value in equilibrium.statistics.summary().items()}


def _check_finite(cell: Cell, row: dict) -> None:
    """Raise EqcollapseError where the epoch led nowhere: NaN, an exploded loss, or a solver that finds nothing at all.

    That is no matter of `equilibrium.convergence`: what comes out is neither a network nor an equilibrium.
    """
    finite = torch.stack([torch.isfinite(weights).all() for weights in cell.network.parameters()])
    lost = row.get("solver_converged", 1.0) == 0 and row["solver_residual"] > LOST_RESIDUAL
    if row["loss"] < LOST_LOSS and finite.all() and not lost:
        return
    raise EqcollapseError(
        f"cell {cell.name} diverged in epoch {cell.epoch}: loss {row['loss']:.3g}{_residuals(row)}{_origin(cell)}; "
        f"try a smaller train.lr (it is {cell.spec.train.lr:g}) or a longer train.schedule.warmup"
    )


def _origin(cell: Cell) -> str:
    head = cell.network.head
    origin = head.nan_origin() if isinstance(head, EquilibriumHead) else None
    return "" if origin is None else f", first NaN in {origin or 'the layer itself'}"


def _residuals(row: dict) -> str:
    if "solver_residual" not in row:
        return ""
    return f", solver residual {row['solver_residual']:.3g} on average, {row['solver_residual_max']:.3g} at worst"


def _check_converged(cell: Cell, row: dict, log: TrainingLog) -> None:
    """Hold the epoch's solves against `equilibrium.convergence`: warn, stop, or go on with another method."""
    if cell.spec.equilibrium is None:
        return
    policy = ConvergencePolicy(**cell.spec.equilibrium.convergence.model_dump())
    for equilibrium in cell.equilibria:
        where = f"cell {cell.name}, epoch {cell.epoch}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is to be said stands in the log, beside the epoch's line
                message = policy.apply(equilibrium, _lowest(row))
        except NotConverged as error:
            raise EqcollapseError(f"{where}: {error}{_residuals(row)}") from None
        if message:
            log.say(f"warning: {where}: {message}{_residuals(row)}")


def _lowest(row: dict) -> dict[str, float]:
    """Return the shares of an epoch that converged, the lowest of training and evaluation."""
    solves = [value for key, value in row.items() if key.endswith("solver_converged")]
    return {"solver_converged": min(solves), "adjoint_converged": row.get("adjoint_converged", 1.0)}


def _epochs(cell: Cell) -> int:
    return cell.spec.train.epochs
