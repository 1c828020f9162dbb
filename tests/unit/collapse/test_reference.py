"""NC1 against the d×d pseudo-inverse, and against 50 digits where that one fails; presets against
the papers' formulae.
"""

import math

import mpmath
import numpy as np
import pytest
import torch

from eqcollapse.collapse import PRESETS, Moments, class_metrics, collapse_metrics, seli, simplex_etf


def random_features(K, d, N, seed, spread=0.5):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    means = rng.normal(size=(K, d))
    return means[y] + spread * rng.normal(size=(N, d)), y


def covariances(H, y, K, mean="unweighted", between="uniform", within="samples"):
    """S_W and S_B (d×d, float64), as the options define them."""
    counts = np.bincount(y, minlength=K)
    m = np.stack([H[y == k].mean(0) for k in range(K)])
    share = counts / len(H)
    centre = m.mean(0) if mean == "unweighted" else share @ m
    v = np.full(K, 1 / K) if between == "uniform" else share
    weight = np.full(len(H), 1 / len(H)) if within == "samples" else 1 / (K * counts[y])
    w = H - m[y]
    return w.T @ (weight[:, None] * w), (m - centre).T @ (v[:, None] * (m - centre))


def dxd_nc1(H, y, K, **options):
    S_W, S_B = covariances(H, y, K, **options)
    return np.trace(S_W @ np.linalg.pinv(S_B, rcond=1e-10, hermitian=True)) / K


@pytest.mark.parametrize(("K", "d", "N"), [(2, 2, 20), (10, 64, 500), (10, 5, 300), (30, 40, 900)])
@pytest.mark.parametrize("mean", ["unweighted", "weighted"])
@pytest.mark.parametrize("between", ["uniform", "weighted"])
@pytest.mark.parametrize("within", ["samples", "classes"])
def test_nc1_is_that_of_the_dxd_pseudo_inverse(K, d, N, mean, between, within):
    H, y = random_features(K, d, N, seed=K)
    options = {"mean": mean, "between": between, "within": within}
    moments = Moments.of(torch.from_numpy(H), torch.from_numpy(y), K)
    found = collapse_metrics(moments, majority=[0], **options)
    assert found["nc1"] == pytest.approx(dxd_nc1(H, y, K, **options), rel=1e-10)
    S_W, S_B = covariances(H, y, K, **options)
    assert found["trace_ratio"] == pytest.approx(np.trace(S_W) / np.trace(S_B), rel=1e-12)
    values = np.sort(np.linalg.eigvalsh(S_B))[::-1]
    rank = min(K - 1, d)
    assert found["nc1_rank"] == rank
    assert found["nc1_eigenvalue_ratio"] == pytest.approx(values[rank - 1] / values[0], rel=1e-9)


def test_nc1_of_any_grouping_chosen_later_comes_from_the_stored_tensors_alone():
    H, y = random_features(8, 20, 400, seed=1)
    stored = Moments.of(torch.from_numpy(H), torch.from_numpy(y), 8).tensors()
    for majority in ([0, 1], [7, 2, 3, 5, 0]):
        found = collapse_metrics(Moments.from_tensors(stored), majority=majority)
        minority = [k for k in range(8) if k not in majority]
        S_B = covariances(H, y, 8)[1]
        for group, members in (("majority", majority), ("minority", minority)):
            chosen = np.isin(y, members)
            alone = np.searchsorted(sorted(members), y[chosen])
            own = dxd_nc1(H[chosen], alone, len(members))
            assert found[f"nc1_{group}"] == pytest.approx(own, rel=1e-10)
            within = covariances(H[chosen], alone, len(members))[0]
            pooled = np.trace(within @ np.linalg.pinv(S_B, rcond=1e-10)) / 8
            assert found[f"nc1_pooled_{group}"] == pytest.approx(pooled, rel=1e-10)


def test_pooled_nc1_is_the_mean_of_the_classes_weighted_by_their_samples():
    H, y = random_features(6, 12, 200, seed=2)
    for scatter in ("class", "pooled"):
        moments = Moments.of(torch.from_numpy(H), torch.from_numpy(y), 6, scatter=scatter)
        classes = class_metrics(moments)
        share = classes["samples"] / classes["samples"].sum()
        assert collapse_metrics(moments)["nc1"] == pytest.approx(float(share @ classes["nc1"]), rel=1e-12)


def test_a_pooled_scatter_says_what_it_cannot_tell():
    H, y = random_features(6, 12, 200, seed=2)
    H, y = torch.from_numpy(H), torch.from_numpy(y)
    whole, pooled = (
        collapse_metrics(Moments.of(H, y, 6, scatter=scatter), majority=[0, 1]) for scatter in ("class", "pooled")
    )
    for name, value in pooled.items():
        if math.isnan(value) and not math.isnan(whole[name]):
            assert name in ("nc1_majority", "nc1_minority")
            assert 'scatter="class"' in pooled.reasons[name]
        elif not math.isnan(value):
            assert value == pytest.approx(whole[name], rel=1e-12), name


def mp_nc1(H, y, K):
    """Tr(S_W S_B^+)/K with 50 digits: S_B^+ = C^T (C C^T)^-2 C on K - 1 independent rows of the
    centred means.
    """
    with mpmath.workdps(50):
        rows = [[mpmath.mpf(float(x)) for x in h] for h in H]
        counts = np.bincount(y, minlength=K)
        m = mpmath.zeros(K, H.shape[1])
        for h, k in zip(rows, y, strict=True):
            for j, x in enumerate(h):
                m[int(k), j] += x / int(counts[k])
        mu = [mpmath.fsum(m[k, j] for k in range(K)) / K for j in range(H.shape[1])]
        C = mpmath.matrix([[m[k, j] - mu[j] for j in range(H.shape[1])] for k in range(K)])
        # C = P C_1 with C_1 its first K - 1 rows: C^T C = C_1^T (P^T P) C_1, then full-rank factors.
        C1 = C[: K - 1, :]
        PtP = mpmath.eye(K - 1) + mpmath.ones(K - 1, K - 1)
        G = C1 * C1.T
        middle = G**-1 * PtP**-1 * G**-1  # (C1^T A C1)^+ = C1^T G^-1 A^-1 G^-1 C1
        total = mpmath.mpf(0)
        for h, k in zip(rows, y, strict=True):
            z = C1 * mpmath.matrix([x - m[int(k), j] for j, x in enumerate(h)])
            total += (z.T * middle * z)[0]
        return float(total / len(rows))  # 1/K of S_B and 1/K of the definition cancel


@pytest.mark.parametrize("squeeze", [1.0, 1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize(("noise", "offset"), [(1e-2, 0), (1e-6, 0), (1e-6, 10)])
def test_nc1_is_right_to_the_digits_that_float64_means_have(squeeze, noise, offset):
    rng = np.random.default_rng(3)
    K, d = 5, 8
    means = rng.normal(size=(K, d))
    means[2:] = means[2:].mean(0) + squeeze * (means[2:] - means[2:].mean(0))
    y = np.repeat(np.arange(K), [12, 9, 4, 4, 4])
    H = means[y] + noise * squeeze * rng.normal(size=(len(y), d)) + offset
    truth = mp_nc1(H, y, K)
    found = collapse_metrics(Moments.of(torch.from_numpy(H), torch.from_numpy(y), K))["nc1"]
    closest = min(np.linalg.norm(means[j] - means[k]) for j in range(K) for k in range(j))
    longest = np.linalg.norm(H, axis=1).max()
    assert found == pytest.approx(truth, rel=max(4e-15, 5e-16 * longest / closest))  # as docs/reference/metrics.md says
    if squeeze <= 1e-6:
        # With its usual cut the pseudo-inverse drops, or makes up, the directions that are to be measured.
        S_W, S_B = covariances(H, y, K)
        usual = float(torch.trace(torch.from_numpy(S_W) @ torch.linalg.pinv(torch.from_numpy(S_B)))) / K
        assert abs(usual / truth - 1) > 1e3 * abs(found / truth - 1)


# The papers' own formulae, written down once more with numpy.


def unit(matrix):
    return matrix / np.linalg.norm(matrix)


@pytest.fixture(scope="module")
def imbalanced():
    rng = np.random.default_rng(4)
    K, d = 6, 10
    y = np.repeat(np.arange(K), [60, 50, 40, 9, 8, 7])
    H = rng.normal(size=(K, d))[y] + 0.2 * rng.normal(size=(len(y), d)) + 0.3
    return H, y, rng.normal(size=(K, d)) + 0.1, rng.normal(size=K)


def test_presets_are_the_papers_definitions(imbalanced):
    H, y, W, b = imbalanced
    K = len(W)
    m = np.stack([H[y == k].mean(0) for k in range(K)])
    mu, mu_G = m.mean(0), H.mean(0)
    E = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    moments = Moments.of(*map(torch.from_numpy, (H, y)), K, torch.from_numpy(W), torch.from_numpy(b))

    def preset(name):
        found = collapse_metrics(moments, torch.from_numpy(W), torch.from_numpy(b), preset=name)
        assert list(found) == list(PRESETS[name].metrics)
        return found

    zhu = {
        "nc1": dxd_nc1(H, y, K, mean="weighted"),
        "nc2": np.linalg.norm(unit(W @ W.T) - E),
        "nc3": np.linalg.norm(unit(W @ (m - mu_G).T) - E),
        "nc4": np.linalg.norm(W @ mu_G + b),
    }
    assert preset("zhu2021") == pytest.approx(zhu, rel=1e-10)
    sun = {"nc1": dxd_nc1(H, y, K), "nc2": zhu["nc2"], "nc3": np.linalg.norm(unit(W @ (m - mu).T) - E)}
    assert preset("sun2024") == pytest.approx(sun, rel=1e-10)
    tirer = {
        "nc1": sun["nc1"],
        "nc2_of": np.linalg.norm(unit(m @ m.T) - np.eye(K) / np.sqrt(K)),
        "nc2_etf": np.linalg.norm(unit((m - mu) @ (m - mu).T) - E),
        "nc3_of": np.linalg.norm(unit(W) - unit(m)),
        "nc3_etf": np.linalg.norm(unit(W) - unit(m - mu)),
    }
    assert preset("tirer2022") == pytest.approx(tirer, rel=1e-10)

    def cosine(rows):
        u = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return (u @ u.T)[~np.eye(K, dtype=bool)]

    norms = [np.linalg.norm(rows, axis=1) for rows in (m - mu, W)]
    nearest = ((H[:, None] - m) ** 2).sum(2).argmin(1)
    papyan = {
        "nc1": K * sun["nc1"],
        "nc1_over_k": sun["nc1"],
        "nc2_equinorm_means": norms[0].std(ddof=1) / norms[0].mean(),
        "nc2_equinorm_weight": norms[1].std(ddof=1) / norms[1].mean(),
        "nc2_equiangle_means": np.abs(cosine(m - mu) + 1 / (K - 1)).mean(),
        "nc2_equiangle_weight": np.abs(cosine(W) + 1 / (K - 1)).mean(),
        "nc3": np.linalg.norm(unit(W) - unit(m - mu)) ** 2,
        "nc4": ((H @ W.T + b).argmax(1) != nearest).mean(),
    }
    assert preset("papyan2020") == pytest.approx(papyan, rel=1e-10)
    table = collapse_metrics(moments, torch.from_numpy(W), torch.from_numpy(b))
    for paper, expected in (("sun2024", sun), ("tirer2022", tirer)):
        for name, value in expected.items():
            assert table[f"{paper}_{name}"] == pytest.approx(value, rel=1e-10)


def test_the_table_is_its_definitions(imbalanced):
    H, y, W, b = imbalanced
    K, A = len(W), [0, 1, 2]
    B = [3, 4, 5]
    m = np.stack([H[y == k].mean(0) for k in range(K)])
    M, V = m - m.mean(0), W - W.mean(0)
    of, etf = np.eye(K) / np.sqrt(K), simplex_etf(K).numpy()
    of_weight, of_means = (frame.numpy() for frame in seli(np.bincount(y)))
    logits, nearest = H @ W.T + b, ((H[:, None] - m) ** 2).sum(2).argmin(1)
    decided = logits.argmax(1)
    minority = y >= 3
    norm = np.linalg.norm
    expected = {
        "nc2_means_etf": norm(unit(M @ M.T) - etf),
        "nc2_means_of": norm(unit(m @ m.T) - of),
        "nc2_means_seli": norm(unit(M @ M.T) - of_means),
        "nc2_weight_etf": norm(unit(V @ V.T) - etf),
        "nc2_weight_of": norm(unit(W @ W.T) - of),
        "nc2_weight_seli": norm(unit(V @ V.T) - of_weight),
        "nc3_etf": norm(unit(V @ M.T) - etf),
        "nc3_etf_uncentred": norm(unit(W @ M.T) - etf),
        "nc3_of": norm(unit(W @ m.T) - of),
        "nc3_duality": norm(unit(V) - unit(M)),
        "nc3_duality_of": norm(unit(W) - unit(m)),
        "nc3_cosine": np.mean(1 - (V * M).sum(1) / (norm(V, axis=1) * norm(M, axis=1))),
        "equinorm_means": norm(M, axis=1).std() / norm(M, axis=1).mean(),
        "norm_means_majority": norm(M[A], axis=1).mean(),
        "norm_weight_minority": norm(V[B], axis=1).mean(),
        "norm_ratio_weight": norm(V[A], axis=1).mean() / norm(V[B], axis=1).mean(),
        "nc4": (decided == nearest).mean(),
        "nc4_minority": (decided == nearest)[minority].mean(),
        "accuracy": (decided == y).mean(),
        "accuracy_minority": (decided == y)[minority].mean(),
        "centre_accuracy": (nearest == y).mean(),
        "centre_accuracy_majority": (nearest == y)[~minority].mean(),
    }
    moments = Moments.of(*map(torch.from_numpy, (H, y)), K, torch.from_numpy(W), torch.from_numpy(b))
    found = collapse_metrics(moments, torch.from_numpy(W), torch.from_numpy(b), majority=A)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("scatter", ["class", "pooled"])
def test_each_sample_is_decided_for_itself(scatter):
    K = 6
    H, y = random_features(K, 4, 400, seed=6, spread=3.0)
    rng = np.random.default_rng(6)
    W, b = rng.normal(size=(K, 4)), rng.normal(size=K)
    m = np.stack([H[y == k].mean(0) for k in range(K)])
    decided, nearest = (H @ W.T + b).argmax(1), ((H[:, None] - m) ** 2).sum(2).argmin(1)
    of_mean = (m @ W.T + b).argmax(1)[y]
    assert (decided == of_mean).mean() < 0.5  # the class mean's decision would not do for the sample's
    W, b = torch.from_numpy(W), torch.from_numpy(b)
    moments = Moments.of(torch.from_numpy(H), torch.from_numpy(y), K, W, b, scatter=scatter)
    found = class_metrics(moments, W, b)
    assert found["nc4"].tolist() == pytest.approx([(decided == nearest)[y == k].mean() for k in range(K)])
    assert found["accuracy"].tolist() == pytest.approx([(decided == y)[y == k].mean() for k in range(K)])


@pytest.mark.parametrize("spread", [0.01, 0.5, 3.0])
def test_nearest_means_are_those_of_the_distances(spread):
    H, y = random_features(7, 5, 300, seed=5, spread=spread)
    m = np.stack([H[y == k].mean(0) for k in range(7)])
    nearest = ((H[:, None] - m) ** 2).sum(2).argmin(1)
    found = class_metrics(Moments.of(torch.from_numpy(H), torch.from_numpy(y), 7))["centre_accuracy"]
    assert found.tolist() == pytest.approx([(nearest == y)[y == k].mean() for k in range(7)])


def test_nc4_is_of_the_classifier_of_the_second_pass_or_undefined():
    generator = torch.Generator().manual_seed(0)
    K, d = 4, 6
    H, y = map(torch.from_numpy, random_features(K, d, 80, seed=7))
    W, b = torch.randn(K, d, generator=generator), torch.randn(K, generator=generator)
    moments = Moments.of(H, y, K, W, b)
    assert np.isfinite(collapse_metrics(moments, W.double(), b.double())["nc4"])
    beside = torch.linalg.svd(moments.means)[2][K:].float()  # what no class mean has a part in
    own = torch.stack([torch.linalg.svd(mean[None])[2][-1] for mean in moments.means]).float()
    for V, c in (
        (W + 5 * own, b),  # the same logit for each class at its own mean
        (W + 5 * torch.randn(K, d - K, generator=generator) @ beside, b),  # the same logits at all means
        (W + 1e-4 * beside[0], b),
        (W[[1, 0, 2, 3]], b[[1, 0, 2, 3]]),
        (W[:, [1, 0, 2, 3, 4, 5]], b),
        (W, b[[1, 0, 2, 3]]),
        (W, None),
    ):
        found = collapse_metrics(moments, V, c)
        assert np.isnan([found["nc4"], found["accuracy"]]).all()
        assert "another classifier" in found.reasons["nc4"]


@pytest.mark.parametrize(("times_the_cut", "rank"), [(3, 2), (1 / 3, 1)])
def test_the_rank_leaves_out_what_rounding_explains_and_no_more(times_the_cut, rank):
    # Means (-1, 0), (1, 0) and (0, s): singular values sqrt(2) and s sqrt(2/3); norm sqrt(2).
    cut = 4 * np.finfo(float).eps * np.sqrt(2)
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, times_the_cut * cut / np.sqrt(2 / 3)]], dtype=torch.float64)
    assert collapse_metrics(Moments.of(means.repeat(2, 1), torch.arange(6) % 3, 3))["nc1_rank"] == rank


@pytest.mark.parametrize(
    ("scale", "said"),
    [(1e160, "class 0, 1, 2 are so large"), (1e200, "so large"), (1e-160, "so small"), (1e-300, "so small")],
)
def test_features_whose_squares_leave_float64_are_called_that(scale, said):
    H, y = map(torch.from_numpy, random_features(3, 8, 30, seed=8))
    truth = dxd_nc1(H.numpy(), y.numpy(), 3)
    found = collapse_metrics(Moments.of(scale * H, y, 3))
    for name in ("nc1", "trace_ratio", "nc2_means_etf", "cdnv", "nc1_rank"):
        assert np.isnan(found[name])
        assert said in found.reasons[name]
    for harmless in (1e140, 1e-130):
        assert collapse_metrics(Moments.of(harmless * H, y, 3))["nc1"] == pytest.approx(truth, rel=1e-10)
    H[y == 1, 2] += 1e160
    assert "class 1 are so large" in collapse_metrics(Moments.of(H, y, 3)).reasons["nc1"]


@pytest.mark.parametrize(
    ("scale", "said"), [(1e-200, "so small that squares underflow"), (1e200, "so large that squares")]
)
def test_a_classifier_whose_squares_leave_float64_is_called_that(scale, said):
    generator = torch.Generator().manual_seed(0)
    H, W = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (60, 4))
    y = torch.arange(60) % 4
    usual = collapse_metrics(Moments.of(H, y, 4, W), W, majority=[0])
    found = collapse_metrics(Moments.of(H, y, 4, scale * W), scale * W, majority=[0])
    changed = {name for name in usual if found[name] != pytest.approx(usual[name], rel=1e-9, nan_ok=True)}
    assert changed >= {"nc2_weight_etf", "nc3_duality", "nc3_duality_of", "tirer2022_nc3_of"}
    assert all(math.isnan(found[name]) and said in found.reasons[name] for name in changed)
