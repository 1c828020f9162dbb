"""Moments: any way of handing in the same samples gives the same numbers; what is stored is all
there is to it.
"""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from eqcollapse.collapse import Moments, collapse_metrics, gathering
from eqcollapse.collapse.streaming import FirstPass, SecondPass

K, D = 5, 7
COMPARED = (
    "nc1",
    "nc1_minority",
    "trace_ratio",
    "cdnv",
    "nc2_means_etf",
    "nc3_etf",
    "nc4",
    "equiangle_means",
)

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=15, deadline=None)


def drawn(seed, N=60):
    generator = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(K).repeat(2), torch.randint(0, K, (N - 2 * K,), generator=generator)])
    y = y[torch.randperm(N, generator=generator)]
    means = torch.randn(K, D, generator=generator, dtype=torch.float64)
    H = means[y] + 0.3 * torch.randn(N, D, generator=generator, dtype=torch.float64)
    W, b = torch.randn(K, D, generator=generator, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    return H, y, W, b, generator


def measured(H, y, W, b, **options):
    return collapse_metrics(Moments.of(H, y, K, W, b), W, b, majority=[0, 1], **options)


def agree(one, other, names=COMPARED, rel=1e-10):
    for name in names:
        assert one[name] == pytest.approx(other[name], rel=rel, abs=1e-13), name


@few
@given(seeds)
def test_rotations_scales_and_translations_change_no_invariant_metric(seed):
    H, y, W, b, generator = drawn(seed)
    Q = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))[0]
    scale = 10 ** float(torch.randn((), generator=generator))
    shift = 3 * torch.randn(D, generator=generator, dtype=torch.float64)
    one = measured(H, y, W, b)
    agree(one, measured(H @ Q, y, W @ Q, b))
    agree(one, measured(scale * H, y, W / scale, b))
    agree(one, measured(H + shift, y, W, b - W @ shift))


@few
@given(seeds)
def test_names_of_classes_do_not_matter(seed):
    H, y, W, b, generator = drawn(seed)
    order = torch.randperm(K, generator=generator)  # class k becomes order[k]
    renamed = torch.empty_like(W)
    renamed[order] = W
    moments = Moments.of(H, order[y], K, renamed, b)
    agree(measured(H, y, W, b), collapse_metrics(moments, renamed, b, majority=order[:2].tolist()))


@few
@given(seeds, st.lists(st.integers(1, 59), max_size=6), st.sampled_from(["class", "pooled"]))
def test_batches_and_order_of_samples_do_not_matter(seed, cuts, scatter):
    H, y, W, b, generator = drawn(seed)
    moments = Moments(K, D, scatter=scatter)
    for begin in (lambda: None, lambda: moments.second_pass(W, b)):
        begin()
        order = torch.randperm(len(y), generator=generator)
        for part in torch.tensor_split(order, sorted(cuts)):
            moments.update(H[part], y[part])
    whole = collapse_metrics(Moments.of(H, y, K, W, b, scatter=scatter), W, b, majority=[0, 1])
    found = collapse_metrics(moments, W, b, majority=[0, 1])
    names = [name for name in whole if not math.isnan(whole[name])]
    assert [name for name in found if not math.isnan(found[name])] == names
    agree(whole, found, names, rel=1e-9)


READINGS = {
    "counts": lambda moments: moments.counts,
    "means": lambda moments: moments.means,
    "traces": lambda moments: moments.traces,
    "second": lambda moments: moments.second and moments.second.counts,
    "incomplete": lambda moments: moments.incomplete,
    "tensors": lambda moments: moments.tensors()["counts"],
    "metrics": collapse_metrics,
    "merged": lambda moments: moments.merge(Moments.from_tensors(moments.tensors())).counts,
    "merged into another": lambda moments: Moments.from_tensors(moments.tensors()).merge(moments).counts,
}


@pytest.mark.parametrize("reading", READINGS)
def test_what_is_held_back_is_there_for_every_reader(monkeypatch, reading):
    H, y, W, b, _ = drawn(12)

    def read(second, *parts):
        moments = Moments(K, D)
        if second:
            moments.update(H, y)
            moments.second_pass(W, b)
        for part in parts:
            moments.update(H[part], y[part])
        return repr(READINGS[reading](moments))

    found = [read(second, *torch.arange(60).split(7)) for second in (False, True)]
    monkeypatch.setattr(gathering, "GATHERED_BYTES", 0)
    assert found == [read(second, slice(None)) for second in (False, True)]


def test_small_batches_are_taken_in_as_one_and_copied(monkeypatch):
    H, y, W, b, _ = drawn(13)
    taken = []
    for kind in (FirstPass, SecondPass):
        plain = kind.update
        monkeypatch.setattr(kind, "update", lambda *args, plain=plain: taken.append(len(args[-1])) or plain(*args))
    moments = Moments(K, D)
    for begin in (lambda: None, lambda: moments.second_pass(W, b)):
        begin()
        for part in torch.arange(60).split(5):
            batch, labels = H[part].clone(), y[part].clone()
            moments.update(batch, labels)
            batch.fill_(math.nan)
            labels.fill_(0)
        with pytest.raises(ValueError, match="outside 0"):  # at once, not when it would be taken in
            moments.update(H[:1], y[:1] + K)
    stored = moments.tensors()
    assert taken == [60, 60]
    for name, tensor in Moments.of(H, y, K, W, b).tensors().items():
        assert torch.equal(stored[name], tensor), name


@few
@given(seeds, st.lists(st.integers(1, 59), max_size=12), st.sampled_from([1, 9, 20]))
def test_batches_larger_and_smaller_than_what_is_held_back_and_of_mixed_dtypes(seed, cuts, held):
    H, y, W, b, _ = drawn(seed)
    H = H.float()
    moments = Moments(K, D)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "GATHERED_BYTES", held * D * 8)
        for begin in (lambda: None, lambda: moments.second_pass(W, b)):
            begin()
            for n, part in enumerate(torch.tensor_split(torch.arange(60), sorted(cuts))):
                moments.update(H[part].double() if n % 3 else H[part], y[part])
        agree(measured(H, y, W, b), collapse_metrics(moments, W, b, majority=[0, 1]))


def parts_of(H, y, W, b, cuts):
    """Both passes with the samples dealt to several workers, each of which sees only its own."""
    shares = torch.tensor_split(torch.arange(len(y)), cuts)
    firsts = []
    for share in shares:
        firsts.append(Moments(K, D))
        firsts[-1].update(H[share], y[share])
    return shares, firsts


@few
@given(seeds, st.permutations(range(3)))
def test_merged_parts_are_the_whole_in_any_order(seed, order):
    H, y, W, b, _ = drawn(seed)
    shares, firsts = parts_of(H, y, W, b, [7, 30])
    merged = Moments(K, D)
    for part in order:
        merged.merge(firsts[part])
    workers = []
    for share in shares:
        workers.append(Moments.from_tensors(merged.tensors()))
        workers[-1].second_pass(W, b)
        workers[-1].update(H[share], y[share])
    whole = Moments.from_tensors(workers[order[0]].tensors())
    for part in order[1:]:
        whole.merge(workers[part])
    found = collapse_metrics(whole, W, b, majority=[0, 1])
    expected = measured(H, y, W, b)
    agree(expected, found, [name for name in expected if not math.isnan(expected[name])], rel=1e-9)


def test_parts_that_do_not_belong_together_do_not_merge():
    H, y, W, *_ = drawn(0)
    with pytest.raises(ValueError, match="different first passes"):
        Moments.of(H, y, K).merge(Moments.of(H[:30], y[:30], K))
    with pytest.raises(ValueError, match="different first passes"):
        Moments.of(H, y, K).merge(Moments.of(2 * H, y, K))
    with pytest.raises(ValueError, match="different classifiers"):
        Moments.of(H, y, K, W).merge(Moments.of(H, y, K, 2 * W))
    with pytest.raises(ValueError, match="second pass"):
        Moments.of(H, y, K).merge(Moments(K, D))
    with pytest.raises(ValueError, match="do not merge"):
        Moments(K, D).merge(Moments(K, D + 1))


@pytest.mark.parametrize("scatter", ["class", "pooled"])
@pytest.mark.parametrize("classifier", [True, False])
def test_saved_and_loaded_are_the_same_bit_by_bit(tmp_path, scatter, classifier):
    H, y, W, b, _ = drawn(1)
    y[y == 3] = 2  # with a class that is missing
    W, b = (W, b) if classifier else (None, None)
    first = Moments(K, D)
    first.update(H, y)
    for moments in (first, Moments.of(H, y, K, W, b, scatter=scatter)):
        moments.save(tmp_path / "moments.safetensors")
        loaded = Moments.load(tmp_path / "moments.safetensors")
        one, other = moments.tensors(), loaded.tensors()
        assert list(one) == list(other)
        assert all(torch.equal(one[name].nan_to_num(7), other[name].nan_to_num(7)) for name in one)
        metrics = [collapse_metrics(m, W, b, majority=[0]) for m in (moments, loaded)]
        assert repr(metrics[0]) == repr(metrics[1])
        assert metrics[0].reasons == metrics[1].reasons
        again = tmp_path / "again.safetensors"
        loaded.save(again)
        assert again.read_bytes() == (tmp_path / "moments.safetensors").read_bytes()


def test_a_first_pass_that_was_loaded_goes_on():
    H, y, W, b, _ = drawn(2)
    moments = Moments(K, D)
    moments.update(H[:20], y[:20])
    moments = Moments.from_tensors(moments.tensors())
    moments.update(H[20:], y[20:])
    moments.second_pass(W, b)
    moments.update(H, y)
    agree(measured(H, y, W, b), collapse_metrics(moments, W, b, majority=[0, 1]))
    with pytest.raises(ValueError, match="merged, not continued"):
        Moments.from_tensors(moments.tensors()).update(H, y)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Moments.load(path)
    save_file({"features": torch.zeros(3, 2)}, path)
    with pytest.raises(ValueError, match=r"holds no moments.*counts"):
        Moments.load(path)


CHANGES = {
    "float32": lambda values: values.float(),
    "int32": lambda values: values.int(),
    "short": lambda values: values[:-1],
    "one number": lambda values: values.flatten()[0],
    "empty": lambda values: values[:0],
    "narrow": lambda values: values[:, :-1] if values.ndim > 1 else values[None],
    "negative": lambda values: -values - 1,
    "nan": lambda values: values * math.nan,
}
ALLOWED = {
    *((name, "negative", second) for name in ("means", "basis", "shift", "fingerprint") for second in (True, False)),
    ("fingerprint", "nan", True),
    ("means", "narrow", False),
}
"""What only the features could tell: a mirror image, a classifier that is not finite, a dimension less."""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scatter", ["class", "pooled"])
def test_stored_tensors_that_cannot_be_are_refused_by_name(change, scatter):
    H, y, W, b, _ = drawn(9)
    first = Moments(K, D)
    first.update(H, y)
    for whole in (first.tensors(), Moments.of(H, y, K, W, b, scatter=scatter).tensors()):
        for name in whole:
            if (name, change, "basis" in whole) not in ALLOWED:
                with pytest.raises(ValueError, match=rf"\b{name}\b"):
                    Moments.from_tensors(whole | {name: CHANGES[change](whole[name])})


@pytest.mark.parametrize("scatter", ["class", "pooled"])
def test_stored_tensors_are_all_there(scatter):
    H, y, W, b, _ = drawn(9)
    whole = Moments.of(H, y, K, W, b, scatter=scatter).tensors()
    for name in whole:
        said = "scatter must be 5×10" if name == "spread" else rf"missing tensors \['{name}'\], unknown tensors \[\]"
        with pytest.raises(ValueError, match=said):
            Moments.from_tensors({other: whole[other] for other in whole if other != name})
    with pytest.raises(ValueError, match=r"basis must be d×r, r < K, not 7×7"):
        Moments.from_tensors(whole | {"basis": torch.eye(D, dtype=torch.float64)})


@pytest.mark.parametrize("scatter", ["class", "pooled"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e200])
def test_features_that_are_not_finite_are_stored_as_well(scatter, value):
    H, y, W, b, _ = drawn(10)
    H[:9] *= value
    H[9] = -value
    for weight in (W, W * math.nan):
        first = Moments(K, D, scatter=scatter)
        for part in (slice(0, 5), slice(5, None)):
            one = Moments(K, D)
            one.update(H[part], y[part])
            first.merge(one)
        halves = []
        for part in (slice(0, 30), slice(30, None)):
            halves.append(Moments.from_tensors(first.tensors()))
            halves[-1].second_pass(weight, b)
            halves[-1].update(H[part], y[part])
        found = collapse_metrics(Moments.from_tensors(halves[0].merge(halves[1]).tensors()), weight, b)
        classes = ", ".join(map(str, sorted(set(y[:10].tolist()))))
        said = f"features of class {classes} are so large" if value == 1e200 else f"features of class {classes} are not"
        assert math.isnan(found["nc1"])
        assert found.reasons["nc1"].startswith(said)


def test_second_passes_with_one_classifier_that_is_not_finite_merge():
    H, y, W, b, _ = drawn(11)
    first = Moments(K, D)
    first.update(H, y)

    def part(samples, weight):
        moments = Moments.from_tensors(first.tensors())
        moments.second_pass(weight, b)
        moments.update(H[samples], y[samples])
        return moments

    for value in (math.nan, math.inf):
        broken = W.clone()
        broken[0, 0] = value
        merged = part(slice(0, 30), broken).merge(part(slice(30, None), broken))
        assert merged.incomplete is None
        assert collapse_metrics(merged)["nc1"] == pytest.approx(measured(H, y, W, b)["nc1"])
        for found in (collapse_metrics(merged), collapse_metrics(merged, broken, b)):
            assert found.reasons["nc4"] == "the classifier is not finite"
        other = broken.clone()
        other[1] += 1
        for weight in (W, other, broken.roll(1, 0)):
            with pytest.raises(ValueError, match="different classifiers"):
                part(slice(0, 30), broken).merge(part(slice(30, None), weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_every_dtype_is_accumulated_in_float64(dtype):
    H, y, *_ = drawn(3)
    H = (8 * H).to(dtype)
    moments, exact = Moments.of(H, y.int(), K), Moments.of(H.double(), y, K)
    assert all(
        torch.equal(one, other) for one, other in zip(*(m.tensors().values() for m in (moments, exact)), strict=True)
    )


def test_gradients_views_and_empty_batches_are_no_obstacle():
    H, y, W, b, _ = drawn(4)
    moments = Moments(K, D)
    moments.update(torch.empty(0, D), torch.empty(0, dtype=torch.int64))
    moments.update(H.clone().requires_grad_() * 1, y)
    moments.second_pass(W.clone().requires_grad_(), b)
    moments.update(H.T.contiguous().T, y)
    agree(measured(H, y, W, b), collapse_metrics(moments, W, b, majority=[0, 1]))
    assert not any(tensor.requires_grad for tensor in moments.tensors().values())


@pytest.mark.parametrize("inside", [(0, 2), (1, 3), (0, 1, 2, 3), (4,), (0, 4)])
def test_passes_may_go_in_and_out_of_inference_mode(inside):
    H, y, W, b, _ = drawn(7)
    moments = Moments(K, D, device="cpu" if 4 in inside else None)

    def begin():
        nonlocal moments
        assert len(moments.counts) == K
        moments.merge(Moments(K, D))
        moments = Moments.from_tensors(moments.tensors())
        moments.second_pass(W, b)

    steps = [lambda: moments.update(H[:30], y[:30]), lambda: moments.update(H[30:], y[30:])]
    for place, step in ((0, steps[0]), (1, steps[1]), (4, begin), (2, steps[0]), (3, steps[1])):
        with torch.inference_mode(place in inside):
            step()
    agree(measured(H, y, W, b), collapse_metrics(moments, W, b, majority=[0, 1]))


def test_features_made_in_inference_mode_are_taken_in():
    H, y, W, b, _ = drawn(8)
    with torch.inference_mode():
        inside, of_class, weight = H * 1, y + 0, W * 1
        empty = Moments(K, D)
        assert empty.counts.tolist() == [0] * K
    for moments in (empty, Moments(K, D)):
        moments.update(inside, of_class)
        moments.second_pass(weight, b)
        moments.update(inside, of_class)
        agree(measured(H, y, W, b), collapse_metrics(moments, W, b, majority=[0, 1]))


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (torch.zeros(4, D + 1), torch.zeros(4, dtype=torch.int64), "8 dimensions, these moments 7"),
        (torch.zeros(4, D, 1), torch.zeros(4, dtype=torch.int64), "N×d"),
        (torch.zeros(4, D), torch.zeros(3, dtype=torch.int64), "as many labels"),
        (torch.zeros(4, D), torch.zeros(4), "integers"),
        (torch.zeros(2, D), torch.tensor([0, K]), "from 0 to 5, outside 0..4"),
        (torch.zeros(2, D), torch.tensor([-1, 0]), "from -1 to 0, outside 0..4"),
    ],
)
def test_batches_that_make_no_sense_are_refused(features, labels, said):
    with pytest.raises(ValueError, match=said):
        Moments(K, D).update(features, labels)


def test_options_and_classifiers_that_make_no_sense_are_refused():
    H, y, W, b, _ = drawn(5)
    moments = Moments.of(H, y, K, W, b)
    for options in ({"mean": "median"}, {"preset": "nobody1999"}, {"majority": [0, 9]}, {"majority": [0, 0]}):
        with pytest.raises(ValueError):
            collapse_metrics(moments, W, b, **options)
    for options in ({"majority": []}, {"majority": range(K)}, {"preset": "zhu2021", "mean": "weighted"}):
        with pytest.raises(ValueError):
            collapse_metrics(moments, W, b, **options)
    for members in ([0.7], [True], torch.tensor([0.0]), ["1"]):
        with pytest.raises(ValueError, match="majority must list classes"):
            collapse_metrics(moments, W, b, majority=members)
    assert collapse_metrics(moments, majority=torch.tensor([0, 1])) == pytest.approx(
        collapse_metrics(moments, majority=[0, 1]), nan_ok=True
    )
    with pytest.raises(ValueError, match="5×7"):
        collapse_metrics(moments, W.T)
    with pytest.raises(ValueError, match="needs the weight"):
        Moments.of(H, y, K, None, b)
    with pytest.raises(ValueError, match="scatter"):
        Moments(K, D, scatter="none")


def test_every_nan_has_its_reason_and_names_never_change():
    H, y, W, b, _ = drawn(6)
    first = Moments(K, D)
    first.update(H, y)
    broken = H.clone()
    broken[0, 0] = math.nan
    left = torch.arange(D) < 4
    one_class = Moments.of(H[y == 2], y[y == 2], K, W, b)
    cases = [
        (Moments(K, D), W, b, [0]),
        (first, W, b, [0]),
        (Moments.of(H, y, K, W, b), None, None, None),
        (Moments.of(H, y, K), W, b, [0]),
        (Moments.of(H, y, K, W, b), 2 * W, b, [0]),
        (Moments.of(H, y, K, W, b), math.nan * W, b, [0]),
        (Moments.of(H, y, K, 0 * W, b), 0 * W, b, [0]),
        (Moments.of(broken, y, K, W, b), W, b, [0]),
        (one_class, W, b, [2]),
        (one_class, W, b, [0]),
        (Moments.of(H[:, :1], y, K), None, None, [0]),
        (Moments.of(H, 0 * y, 1, W[:1], b[:1]), W[:1], b[:1], None),
        (Moments.of(H * left, y, K), W * ~left, b, [0]),
    ]
    names = list(collapse_metrics(*cases[0]))
    undefined = []
    for case in cases:
        found = collapse_metrics(*case)
        assert list(found) == names
        nans = {name for name, value in found.items() if math.isnan(value)}
        assert nans <= found.reasons.keys()
        assert all(found.reasons[name] for name in nans)
        assert not any(math.isinf(value) for value in found.values())
        undefined.append((nans, found.reasons))
    assert undefined[1][1]["nc1"].startswith("needs the second pass")
    assert undefined[2][1]["nc3_etf"] == "no classifier was given"
    assert undefined[3][1]["nc4"] == "no classifier was given to the second pass"
    assert undefined[4][1]["nc4"] == "the second pass counted the decisions of another classifier"
    assert undefined[7][1]["nc1"] == f"features of class {int(y[0])} are not finite"
    assert "accuracy" not in undefined[8][0]
    assert "accuracy_majority" in undefined[9][0]
    assert "only one class" in undefined[11][1]["nc2_weight_etf"]
    assert "accuracy" not in undefined[11][0]
    assert "does not see the means" in undefined[12][1]["nc3_etf"]


def test_snapshots_stay_small():
    for num_classes, dim, limit in ((100, 512, 12e6), (10, 128, 100e3)):
        y = torch.arange(num_classes).repeat(2)
        H = torch.randn(len(y), dim, generator=torch.Generator().manual_seed(0))
        stored = Moments.of(H, y, num_classes, torch.ones(num_classes, dim)).tensors()
        assert sum(tensor.numel() * tensor.element_size() for tensor in stored.values()) < limit


@pytest.mark.parametrize("read", [False, True])
def test_copies_share_a_first_pass_and_see_a_part_each_of_the_second(read):
    features, labels = torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 2
    whole = Moments(2, 3)
    whole.update(features, labels)
    if read:
        assert whole.counts.tolist() == [20, 20]
    parts = [copy.copy(whole), copy.copy(whole)]
    for part, of in zip(parts, (slice(0, 20), slice(20, 40)), strict=True):
        part.second_pass()
        part.update(features[of], labels[of])
    assert [part.second.counts.tolist() for part in parts] == [[10, 10], [10, 10]]
    together = parts[0].merge(parts[1])
    torch.testing.assert_close(together.second.scatter, Moments.of(features, labels, 2).second.scatter)


def test_a_trace_whose_correction_overflows_is_no_collapse():
    features = torch.full((100, 1), 1e153, dtype=torch.float64)
    features[0] = 0
    moments = Moments(1, 1)
    moments.update(features, torch.zeros(100, dtype=torch.int64))
    torch.testing.assert_close(moments.traces, torch.tensor([0.99e306], dtype=torch.float64), rtol=1e-9, atol=0)
