"""Low-rank points of the deep ReLU model that lie below full collapse, written down.

From L = 3 layers on, full (deep) neural collapse need not be the minimum of the ReLU model with squared error
and no
bias: Sukenik, Mondelli & Lampert (2024), "Neural collapse versus low-rank bias". Their witness, and ours in a
form that is tuned a little further, lets each class be an edge of a graph. The features are the incidence
matrix M (p x K, two ones a column) of rank at most p < K; the layer before the last turns them into

    X = I + c A - (1 - 2 c) B,   0 <= c < 1/2,

A and B being one for two edges that share a vertex and for two that do not. X = W M has the rank of M, while
s(X) = I + c A is invertible, and the last layer undoes it. At a fixed output the lambdas only rescale the
factors, so that the whole cost of a point is the geometric mean of its factors' squared norms, which is K for
full collapse: a graph whose mean is below K proves that full collapse is not the minimum, whatever the
lambdas. Where no graph is known, a point that a search has found does as well.
"""

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy.optimize import minimize_scalar

Edges = tuple[tuple[int, int], ...]


FOUND = {(3, 4): 2.9465, (8, 3): 7.9063}
"""Cost, rounded up, of a point that a search found for K classes in L layers of K units (tests/unit/theory/ufm/points).

In three layers some thousand descents each ended no lower than full collapse for K = 3 to 7.
"""


@cache
def low_rank_cost(num_classes: int, layers: int) -> float:
    """Return the least cost known for K classes in L layers, in units in which full collapse costs K.

    The classes are shared out among blocks, each the edges of one graph, a point that was found or a single class of
    cost 1: the norms of a direct sum add up. K itself is returned where nothing helps, as with fewer than three layers.
    """
    if layers < 3:
        return float(num_classes)
    best = [float(k) for k in range(num_classes + 1)]
    for k in range(3, num_classes + 1):
        graphs = (graph_cost(edges, layers) for edges in _graphs(k))
        found = (_deepened(cost, k, depth, layers) for (of, depth), cost in FOUND.items() if of == k)
        sums = (best[part] + best[k - part] for part in range(1, k // 2 + 1))
        best[k] = min(best[k], *graphs, *found, *sums)
    return best[num_classes]


def _deepened(cost: float, num_classes: int, depth: int, layers: int) -> float:
    """Return what a point of `depth` layers costs in `layers`: each layer more carries K features, at a norm of K."""
    if layers < depth:
        return float(num_classes)
    return num_classes * (cost / num_classes) ** ((depth + 1) / (layers + 1))


def graph_cost(edges: Edges, layers: int) -> float:
    """Return the cost of the point in which class k is `edges[k]`: the best over c, for L >= 3 layers."""
    return float(minimize_scalar(lambda c: _cost(edges, layers, c), bounds=(0.0, 0.45), method="bounded").fun)


def factors(edges: Edges, layers: int, overlap: float) -> list[np.ndarray]:
    """Return H (p x K), W_1, ..., W_L whose ReLU network is the identity on the K classes, L >= 3.

    W_1 H = M, split evenly; W_2 .. W_{L-2} carry M through; W_{L-1} makes X of it; W_L inverts s(X).
    """
    M = _incidence(edges)
    left, values, right = np.linalg.svd(M, full_matrices=False)
    rank = int((values > 1e-9 * values[0]).sum())
    left, root, right = left[:, :rank], np.sqrt(values[:rank]), right[:rank]
    shared = M.T @ M
    X = np.where(shared == 2, 1.0, np.where(shared == 1, overlap, 2 * overlap - 1))
    carry = [left @ left.T] * (layers - 3)
    return [
        root[:, None] * right,
        left * root,
        *carry,
        X @ np.linalg.pinv(M),
        np.linalg.inv(np.maximum(X, 0)),
    ]


def _cost(edges: Edges, layers: int, overlap: float) -> float:
    logs = [2 * np.log(np.linalg.norm(factor)) for factor in factors(edges, layers, overlap)]
    return float(np.exp(np.mean(logs)))


def _incidence(edges: Edges) -> np.ndarray:
    M = np.zeros((max(map(max, edges)) + 1, len(edges)))
    for k, edge in enumerate(edges):
        M[list(edge), k] = 1.0
    return M


def _graphs(num_edges: int) -> Iterator[Edges]:
    """Complete graphs (whose edges are Sukenik et al.'s triangular graphs) and complete bipartite ones."""
    for p in range(4, num_edges):
        if p * (p - 1) == 2 * num_edges:
            yield tuple(itertools.combinations(range(p), 2))
    for a in range(2, int(num_edges**0.5) + 1):
        if num_edges % a == 0:
            yield tuple((i, a + j) for i in range(a) for j in range(num_edges // a))
