"""The two passes over the features: what each accumulates, how a batch is added, and how two parts become
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqcollapse.collapse.accumulate import (
    add_class_scatter,
    chunks,
    class_counts,
    class_sums,
    first_positions,
    rows_of,
)

EPSILON = torch.finfo(torch.float64).eps

SAME_FEATURES = 1e-4
"""Largest share of a class's within-class variance, in all or in any direction of the means' span, that
differences between the passes may explain.
"""

ROUNDINGS = 64.0
"""Differences between the passes of this many roundings of the largest class mean are always allowed."""

SAME_CLASSIFIER = 1e-6
"""Largest relative difference of two fingerprints of one classifier."""


@dataclass
class FirstPass:
    """Class counts, means and traces, accumulated about `centres` c_k: the first sample seen of each class.

    `counts` (K, int64); `sums` of h - c_y (K×d); `squares`, sums of ||h - c_y||^2 (K). Near collapse h -
    c_y is exact in float64, and what is taken off at the end is no larger than the variance itself: no
    digits are lost.
    """

    counts: Tensor
    centres: Tensor
    sums: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, num_classes: int, dim: int, device: torch.device) -> FirstPass:
        """Return the pass that has seen nothing."""
        zeros = torch.zeros(num_classes, dim, dtype=torch.float64, device=device)
        counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        return cls(counts, zeros, zeros.clone(), zeros.new_zeros(num_classes))

    @property
    def means(self) -> Tensor:
        """Class means, K×d; nan for a class without samples."""
        means = self.centres + self.sums / self.counts.clamp(min=1)[:, None]
        return means.masked_fill(self.counts[:, None] == 0, torch.nan)

    @property
    def traces(self) -> Tensor:
        """Sums of ||h - m_y||^2 over the samples of each class (K): never negative, nan only for features that are not
        finite, inf for those whose squares overflow.
        """
        number = self.counts.clamp(min=1)
        correction = self.sums.square().sum(1) / number
        smaller = (self.sums / number.double().sqrt()[:, None]).square().sum(1)  # its squares overflow later
        correction = torch.where(correction.isinf(), smaller, correction)
        return torch.where(self.squares.isinf(), self.squares, self.squares - correction).clamp(min=0.0)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch: `features` N×d, `labels` N int64, N >= 1."""
        num_classes = len(self.counts)
        self._choose_centres(features, labels)
        self.counts += class_counts(labels, num_classes)
        for values, of_class in chunks(features, labels, self.centres):
            self.sums += class_sums(values, of_class, num_classes)
            self.squares += class_sums(values.square_().sum(1), of_class, num_classes)

    def _choose_centres(self, features: Tensor, labels: Tensor) -> None:
        positions = first_positions(labels, len(self.counts))
        fresh = (self.counts == 0) & (positions < len(labels))
        if not features.is_cuda and not fresh.any():
            return
        candidates = features[positions.clamp(max=len(labels) - 1)].double()
        self.centres = torch.where(fresh[:, None], candidates, self.centres)

    def merged(self, other: FirstPass) -> FirstPass:
        """Return the pass that has seen the samples of both (Chan, Golub & LeVeque 1979)."""
        counts = self.counts + other.counts
        # Where one part has no sample of a class, take the other part's numbers as they are.
        alone, absent = (other.counts == 0)[:, None], (self.counts == 0)[:, None]
        own, others = self.means.masked_fill(absent, 0.0), other.means.masked_fill(alone, 0.0)
        share = other.counts.double() / counts.clamp(min=1)
        step = (others - own) * share[:, None]
        between = (others - own).square().sum(1) * self.counts * share
        means = torch.where(alone, own, torch.where(absent, others, own + step))
        traces = self.traces + other.traces + torch.where((alone | absent)[:, 0], 0.0, between)
        return FirstPass(counts, means, torch.zeros_like(means), traces)


@dataclass
class SecondPass:
    """The within-class scatter in the span of the centred class means, and the samples' decisions.

    Coordinates are w = U^T (h - m_y) with `basis` U (d×r). `counts` (K); `squares`, sums of ||h - m_y||^2
    (K); `shift`, sums of w (K×r), which are what m_y was rounded by if the features are those of the first
    pass; `scatter`, sums of w w^T: K×r×r, or pooled over all classes 1×r×r with `spread`, the sums of w*w
    by class (K×r), beside it; `centre_correct` (K), the samples whose nearest class mean is that of their
    own class. With a classifier: `agreeing` (K), the samples that it assigns to the class of the nearest
    mean; `correct` (K); and its `fingerprint` (K×3), by which another classifier is told from this one.
    """

    basis: Tensor
    counts: Tensor
    squares: Tensor
    shift: Tensor
    scatter: Tensor
    centre_correct: Tensor
    spread: Tensor | None = None
    agreeing: Tensor | None = None
    correct: Tensor | None = None
    fingerprint: Tensor | None = None

    @classmethod
    def begin(
        cls, means: Tensor, pooled: bool, classifier: tuple[Tensor, Tensor] | None
    ) -> tuple[SecondPass, Projection]:
        """Return the empty pass about `means` (K×d), and what its updates need. `classifier`: weight K×d
        and bias K.
        """
        basis = span_of_means(means)
        num_classes, rank = len(means), basis.shape[1]
        integers = torch.zeros(num_classes, dtype=torch.int64, device=means.device)
        second = cls(
            basis=basis,
            counts=integers,
            squares=basis.new_zeros(num_classes),
            shift=basis.new_zeros(num_classes, rank),
            scatter=basis.new_zeros(1 if pooled else num_classes, rank, rank),
            centre_correct=integers.clone(),
            spread=basis.new_zeros(num_classes, rank) if pooled else None,
        )
        projection = Projection.onto(basis, means, classifier)
        if classifier is not None:
            second.agreeing, second.correct = integers.clone(), integers.clone()
            second.fingerprint = fingerprint(*classifier).to(means.device)
        return second, projection

    @property
    def pooled(self) -> bool:
        """Whether there is one scatter for all classes."""
        return self.spread is not None

    @property
    def class_spread(self) -> Tensor:
        """Sums of w*w by class (K×r)."""
        return self.scatter.diagonal(dim1=1, dim2=2) if self.spread is None else self.spread

    def update(self, projection: Projection, features: Tensor, labels: Tensor) -> None:
        """Add a batch: `features` N×d, `labels` N int64, N >= 1."""
        num_classes, rank = len(self.counts), self.basis.shape[1]
        self.counts += class_counts(labels, num_classes)
        for values, of_class in chunks(features, labels, projection.means):
            products = values @ projection.columns
            coordinates = products[:, :rank]
            self.squares += class_sums(values.square_().sum(1), of_class, num_classes)
            self._add_scatter(coordinates, of_class)
            nearest = projection.nearest(coordinates, of_class)
            self.centre_correct += class_counts(of_class, num_classes, nearest == of_class)
            if projection.logits_of_means is not None and self.agreeing is not None and self.correct is not None:
                decision = (rows_of(projection.logits_of_means, of_class) + products[:, rank:]).argmax(1)
                self.agreeing += class_counts(of_class, num_classes, decision == nearest)
                self.correct += class_counts(of_class, num_classes, decision == of_class)

    def _add_scatter(self, coordinates: Tensor, labels: Tensor) -> None:
        if self.spread is not None:
            self.scatter[0].addmm_(coordinates.T, coordinates)
            self.shift += class_sums(coordinates, labels, len(self.counts))
            self.spread += class_sums(coordinates.square(), labels, len(self.counts))
        else:
            add_class_scatter(self.scatter, self.shift, coordinates, labels)

    @property
    def excess(self) -> Tensor:
        """Vectors x (K×r) with x x^T what the scatter of each class has too much for m_y being rounded.

        sum (w - s/n)(w - s/n)^T = sum w w^T - s s^T/n with the shift s. Where classes have collapsed to
        nearly the rounding of their means, the latter is of the size of the former.
        """
        return self.shift / self.counts.clamp(min=1).double().sqrt()[:, None]

    def saw_features_of(self, first: FirstPass) -> bool:
        """Return whether the samples' features are, by all that both passes know, those of the `first`.

        Features that differ by e move the sums of a class by sum e. If e is noise, the square of that is in
        the mean what it adds to the sums of squares, in each direction of the means' span; if e is the same
        for all, it is more. In all directions together, the traces tell.
        """
        n = first.counts.double()
        rounding = (ROUNDINGS * EPSILON * torch.linalg.norm(first.means.nan_to_num(0.0), dim=1).max()) ** 2
        moved = (
            self.shift.square() > SAME_FEATURES * _or_pooled(self.class_spread, n) + (n.square() * rounding)[:, None]
        )
        changes = (first.traces - self.squares).abs()
        changed = changes > SAME_FEATURES * _or_pooled(self.squares[:, None], n)[:, 0] + n * rounding
        return not bool(moved.any() | changed.any())

    def merged(self, other: SecondPass) -> SecondPass:
        """Return the pass that has seen the samples of both; both must have begun from the same means and
        classifier.
        """
        if not torch.equal(self.basis, other.basis.to(self.basis.device)) or self.pooled != other.pooled:
            raise ValueError("these second passes began from different first passes: merge the first passes before")
        if not same_classifier(self.fingerprint, other.fingerprint):
            raise ValueError("these second passes counted the decisions of different classifiers")
        added: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name) + getattr(other, name)
            for name in ("counts", "squares", "shift", "scatter", "centre_correct", "spread", "agreeing", "correct")
        }
        return SecondPass(basis=self.basis, fingerprint=self.fingerprint, **added)


@dataclass(frozen=True)
class Projection:
    """The first pass made ready for the second: one product takes h - m_y to its coordinates and
    its logits.

    `means` (K×d); `columns`, [U, W^T] (d×(r+K), or d×r); `in_span`, the means' own coordinates a_k
    (K×r); `squared_distances` ||m_j - m_k||^2 (K×K), infinite to a class without samples; `safe`
    (K), a quarter of the least of them to another class; `logits_of_means` (K×K), row j at m_j.
    """

    means: Tensor
    columns: Tensor
    in_span: Tensor
    squared_distances: Tensor
    safe: Tensor
    logits_of_means: Tensor | None

    @classmethod
    def onto(cls, basis: Tensor, means: Tensor, classifier: tuple[Tensor, Tensor] | None) -> Projection:
        """Return the projection onto `basis` (d×r) about `means` (K×d)."""
        absent = means.isnan().all(1)
        means = means.nan_to_num(0.0)
        in_span = (means - means[~absent].mean(0)) @ basis
        distances = torch.cdist(in_span, in_span, compute_mode="donot_use_mm_for_euclid_dist").square()
        distances[:, absent] = torch.inf
        safe = distances.clone().fill_diagonal_(torch.inf).min(1).values / 4
        if classifier is None:
            return cls(means, basis, in_span, distances, safe, None)
        weight, bias = classifier
        columns = torch.cat([basis.T, weight]).T
        return cls(means, columns, in_span, distances, safe, means @ weight.T + bias)

    def nearest(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        """Return the class of the mean nearest to each sample (N), from its `coordinates` (N×r) about its
        own class mean.

        Within half the way to the closest other mean it is the own one. On the CPU only the other
        samples, few near collapse, are compared with all means; on CUDA, all are, since to pick
        some would mean to wait.
        """
        if coordinates.is_cuda:
            return self._compared(coordinates, labels)
        nearest = labels.clone()
        doubtful = (coordinates.square().sum(1) >= self.safe[labels]).nonzero()[:, 0]
        nearest[doubtful] = self._compared(coordinates[doubtful], labels[doubtful])
        return nearest

    def _compared(self, coordinates: Tensor, labels: Tensor) -> Tensor:
        # ||w + a_y - a_k||^2 = ||a_y - a_k||^2 - 2 w.a_k + what all k share: no large numbers cancel.
        return rows_of(self.squared_distances, labels).addmm_(coordinates, self.in_span.T, alpha=-2).argmin(1)


def span_of_means(means: Tensor) -> Tensor:
    """Return U, d×r float64 with orthonormal columns, that spans the centred class means (K×d, nan for an
    absent class).

    Right singular vectors, largest first, computed on the CPU. r = min(K'-1, d) for the K' classes
    present: the centred means never span more, whichever weights their centre has, and a K'-th direction
    would be rounding error. None for means that are not finite, or so large that their sum is not.
    """
    present = means[~means.isnan().all(1)].cpu()
    rank = max(0, min(len(present) - 1, means.shape[1]))
    centred = present - present.mean(0)
    if rank == 0 or not bool(centred.isfinite().all()):
        return means.new_zeros(means.shape[1], 0)
    _, _, rows = torch.linalg.svd(centred, full_matrices=False)
    return rows[:rank].T.contiguous().to(means.device)


def fingerprint(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return two fixed combinations of the columns of `weight` (K×d), and `bias` (K): K×3 float64 on the
    CPU.

    The combinations have no pattern that classifiers would share: one with other rows, columns, signs or
    lengths has another fingerprint, also where it is the same at every class mean.
    """
    weight = weight.detach().to("cpu", torch.float64)
    steps = torch.arange(weight.shape[1], dtype=torch.float64)[:, None] * torch.tensor([2.0, 3.0]).double().sqrt()
    bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().to(weight)
    return torch.cat([weight @ steps.cos(), bias[:, None]], dim=1)


def same_classifier(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two fingerprints are of one classifier, or of none.

    What is not finite must be the same in both.
    """
    if one is None or other is None:
        return one is other
    one, other = one.cpu(), other.cpu()
    odd = ~(one.isfinite() & other.isfinite())
    if not torch.allclose(one[odd], other[odd], rtol=0.0, equal_nan=True):
        return False
    one, other = one.masked_fill(odd, 0.0), other.masked_fill(odd, 0.0)
    return bool(((one - other).abs().amax(0) <= SAME_CLASSIFIER * one.abs().amax(0)).all())


def _or_pooled(sums: Tensor, counts: Tensor) -> Tensor:
    """Return `sums` of squares by class (K×r), with their average over all samples for a class of one
    sample, which has none of its own.
    """
    pooled = counts[:, None] * sums.sum(0) / counts.sum().clamp(min=1)
    return torch.where(counts[:, None] > 1, sums, pooled)
