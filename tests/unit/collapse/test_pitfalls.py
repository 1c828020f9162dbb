"""The cases in which public tools return wrong numbers: each fails with the naive formula and holds here.

The letters are those of the list of pitfalls that the anchors' measurements gave. `naive` is the
formula as it is usually written: d×d covariances and a pseudo-inverse in float32, weighted mean.
`exact_nc1` is the independent truth: float64, about the final means, rank K - 1.
"""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import svds

from eqcollapse.collapse import Moments, class_metrics, collapse_metrics, simplex_etf


def naive(features, labels, num_classes):
    """NC1 by d×d matrices in float32, mean weighted by samples."""
    H, N = features.float(), len(features)
    means = torch.stack([H[labels == k].mean(0) for k in range(num_classes)])
    centred, within = means - H.mean(0), H - means[labels]
    S_B, S_W = centred.T @ centred / num_classes, within.T @ within / N
    return float(torch.trace(S_W @ torch.linalg.pinv(S_B))) / num_classes


def exact_nc1(features, labels, num_classes):
    """NC1 in float64 by numpy's SVD of the centred means."""
    H, y = features.double().numpy(), labels.numpy()
    means = np.stack([H[y == k].mean(0) for k in range(num_classes)])
    _, s, rows = np.linalg.svd(means - means.mean(0), full_matrices=False)
    rank = num_classes - 1
    coordinates = (H - means[y]) @ rows[:rank].T / s[:rank]
    return (coordinates**2).sum() / len(H)


def etf_rows(num_classes, dim, generator):
    """Rows of a simplex ETF in general orientation, K×d float64, of unit length."""
    basis = torch.linalg.qr(torch.randn(dim, num_classes, generator=generator, dtype=torch.float64))[0]
    rows = (torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes) @ basis.T
    return rows / torch.linalg.norm(rows, dim=1, keepdim=True)


def samples(means, counts, noise, generator):
    """Features with the class `means` (K×d), `counts` and isotropic `noise`."""
    labels = torch.repeat_interleave(torch.arange(len(means)), torch.as_tensor(counts))
    wobble = torch.randn(len(labels), means.shape[1], generator=generator, dtype=torch.float64)
    return means[labels] + noise * wobble, labels


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_a_variance_below_float32_beside_a_common_offset(generator):
    H, y = samples(etf_rows(10, 32, generator) + 10, [40] * 10, 1e-7, generator)
    H = H.float()
    truth = exact_nc1(H, y, 10)
    assert truth < 1e-11
    assert naive(H, y, 10) > 2 * truth
    assert collapse_metrics(Moments.of(H, y, 10))["nc1"] == pytest.approx(truth, rel=1e-8)


def test_b_global_mean_that_disagrees_with_the_class_means(generator):
    H, y = samples(etf_rows(10, 64, generator) + 3, [100] * 10, 0.03, generator)
    H = H.float()
    means = torch.stack([H[y == k].mean(0) for k in range(10)]).double()
    centred, within = means - H.mean(0).double(), H.double() - means[y]
    spurious = torch.trace(within.T @ within / len(H) @ torch.linalg.pinv(centred.T @ centred / 10)) / 10
    truth = exact_nc1(H, y, 10)
    assert spurious > 1e3 * truth
    assert collapse_metrics(Moments.of(H, y, 10))["nc1"] == pytest.approx(truth, rel=1e-10)


def test_c_nc1_is_never_negative_when_the_noise_lies_outside_the_means_span(generator):
    K, d = 10, 64
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0].T
    spread = torch.logspace(-1, -2.2, K - 1, dtype=torch.float64)
    inside = torch.linalg.qr(torch.randn(K, K - 1, generator=generator, dtype=torch.float64))[0]
    H, y = samples((inside * spread) @ basis[: K - 1], [100] * K, 0.0, generator)
    outside = 3 * torch.randn(len(H), d - K + 1, generator=generator, dtype=torch.float64) @ basis[K - 1 :]
    for k in range(K):  # the noise leaves the class means where they are
        outside[y == k] -= outside[y == k].mean(0)
    H = (H + outside).float()
    truth = exact_nc1(H, y, K)
    assert naive(H, y, K) < 0 or abs(naive(H, y, K) / truth - 1) > 1
    assert collapse_metrics(Moments.of(H, y, K))["nc1"] == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("squeeze", [1e-3, 1e-4])
def test_d_minority_means_that_fall_together(generator, squeeze):
    means = etf_rows(10, 64, generator)
    means[3:] = means[3:].mean(0) + squeeze * (means[3:] - means[3:].mean(0))
    H, y = samples(means, [500] * 3 + [50] * 7, 1e-4, generator)
    H = H.float()
    truth = exact_nc1(H, y, 10)
    assert naive(H, y, 10) < 0.1 * truth
    found = collapse_metrics(Moments.of(H, y, 10), majority=[0, 1, 2])
    assert found["nc1"] == pytest.approx(truth, rel=1e-8)
    assert found["nc1_rank"] == 9
    assert found["nc1_eigenvalue_ratio"] < 2 * squeeze**2
    assert found["nc1_minority"] == pytest.approx(exact_nc1(H[y >= 3], y[y >= 3] - 3, 7), rel=1e-8)
    assert found["nc1_majority"] == pytest.approx(exact_nc1(H[y < 3], y[y < 3], 3), rel=1e-8)
    assert found["nc1_minority"] > 1e3 * found["nc1_majority"]


def test_r_nc1_of_a_collapsed_minority_is_set_by_its_size_and_the_trace_ratio_is_not(generator):
    means = etf_rows(10, 64, generator)
    means[3:] = means[3:].mean(0)
    found = []
    for size in (500, 50):
        H, y = samples(means, [500] * 3 + [size] * 7, 0.05, generator)
        found.append(collapse_metrics(Moments.of(H, y, 10)))
        assert found[-1]["nc1"] == pytest.approx(exact_nc1(H, y, 10), rel=1e-9)
        assert found[-1]["nc1_eigenvalue_ratio"] < 1e-2  # the sign that nc1 means little here
    assert found[0]["nc1"] > 5 * found[1]["nc1"]
    assert found[0]["trace_ratio"] == pytest.approx(found[1]["trace_ratio"], rel=0.1)


@pytest.mark.parametrize("large", [3, 5, 7])
def test_e_a_perfect_etf_does_not_look_collapsed_because_classes_differ_in_size(generator, large):
    means = etf_rows(10, 32, generator)
    H, y = samples(means, [500] * large + [5] * (10 - large), 0.0, generator)
    weighted = means - H.mean(0)
    gram = weighted @ weighted.T
    assert torch.linalg.norm(gram / torch.linalg.norm(gram) - simplex_etf(10)) > 0.3
    moments = Moments.of(H, y, 10, means)
    found = collapse_metrics(moments, means, majority=list(range(large)))
    assert found["nc2_means_etf"] < 1e-14
    assert found["cos_means_minority"] == pytest.approx(-1 / 9, abs=1e-14)
    assert found["nc1"] < 1e-28
    assert collapse_metrics(moments, means, mean="weighted")["nc2_means_etf"] > 0.3


def test_f_an_offset_of_all_classifier_rows_is_not_seen(generator):
    W = etf_rows(10, 32, generator) + 0.5
    H, y = samples(W - 0.5, [5] * 10, 0.1, generator)
    found = collapse_metrics(Moments.of(H, y, 10, W), W)
    assert found["nc2_weight_etf"] < 1e-14
    assert found["nc2_weight_etf_uncentred"] > 0.5
    assert collapse_metrics(Moments.of(H, y, 10, W), W, center_weight=False)["nc2_weight_etf"] > 0.5


def test_g_a_missing_class_is_left_out_and_a_single_sample_has_no_variance(generator):
    means = etf_rows(5, 16, generator)
    H, y = samples(means, [20, 20, 20, 0, 1], 0.1, generator)
    found = collapse_metrics(Moments.of(H, y, 5, means), means, majority=[0, 1])
    kept = torch.tensor([0, 1, 2, 0, 3])[y]
    with_zero = torch.stack([H[y == k].mean(0) if (y == k).any() else torch.zeros_like(H[0]) for k in range(5)])
    gram = (with_zero - with_zero.mean(0)) @ (with_zero - with_zero.mean(0)).T
    naive_nc2 = torch.linalg.norm(gram / torch.linalg.norm(gram) - simplex_etf(5))
    assert abs(naive_nc2 - found["nc2_means_etf"]) > 0.1  # the missing class read as a class at the origin
    assert found["classes"] == 4
    assert found["nc1"] == pytest.approx(exact_nc1(H, kept, 4), rel=1e-12)
    alone = collapse_metrics(Moments.of(H, kept, 4, means[[0, 1, 2, 4]]), means[[0, 1, 2, 4]], majority=[0, 1])
    for name in ("nc2_means_etf", "nc2_means_seli", "nc3_etf", "nc3_duality", "cdnv", "nc1_minority", "nc4"):
        assert found[name] == pytest.approx(alone[name], rel=1e-12), name
    classes = class_metrics(Moments.of(H, y, 5, means), means)
    assert classes["variance"].isnan().tolist() == [False, False, False, True, True]
    assert classes["nc1"].isnan().tolist() == [False, False, False, True, True]
    assert classes["accuracy"].isnan().tolist() == [False, False, False, True, False]


def test_g_all_classes_of_one_sample_are_no_perfect_collapse(generator):
    H, y = samples(etf_rows(5, 16, generator), [1] * 5, 0.1, generator)
    found = collapse_metrics(Moments.of(H, y, 5))
    assert np.isnan([found["nc1"], found["trace_ratio"], found["cdnv"]]).all()
    assert found.reasons["nc1"] == "no class has two samples"
    assert np.isfinite(found["nc2_means_etf"])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_h_dead_features_are_undefined_not_collapsed(value):
    H, y = torch.full((50, 8), value), torch.arange(50) % 5
    W = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert naive(H, y, 5) < 1e-6  # a perfect collapse
    found = collapse_metrics(Moments.of(H, y, 5, W), W, majority=[0])
    for name in ("nc1", "trace_ratio", "cdnv", "nc2_means_etf", "nc3_etf", "nc3_duality", "equinorm_means"):
        assert np.isnan(found[name]), name
        assert "coincide" in found.reasons[name], name
    assert found["nc1_rank"] == 0
    assert found["accuracy"] == pytest.approx(0.2)
    assert np.isfinite(found["nc2_weight_etf"])


def test_h_one_dead_class_and_dead_columns_leave_the_rest_defined(generator):
    H, y = samples(etf_rows(5, 16, generator), [20] * 5, 0.1, generator)
    H[y == 2] = 0
    H[:, 3:6] = 0
    found = collapse_metrics(Moments.of(H, y, 5, torch.eye(5, 16)), torch.eye(5, 16), majority=[0, 1])
    assert found["nc1"] == pytest.approx(exact_nc1(H, y, 5), rel=1e-12)
    assert not [name for name, value in found.items() if np.isnan(value)]


def test_i_the_bias_decides_too_and_a_large_offset_does_not_blur_distances(generator):
    means = etf_rows(10, 32, generator)
    H, y = samples(means, [50] * 10, 0.05, generator)
    shifted = (H + 1000).float()
    bias = -1000 * means.sum(1)  # undoes the shift in the logits
    found = collapse_metrics(Moments.of(shifted, y, 10, means, bias), means, bias)
    assert found["nc4"] == found["centre_accuracy"] == 1
    without = collapse_metrics(Moments.of(shifted, y, 10, means), means)
    assert without["nc4"] < 0.5
    m = torch.stack([shifted[y == k].mean(0) for k in range(10)])
    squared = (shifted**2).sum(1)[:, None] + (m**2).sum(1) - 2 * shifted @ m.T
    assert (squared.argmin(1) == y).float().mean() < 0.9


def test_j_small_variance_beside_a_large_mean_is_not_lost():
    H = (100 + 1e-4 * torch.randn(4000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).float()
    y = torch.arange(4000) % 2
    expected = [H[y == k].double().numpy().var(0).sum() for k in (0, 1)]
    one_pass = [float((H[y == k] ** 2).sum(1).mean() - (H[y == k].mean(0) ** 2).sum()) for k in (0, 1)]
    assert abs(one_pass[0] / expected[0] - 1) > 0.1
    moments = Moments(2, 8)
    moments.update(H, y)
    assert (moments.traces / moments.counts).tolist() == pytest.approx(expected, rel=1e-9)


def test_k_cdnv_across_is_the_mean_over_pairs_of_majority_and_minority(generator):
    H, y = torch.randn(90, 4, generator=generator, dtype=torch.float64), torch.arange(90) % 3
    mean = [H[y == k].mean(0) for k in range(3)]
    variance = [(H[y == k] - mean[k]).square().sum(1).mean() for k in range(3)]
    pairs = [(variance[i] + variance[j]) / (2 * (mean[i] - mean[j]).square().sum()) for i, j in ((0, 2), (1, 2))]
    found = collapse_metrics(Moments.of(H, y, 3), majority=[0, 1])["cdnv_across"]
    assert found == pytest.approx(float(sum(pairs)) / 2, rel=1e-12)


@pytest.mark.parametrize("far", [1e6, 1e10, 1e13, 1e17, 1e30])
def test_k_cdnv_of_a_pair_is_not_blurred_by_a_class_far_away(generator, far):
    means = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    means[2] *= far
    H, y = samples(means, [20] * 3, 0.1, generator)
    m = torch.stack([H[y == k].mean(0) for k in range(3)])
    v = [(H[y == k] - m[k]).square().sum(1).mean() for k in (0, 1)]
    truth = float((v[0] + v[1]) / (2 * (m[0] - m[1]).square().sum()))
    centred = m - m.mean(0)
    if far >= 1e13:
        assert abs(float((v[0] + v[1]) / (2 * (centred[0] - centred[1]).square().sum())) / truth - 1) > 1e-7
    found = collapse_metrics(Moments.of(H, y, 3), majority=[2])
    assert found["cdnv_minority"] == pytest.approx(truth, rel=1e-12)


def test_k_cdnv_of_means_that_only_rounding_tells_apart_is_undefined(generator):
    H, y = torch.randn(90, 4, generator=generator, dtype=torch.float64) + 3, torch.arange(3).repeat_interleave(30)
    H[y == 1] = H[y == 0].flip(0)  # the same samples in another order
    moments = Moments.of(H, y, 3)
    assert 0 < float((moments.means[0] - moments.means[1]).norm()) < 1e-14
    found = collapse_metrics(moments, majority=[0, 1])
    assert np.isnan(found["cdnv_majority"])
    assert "coincide" in found.reasons["cdnv_majority"]


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_k_cdnv_of_two_classes_on_one_point_is_undefined_collapsed_or_not(generator, noise):
    """Two collapsed classes on one point are 0/0, and no pair to be left out: nothing tells these classes apart."""
    means = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    y = torch.arange(4).repeat_interleave(10)
    spread = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    H = means[y] + noise * torch.cat([spread, -spread]).repeat(4, 1)
    for majority, name in (([0, 1], "cdnv_majority"), ([2, 3], "cdnv_minority"), ([0, 2], "cdnv_across")):
        found = collapse_metrics(Moments.of(H, y, 4), majority=majority)
        for metric in ("cdnv", name):
            assert np.isnan(found[metric]), metric
            assert "two class means coincide" in found.reasons[metric]


def test_k_cdnv_leaves_out_a_class_of_one_sample_even_on_a_mean(generator):
    H, y = torch.randn(41, 4, generator=generator, dtype=torch.float64), torch.arange(41) // 20
    found = [Moments.of(H[:40], y[:40], 3), Moments.of(torch.cat([H[:40], H[:20].mean(0, keepdim=True)]), y, 3)]
    whole, beside = (collapse_metrics(moments, majority=[0])["cdnv"] for moments in found)
    assert beside == pytest.approx(whole, rel=1e-12)


def test_a_bias_that_is_not_finite_is_named(generator):
    H, y = torch.randn(30, 4, generator=generator), torch.arange(30) % 3
    weight, bias = torch.randn(3, 4, generator=generator), torch.tensor([0.0, float("nan"), 1.0])
    metrics = collapse_metrics(Moments.of(H, y, 3, weight, bias), weight, bias)
    assert metrics.reasons["nc4"] == "the classifier's bias is not finite"


@pytest.mark.parametrize(("magnitude", "count"), [(1e150, 12), (1e200, 12), (1.7e308, 6)])
@pytest.mark.parametrize("scatter", ["class", "pooled"])
def test_features_near_the_largest_float_are_undefined_and_no_exception(generator, magnitude, count, scatter):
    H, y = (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1) * magnitude, torch.arange(count) % 6
    if count == 6:
        with pytest.raises(RuntimeError, match=r"linalg\.svd"):
            torch.linalg.svd(H - H.mean(0))
    moments = Moments.of(H, y, 6, H[:6], scatter=scatter)
    found = collapse_metrics(moments, H[:6], majority=[0])
    assert np.isnan([found["nc1"], found["cdnv"], found["nc4"]]).all()
    assert "so large that squares overflow" in found.reasons["nc1"]
    assert {name for name, value in found.items() if np.isnan(value)} <= found.reasons.keys()
    again = collapse_metrics(Moments.from_tensors(moments.tensors()), H[:6], majority=[0])
    assert repr(again) == repr(found)


def test_k_cdnv_of_every_number_of_classes_is_the_mean_over_pairs(generator):
    for K in (2, 3, 10):
        H, y = samples(etf_rows(K, 16, generator), [7] * K, 0.3, generator)
        m = [H[y == k].mean(0) for k in range(K)]
        v = [((H[y == k] - m[k]) ** 2).sum(1).mean() for k in range(K)]
        pairs = [(v[i] + v[j]) / (2 * ((m[i] - m[j]) ** 2).sum()) for i in range(K) for j in range(K) if i != j]
        if K % 3 == 1:  # in tiles of three, a last one of one class loses its axis
            with pytest.raises(RuntimeError):
                _ = [torch.stack(m[i : i + 3]).squeeze()[:, None] - torch.stack(m) for i in range(0, K, 3)]
        assert collapse_metrics(Moments.of(H, y, K))["cdnv"] == pytest.approx(float(sum(pairs)) / len(pairs), rel=1e-12)


def test_l_the_callers_tensors_are_left_as_they_are(generator):
    H, y = samples(etf_rows(5, 8, generator), [5] * 5, 0.3, generator)
    W, b = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    given = [H, y, W, b]
    before = [tensor.clone() for tensor in given]
    copied, sums = H.clone(), {}
    for label, row in zip(y.tolist(), copied, strict=True):
        if label in sums:
            sums[label] += row
        else:
            sums[label] = row  # the naive sum is the caller's first sample
    assert not torch.equal(copied, H)
    moments = Moments.of(H, y, 5, W, b)
    moments.tensors()["means"].zero_()
    first = collapse_metrics(moments, W, b, majority=[0])
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))
    H.zero_()
    assert collapse_metrics(moments, W, b, majority=[0]) == first


def test_m_equal_means_and_too_few_dimensions_give_the_pseudo_inverse_every_time(generator):
    means = etf_rows(5, 16, generator)
    H, y = samples(means, [40] * 5, 0.1, generator)
    H[y == 4] = H[y == 3]
    found = collapse_metrics(Moments.of(H, y, 5))
    m = torch.stack([H[y == k].mean(0) for k in range(5)])
    c, w = m - m.mean(0), H - m[y]
    S_B = c.T @ c / 5
    truth = torch.trace(w.T @ w / len(H) @ torch.linalg.pinv(S_B, hermitian=True, rtol=1e-12)) / 5
    left, s, _ = svds(S_B.numpy(), k=4, v0=np.ones(16))
    projected = left.T @ (w.T @ w / len(H)).numpy() @ left
    assert abs(np.trace(projected / s) / 5 / float(truth) - 1) > 1  # K - 1 directions, of which one is not there
    assert found["nc1"] == pytest.approx(float(truth), rel=1e-10)
    assert found["nc1_rank"] == 3
    assert "3 of 4" in found.reasons["nc1_rank"]
    assert collapse_metrics(Moments.of(H, y, 5)) == found or np.isnan(list(found.values())).any()
    with pytest.raises(ValueError, match="k"):
        svds(S_B[:3, :3].numpy(), k=4)
    flat = collapse_metrics(Moments.of(H[:, :3], y, 5))
    assert flat["nc1_rank"] == 3
    assert np.isfinite(flat["nc1"])


def test_n_deviations_do_not_cancel():
    means = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).repeat_interleave(2, 0)
    cosines = (means @ means.T)[::2, ::2]
    signed = (cosines + 1 / 3)[~torch.eye(4, dtype=torch.bool)].mean()
    assert abs(signed) < 1e-6  # an ETF, by a mean of signed deviations
    found = collapse_metrics(Moments.of(means, torch.arange(4).repeat_interleave(2), 4))
    assert found["equiangle_means"] == pytest.approx(4 / 9)  # mean of |0 + 1/3| twice and |-1 + 1/3| once
    uneven = torch.diag(torch.tensor([1.0, np.e, 1.0])) + 0.0
    W = uneven - uneven.mean(0)
    norms = torch.linalg.norm(W.double(), dim=1).numpy()
    found = collapse_metrics(Moments.of(uneven, torch.arange(3), 3, W), W)
    assert found["equinorm_weight"] == pytest.approx(norms.std() / norms.mean())
    assert found["equinorm_weight"] > 0.1


@pytest.mark.parametrize("majority", [[0, 1, 2], [9, 4, 1, 0, 2, 7, 5]])
def test_o_groups_of_any_size_and_place_are_averaged_whole(generator, majority):
    W = torch.randn(10, 16, generator=generator, dtype=torch.float64)
    H, y = samples(W, [4] * 10, 0.1, generator)
    found = collapse_metrics(Moments.of(H, y, 10, W), W, majority=majority)
    rows = (W - W.mean(0)).numpy()
    cosine = rows @ rows.T / np.outer(*[np.linalg.norm(rows, axis=1)] * 2)
    minority = [k for k in range(10) if k not in majority]
    if len(majority) == 3:  # by indices into a block of the other group's size: three of seven minority classes
        block = cosine[np.ix_(minority, minority)][np.triu_indices(len(majority), 1)]
        assert abs(block.mean() - found["cos_weight_minority"]) > 0.01
    for group, members in (("majority", majority), ("minority", minority)):
        pairs = [cosine[i, j] for i in members for j in members if i != j]
        assert found[f"cos_weight_{group}"] == pytest.approx(np.mean(pairs), rel=1e-12)
        assert found[f"angle_weight_{group}"] == pytest.approx(np.degrees(np.arccos(pairs)).mean(), rel=1e-12)
    assert found["cos_weight_across"] == pytest.approx(cosine[np.ix_(majority, minority)].mean(), rel=1e-12)


def test_q_a_second_pass_over_other_samples_is_noticed(generator):
    H, y = samples(etf_rows(5, 8, generator), [50] * 5, 0.3, generator)
    for other, said in (
        (H[:200], "200 samples, the first 250"),
        (H + 0.3 * torch.randn_like(H), "other features"),
    ):
        moments = Moments(5, 8)
        moments.update(H, y)
        moments.second_pass()
        moments.update(other, y[: len(other)])
        found = collapse_metrics(moments)
        assert np.isnan(found["nc1"])
        assert said in found.reasons["nc1"]
        assert np.isfinite(found["nc2_means_etf"])
    means = torch.stack([H[y == k].mean(0) for k in range(5)])
    centred, within = means - means.mean(0), other - means[y]  # the naive two passes give a number all the same
    mixed = torch.trace(within.T @ within / len(H) @ torch.linalg.pinv(centred.T @ centred / 5)) / 5
    assert abs(mixed / exact_nc1(H, y, 5) - 1) > 0.5


def second_pass_over(first, second, labels, num_classes):
    """NC1 where the second pass saw `second`, and why it is nan."""
    moments = Moments(num_classes, first.shape[1])
    moments.update(first, labels)
    moments.second_pass()
    moments.update(second, labels)
    found = collapse_metrics(moments)
    return found["nc1"], found.reasons.get("nc1", "")


@pytest.fixture
def squeezed(generator):
    """Minority means a thousandth of the others' distance apart, and wide noise outside the means' span."""
    K, d = 10, 32
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    means = (torch.eye(K, dtype=torch.float64) - 1 / K) @ basis[:, :K].T
    means[3:] = means[3:].mean(0) + 1e-3 * (means[3:] - means[3:].mean(0))
    H, y = samples(means, [200] * 3 + [30] * 7, 1e-4, generator)
    H += 0.1 * torch.randn(len(y), d - K, generator=generator, dtype=torch.float64) @ basis[:, K:].T
    for k in range(K):  # the wide noise leaves the class means where they are
        H[y == k] += means[k] - H[y == k].mean(0)
    return H, y


def swapped(H):
    """The last sample of class 2 and the first of class 3, each under the other's label."""
    order = torch.arange(len(H))
    order[[599, 600]] = order[[600, 599]]
    return H[order]


@pytest.mark.parametrize(
    "change",
    [
        lambda H: H.bfloat16(),
        lambda H: H.half(),
        lambda H: H + 2e-5,
        lambda H: (1 + 1e-3) * H,
        lambda H: H * (torch.rand(H.shape, generator=torch.Generator().manual_seed(1)) > 1e-3),
        lambda H: H[:, torch.arange(H.shape[1]).roll(1)],
        swapped,
    ],
)
def test_q_a_second_pass_over_features_made_otherwise_gives_no_nc1(squeezed, change):
    H, y = squeezed
    found, reason = second_pass_over(H, change(H), y, 10)
    assert np.isnan(found)
    assert "other features" in reason


def test_q_a_second_pass_over_wider_classes_gives_no_nc1(squeezed):
    H, y = squeezed
    means = torch.stack([H[y == k].mean(0) for k in range(10)])[y]
    found, reason = second_pass_over(H, means + 1.01 * (H - means), y, 10)
    assert np.isnan(found)
    assert "other features" in reason


def test_q_noise_between_the_passes_is_harmless_or_noticed(squeezed):
    H, y = squeezed
    truth, changed = exact_nc1(H, y, 10), []
    for size in np.logspace(-9, -2, 15):
        noise = torch.randn(H.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        changed.append(second_pass_over(H, H + size * noise, y, 10)[0])
        assert np.isnan(changed[-1]) or changed[-1] == pytest.approx(truth, rel=1e-3)
    assert changed[0] == pytest.approx(truth, rel=1e-6)
    assert np.isnan(changed[8:]).all()  # from 1e-5 on, a tenth of the noise in the means' span


@pytest.mark.parametrize(("share", "noticed"), [(1e-3, True), (1e-5, False)])
def test_q_a_shift_is_allowed_to_explain_a_ten_thousandth_of_the_variance(generator, share, noticed):
    H, y = samples(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), [100, 100], 0.1, generator)
    scatter = float((H[y == 0] - H[y == 0].mean()).square().sum())
    found, _ = second_pass_over(H, H + (y == 0)[:, None] * (share * scatter) ** 0.5 / 100, y, 2)
    assert np.isnan(found) == noticed


@pytest.mark.parametrize("size", [1e-9, 1e-11])
def test_q_noise_beside_collapsed_classes_is_noticed(generator, size):
    H, y = samples(etf_rows(5, 16, generator), [50] * 5, size, generator)
    noise = size * torch.randn(H.shape, generator=generator, dtype=torch.float64)
    assert np.isnan(second_pass_over(H, H + noise, y, 5)[0])


@pytest.mark.parametrize(
    ("offset", "noise"), [(0.0, 0.0), (0.0, 1.0), (10.0, 1e-14), (1e3, 0.0), (1e3, 1e-12), (1e9, 1.0)]
)
def test_q_the_same_samples_are_recognised_in_other_batches_and_merged(generator, offset, noise):
    H, y = samples(etf_rows(6, 16, generator) + offset, [300, 200, 50, 20, 2, 1], noise, generator)
    H[0] += 1e3 * noise  # where the first pass centres its sums
    merged = Moments(6, 16)
    for part in torch.randperm(len(y), generator=generator).split(50):
        one = Moments(6, 16)
        one.update(H[part], y[part])
        merged.merge(one)
    merged.second_pass()
    merged.update(H.flip(0), y.flip(0))
    assert merged.incomplete is None
    assert collapse_metrics(merged)["nc1"] >= 0
