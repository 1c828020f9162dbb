"""Sums over the samples of each class, in float64, on the device where the samples are.

Nothing here waits for a CUDA device: shapes are known to the host, values are not asked for. On CUDA the
sums are products with a one-hot matrix rather than `index_add_`, whose atomics add in a different order
each time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 2 << 20, "cuda": 64 << 20}
"""Working memory of one chunk of samples in float64: what fits a core's cache; what fills a GPU."""


def chunk_rows(width: int, device: torch.device) -> int:
    """Return how many rows of `width` float64 numbers make one chunk on `device`."""
    return max(1, CHUNK_BYTES[device.type] // (8 * max(width, 1)))


def chunks(features: Tensor, labels: Tensor, centres: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (h - c_y as rows×d float64, rows) pieces of `features` (N×d, any dtype) and `labels`
    (N), about `centres` (K×d).

    The caller's tensors are only read. On the CPU the samples come sorted by class, so that a chunk
    holds few classes. The yielded values live in one buffer, which the next chunk overwrites.
    """
    rows = chunk_rows(features.shape[1], features.device)
    if features.is_cuda:
        for start in range(0, len(labels), rows):
            of_class = labels[start : start + rows]
            yield features[start : start + rows].double() - rows_of(centres, of_class), of_class
        return
    order = torch.argsort(labels, stable=True)
    # Written in place throughout: to allocate chunks anew costs more in page faults than all the arithmetic.
    shape = (min(rows, len(labels)), features.shape[1])
    values, own = torch.empty(2, *shape, dtype=torch.float64)
    picked = torch.empty(shape, dtype=features.dtype)
    for start in range(0, len(labels), rows):
        indices = order[start : start + rows]
        n, of_class = len(indices), labels[indices]
        torch.index_select(features, 0, indices, out=picked[:n])
        torch.index_select(centres, 0, of_class, out=own[:n])
        yield values[:n].copy_(picked[:n]).sub_(own[:n]), of_class


def rows_of(table: Tensor, labels: Tensor) -> Tensor:
    """Return a copy of `table`'s row for each label; on CUDA, where nobody has looked at them,
    labels are kept in range.
    """
    return torch.index_select(table, 0, labels.clamp(0, len(table) - 1) if labels.is_cuda else labels)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return the N×K float64 indicator of `labels` (N); a label outside 0..K-1 gives a row of zeros."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).double()


def class_sums(values: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the K×... sums of `values` (N×..., float64) over the samples of each class."""
    if values.is_cuda:
        return one_hot(labels, num_classes).T @ values
    return values.new_zeros(num_classes, *values.shape[1:]).index_add_(0, labels, values)


def class_counts(labels: Tensor, num_classes: int, where: Tensor | None = None) -> Tensor:
    """Return the K int64 numbers of samples of each class, of those for which `where` (N, bool) holds if
    given.
    """
    weights = torch.ones_like(labels) if where is None else where.to(labels.dtype)
    if labels.is_cuda:
        hits = labels[:, None] == torch.arange(num_classes, device=labels.device)
        return (hits * weights[:, None]).sum(0)
    return labels.new_zeros(num_classes).index_add_(0, labels, weights)


def first_positions(labels: Tensor, num_classes: int) -> Tensor:
    """Return for each class the position of its first sample in `labels` (N), and N where it has none (K,
    int64).
    """
    absent = len(labels)
    positions = torch.arange(absent, device=labels.device)
    valid = (labels >= 0) & (labels < num_classes)
    return labels.new_full((num_classes,), absent).scatter_reduce_(
        0, labels.clamp(0, num_classes - 1), torch.where(valid, positions, absent), "amin"
    )


def add_class_scatter(scatter: Tensor, shift: Tensor, coordinates: Tensor, labels: Tensor) -> None:
    """Add to `scatter` (K×r×r) the sum of w w^T, and to `shift` (K×r) that of w, over the samples of each
    class, w the rows of `coordinates` (N×r, float64).
    """
    if coordinates.is_cuda:
        shift += class_sums(coordinates, labels, len(shift))
        add_class_scatter_dense(scatter, coordinates, labels)
        return
    classes, sizes = torch.unique_consecutive(labels, return_counts=True)
    for k, rows in zip(classes.tolist(), coordinates.split(sizes.tolist()), strict=True):
        scatter[k].addmm_(rows.T, rows)
        shift[k] += rows.sum(0)


def add_class_scatter_dense(scatter: Tensor, coordinates: Tensor, labels: Tensor) -> None:
    """Add the same to `scatter` by products alone: K times the work, but the host need not know where a
    class ends.
    """
    num_classes, rank = scatter.shape[:2]
    if rank == 0:
        return
    rows = chunk_rows(num_classes * rank, coordinates.device)
    for part, part_labels in zip(coordinates.split(rows), labels.split(rows), strict=True):
        spread = one_hot(part_labels, num_classes)[:, :, None] * part[:, None, :]
        scatter.view(num_classes * rank, rank).addmm_(spread.flatten(1).T, part)
