import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from eqcollapse.data.batches import Batches, batch_bounds, channel_statistics
from eqcollapse.runtime.errors import EqcollapseError

PLAIN = {"crop": 0, "flip": False}


def images_of(count=23, channels=3, height=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, height, width), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 4


def batches_of(images, labels, batch_size=8, seed=3, mean=None, std=None, **augment):
    channels = images.shape[1]
    mean, std = mean or [0.0] * channels, std or [1.0 / 255] * channels
    return Batches(images, labels, batch_size, mean=mean, std=std, seed=seed, **augment)


def whole(epoch):
    parts = list(epoch)
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_sample_once_with_its_label(device):
    images, _ = images_of()
    x, y = whole(batches_of(images.to(device), torch.arange(23, device=device)).epoch(0))
    assert sorted(y.tolist()) == list(range(23))
    assert torch.equal(x.cpu().round(), images[y.cpu()].float())


def test_the_order_depends_on_seed_and_epoch_alone():
    images, labels = images_of()
    augment = {"crop": 2, "flip": True}
    batches = batches_of(images, labels, **augment)
    for epoch in range(3):
        list(batches.epoch(epoch))
    again = batches_of(images, labels, **augment)
    torch.manual_seed(99)
    assert torch.equal(whole(batches.epoch(7))[0], whole(again.epoch(7))[0])
    orders = [
        tuple(whole(batches_of(images, torch.arange(23), seed=seed).epoch(epoch))[1].tolist())
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1), (10, 0), (0, 10)]
    ]
    assert len(set(orders)) == len(orders)


def test_an_interrupted_epoch_does_not_change_the_next():
    images, labels = images_of()
    batches = batches_of(images, labels)
    next(iter(batches.epoch(0)))
    assert torch.equal(whole(batches.epoch(1))[0], whole(batches_of(images, labels).epoch(1))[0])


def test_crops_and_flips_are_those_of_torchvision():
    images, _ = images_of(count=600, height=4, width=5)
    crop = 2
    x, y = whole(batches_of(images, torch.arange(600), crop=crop, flip=True).epoch(0))
    offsets = [(top, left) for top in range(2 * crop + 1) for left in range(2 * crop + 1)]
    seen = []
    for sample, index in zip(x.round().byte(), y.tolist(), strict=True):
        padded = functional.pad(images[index], [crop] * 4)
        windows = {(*offset, False): functional.crop(padded, *offset, 4, 5) for offset in offsets}
        windows |= {(*offset, True): functional.hflip(windows[*offset, False]) for offset in offsets}
        seen.append(next(how for how, window in windows.items() if torch.equal(window, sample)))
    assert len(set(seen)) == 2 * len(offsets)


def test_half_of_the_images_are_flipped():
    images, _ = images_of(count=2000, height=2, width=8)
    x, y = whole(batches_of(images, torch.arange(2000), crop=0, flip=True).epoch(0))
    kept = sum(torch.equal(sample.round().byte(), images[i]) for sample, i in zip(x, y.tolist(), strict=True))
    assert 900 < kept < 1100


def test_ordered_takes_another_batch_size_and_chosen_samples():
    images, labels = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1), torch.arange(7)
    batches = batches_of(images, labels, batch_size=2)
    assert [len(y) for _, y in batches.ordered(4)] == [4, 3]
    chosen = list(batches.ordered(2, torch.tensor([5, 0, 6])))
    assert torch.cat([y for _, y in chosen]).tolist() == [5, 0, 6]
    assert torch.equal(torch.cat([x for x, _ in chosen]), whole(batches.ordered())[0][[5, 0, 6]])
    assert list(batches.ordered(2, torch.tensor([], dtype=torch.int64))) == []


def test_augmentation_off_in_ordered():
    images, labels = images_of()
    x, y = whole(batches_of(images, labels, crop=3, flip=True).ordered())
    assert torch.equal(x.round(), images.float())
    assert torch.equal(y, labels)


def test_normalisation_matches_float64():
    images, labels = images_of()
    mean, std = channel_statistics(images, torch.arange(23))
    x, _ = whole(batches_of(images, labels, mean=mean, std=std).ordered())
    shape = (1, 3, 1, 1)
    exact = (images.double() / 255 - torch.tensor(mean).double().reshape(shape)) / torch.tensor(std).reshape(shape)
    assert torch.allclose(x.double(), exact, atol=1e-6)
    assert x.dtype == torch.float32
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(x.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_statistics_match_numpy_and_see_only_their_indices():
    images, _ = images_of(count=50)
    indices = np.array([3, 17, 4, 40])
    mean, std = channel_statistics(images, torch.from_numpy(indices))
    chosen = images.numpy()[indices].astype(np.float64) / 255
    assert np.allclose(mean, chosen.mean((0, 2, 3)), rtol=1e-14)
    assert np.allclose(std, chosen.std((0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_can_be_divided_by():
    images = torch.full((4, 1, 3, 3), 200, dtype=torch.uint8)
    mean, std = channel_statistics(images, torch.arange(4))
    assert (mean, std) == ((200 / 255,), (1 / 255,))
    with pytest.raises(EqcollapseError, match="no images"):
        channel_statistics(images, torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (9, 4, [4, 5]),
        (10, 4, [4, 4, 2]),
        (1, 4, [1]),
        (5, 4, [5]),
        (3, 1, [1, 1, 1]),
        (4, 100, [4]),
    ],
)
def test_a_last_batch_of_one_joins_the_one_before(count, batch_size, sizes):
    assert [stop - start for start, stop in batch_bounds(count, batch_size)] == sizes
    images, labels = images_of(count=count)
    batches = batches_of(images, labels, batch_size)
    assert [len(y) for _, y in batches.epoch(0)] == [len(y) for _, y in batches.ordered()] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.gpu
def test_cpu_and_gpu_see_the_same():
    images, labels = images_of(count=100, height=8, width=8)
    augment = {"crop": 2, "flip": True}
    mean, std = channel_statistics(images, torch.arange(100))
    assert channel_statistics(images.cuda(), torch.arange(100)) == (mean, std)
    on_cpu = whole(batches_of(images, labels, **augment, mean=mean, std=std).epoch(4))
    on_gpu = whole(batches_of(images.cuda(), labels.cuda(), **augment, mean=mean, std=std).epoch(4))
    assert torch.allclose(on_cpu[0], on_gpu[0].cpu(), atol=1e-6)
    assert torch.equal(on_cpu[1], on_gpu[1].cpu())


def test_a_crop_from_less_than_the_image_is_an_error():
    with pytest.raises(ValueError, match="crop = -1"):
        batches_of(*images_of(), crop=-1, flip=True)
