"""The CUDA side: checked without a device by fake tensors, which know shapes and devices but no values."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eqcollapse.collapse import Moments, collapse_metrics
from eqcollapse.collapse.accumulate import add_class_scatter, add_class_scatter_dense, one_hot
from eqcollapse.collapse.streaming import FirstPass, Projection, SecondPass


class TransfersToHost(TorchDispatchMode):
    """Record the operations that take a CUDA tensor to the CPU. Reading a value is an error of the
    fake tensors.
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        came = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        left = {t.device.type for t in tree_leaves(result) if isinstance(t, torch.Tensor)}
        if "cuda" in came and "cpu" in left:
            self.found.append(str(function))
        return result


@pytest.mark.parametrize("pooled", [False, True])
def test_no_update_waits_for_the_device(pooled):
    K, d = 10, 16
    with FakeTensorMode(), TransfersToHost() as transfers:
        features = torch.empty(128, d, device="cuda", dtype=torch.bfloat16)
        labels = torch.empty(128, dtype=torch.int64, device="cuda")
        moments = Moments(K, d)
        moments.update(features, labels)
        moments.update(features, labels)
        assert moments._first.sums.device.type == "cuda"
        moments._second, moments._projection = started(K, d, pooled)
        moments.update(features, labels)
    assert transfers.found == []


def started(K, d, pooled):
    """A second pass in full swing, put together by hand: beginning one reads the means, and fake
    ones have no values.
    """
    floats = {"device": "cuda", "dtype": torch.float64}
    counts = torch.zeros(K, dtype=torch.int64, device="cuda")
    second = SecondPass(
        basis=torch.empty(d, K - 1, **floats),
        counts=counts,
        squares=torch.zeros(K, **floats),
        shift=torch.zeros(K, K - 1, **floats),
        scatter=torch.zeros(1 if pooled else K, K - 1, K - 1, **floats),
        centre_correct=counts.clone(),
        spread=torch.zeros(K, K - 1, **floats) if pooled else None,
        agreeing=counts.clone(),
        correct=counts.clone(),
        fingerprint=torch.zeros(K, 3, **floats),
    )
    projection = Projection(
        means=torch.empty(K, d, **floats),
        columns=torch.empty(d, 2 * K - 1, **floats),
        in_span=torch.empty(K, K - 1, **floats),
        squared_distances=torch.empty(K, K, **floats),
        safe=torch.empty(K, **floats),
        logits_of_means=torch.empty(K, K, **floats),
    )
    return second, projection


def test_the_products_that_cuda_uses_give_the_same_scatter():
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (50,), generator=generator).sort().values
    by_class, by_products = torch.zeros(2, 5, 4, 4, dtype=torch.float64)
    shift = torch.zeros(5, 4, dtype=torch.float64)
    add_class_scatter(by_class, shift, coordinates, labels)
    add_class_scatter_dense(by_products, coordinates, labels)
    assert torch.allclose(by_class, by_products, rtol=1e-13)
    assert torch.allclose(shift, one_hot(labels, 5).T @ coordinates, rtol=1e-13)
    assert one_hot(torch.tensor([-1, 1, 5]), 5).sum(1).tolist() == [0, 1, 0]


def test_labels_that_nobody_could_check_are_reported_on_reading():
    moments = Moments(3, 2)
    moments.update(torch.randn(4, 2), torch.tensor([0, 1, 2, 2]))
    moments._taken_in += 2  # as on CUDA, where samples with labels out of range are handed in but not counted
    with pytest.raises(ValueError, match=r"2 samples had labels outside 0\.\.2"):
        _ = moments.means


@pytest.mark.gpu
def test_cuda_and_cpu_agree_and_nothing_waits():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 16, generator=generator)
    labels = torch.randint(0, 5, (500,), generator=generator)
    weight = torch.randn(5, 16, generator=generator)
    expected = collapse_metrics(Moments.of(features, labels, 5, weight), weight, majority=[0])
    on_device = features.cuda(), labels.cuda()
    moments = Moments(5, 16)
    for begin in (lambda: None, lambda: moments.second_pass(weight.cuda())):
        begin()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for part, of_part in zip(*(tensor.split(60) for tensor in on_device), strict=True):
                moments.update(part, of_part)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert isinstance(moments._first, FirstPass)
    assert collapse_metrics(moments, weight, majority=[0]) == pytest.approx(expected, rel=1e-9, nan_ok=True)
