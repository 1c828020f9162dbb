import csv
import hashlib
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from eqcollapse.data.splits import exponential_sizes, read_split, split_csv, write_split
from eqcollapse.data.store import Dataset, write_dataset
from eqcollapse.runtime.errors import EqcollapseError
from split_specs import imbalanced, split_spec


def rows_of(text):
    return [(int(i), int(k), g, p) for i, k, g, p in csv.reader(text.splitlines()[1:])]


def labels_of(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(len(labels)).permutation(labels)


@st.composite
def cases(draw):
    counts = draw(st.lists(st.integers(1, 60), min_size=2, max_size=6))
    return labels_of(counts), {
        "majority": draw(st.integers(1, len(counts) - 1)),
        "majority_classes": draw(st.sampled_from(["first", "random"])),
        "per_class": draw(st.one_of(st.none(), st.integers(1, 70))),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "validation": draw(st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.9])),
    }


@settings(max_examples=60, deadline=None)
@given(cases(), st.lists(st.floats(1, 200), min_size=2, max_size=4))
def test_higher_ratios_are_nested_in_lower_ones(case, ratios):
    labels, knobs = case
    splits = [set(rows_of(split_csv(imbalanced(ratio=ratio, **knobs), labels))) for ratio in sorted(ratios)]
    balanced = rows_of(split_csv(split_spec(**knobs | {"majority": None}), labels))
    for wide, narrow in pairwise(splits):
        assert narrow <= wide
    assert {(i, k, p) for i, k, _, p in splits[0]} <= {(i, k, p) for i, k, _, p in balanced}


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(1, 200))
def test_counts_groups_and_parts(case, ratio):
    labels, knobs = case
    rows = rows_of(split_csv(imbalanced(ratio=ratio, **knobs), labels))
    n_a = min(np.bincount(labels).min(), knobs["per_class"] or 10**9)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    assert len({row[1] for row in rows if row[2] == "majority"}) == knobs["majority"]
    for label in range(labels.max() + 1):
        own = [row for row in rows if row[1] == label]
        assert all(labels[index] == label for index, *_ in own)
        (group,) = {row[2] for row in own}
        size = n_a if group == "majority" else max(1, round(n_a / ratio))
        assert len(own) == size
        percent = round(knobs["validation"] * 100)
        assert sum(row[3] == "validation" for row in own) == size * percent // 100


def long_tail(factor, kind="longtail", **changes):
    return split_spec(f"{kind}-{factor}", factor=factor, draw="ldam" if kind == "ldam" else "sha256", **changes)


def sizes_of(text):
    return np.bincount([row[1] for row in rows_of(text)]).tolist()


CIFAR_10, CIFAR_100 = (np.random.default_rng(0).permutation(np.arange(50_000) % classes) for classes in (10, 100))
"""Labels as many as those of CIFAR."""


@pytest.mark.parametrize(
    ("labels", "factor", "head", "last", "total"),
    [  # Cui et al. 2019, Cao et al. 2019, and all that came after them
        (CIFAR_10, 10, [5000, 3871, 2997], 500, 20431),
        (CIFAR_10, 100, [5000, 2997, 1796], 50, 12406),
        (CIFAR_100, 10, [500, 488, 477], 50, 19573),
        (CIFAR_100, 100, [500, 477, 455], 5, 10847),
    ],
)
@pytest.mark.parametrize("kind", ["longtail", "ldam"])
def test_long_tails_of_cifar_have_the_published_sizes(labels, factor, head, last, total, kind):
    sizes = sizes_of(split_csv(long_tail(factor, kind), labels))
    assert (sizes[:3], sizes[-1], sum(sizes)) == (head, last, total)


@pytest.mark.parametrize("factor", [1, 2, 5, 8, 10, 20, 27, 50, 64, 100, 125, 200, 256, 500, 1000])
@pytest.mark.parametrize(("largest", "classes"), [(5000, 10), (500, 100)])
def test_sizes_in_decimals_are_those_of_the_floats_of_ldam(largest, classes, factor):
    floats = [int(largest * (1 / factor) ** (k / (classes - 1.0))) for k in range(classes)]
    assert exponential_sizes(largest, classes, factor) == [max(1, size) for size in floats]


@pytest.mark.parametrize(("labels", "factor"), [(CIFAR_10, 100), (CIFAR_100, 50)])
def test_the_samples_of_ldam_are_those_of_numpys_global_generator(labels, factor):
    """As its code draws them: one seed, then one shuffle a class, of all indices of the class."""
    np.random.seed(0)
    expected = []
    for label, size in enumerate(exponential_sizes(np.bincount(labels)[0], labels.max() + 1, factor)):
        indices = np.where(labels == label)[0]
        np.random.shuffle(indices)
        expected += indices[:size].tolist()
    assert [row[0] for row in rows_of(split_csv(long_tail(factor, "ldam"), labels))] == sorted(expected)


def test_long_tails_are_nested_and_have_no_majority(tmp_path):
    labels = labels_of([40] * 5)
    narrow, wide = (set(rows_of(split_csv(long_tail(factor, seed=3), labels))) for factor in (40, 4))
    assert narrow < wide < {(i, k, "longtail", p) for i, k, _, p in rows_of(split_csv(split_spec(seed=3), labels))}
    (tmp_path / "split.csv").write_text(split_csv(long_tail(40), labels))
    assert read_split(tmp_path / "split.csv").majority == ()


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("first", [16, 8, 4, 2, 1]), ([3, 0], [8, 4, 2, 16, 1]), ([4, 3, 2, 1, 0], [1, 2, 4, 8, 16])],
)
def test_the_head_of_a_long_tail_can_be_chosen(choice, expected):
    assert sizes_of(split_csv(long_tail(16, majority_classes=choice), labels_of([16] * 5))) == expected


def test_a_random_head_depends_on_the_seed():
    labels = labels_of([16] * 5)
    heads = {
        sizes_of(split_csv(long_tail(16, seed=seed, majority_classes="random"), labels)).index(16) for seed in range(40)
    }
    assert heads == {0, 1, 2, 3, 4}


def test_the_order_is_that_of_sha256():
    labels = np.array([1, 0, 1, 0, 1, 0, 0, 1, 1, 0])
    order = sorted([0, 2, 4, 7, 8], key=lambda index: hashlib.sha256(f"7/1/{index}".encode()).hexdigest())
    for per_class in (1, 2, 3, 4, 5):
        rows = rows_of(split_csv(split_spec(seed=7, per_class=per_class), labels))
        assert [row[0] for row in rows if row[1] == 1] == sorted(order[:per_class])


def test_the_bytes_are_pinned():
    text = split_csv(imbalanced(1, 2, validation=0.25, per_class=4), np.arange(10) % 2)
    assert text == PINNED


PINNED = """\
index,label,group,part
1,1,minority,train
2,0,majority,train
3,1,minority,train
4,0,majority,train
6,0,majority,validation
8,0,majority,train
"""


def test_every_seed_draws_samples_of_its_own_nested_within_it():
    labels = labels_of([60] * 4)
    draws = {seed: [rows_of(split_csv(imbalanced(2, r, seed=seed), labels)) for r in (2, 10, 60)] for seed in range(5)}
    for narrower in draws.values():
        assert set(narrower[2]) < set(narrower[1]) < set(narrower[0])
    minorities = {seed: {row[0] for row in wide if row[2] == "minority"} for seed, (wide, *_) in draws.items()}
    shared = [len(minorities[one] & minorities[other]) for one, other in combinations(minorities, 2)]
    assert np.mean(shared) == pytest.approx(30, abs=6)  # of 60, as two halves of each class drawn apart have


def test_the_seed_matters_and_the_same_seed_does_not():
    labels = labels_of([50, 50])
    texts = [split_csv(split_spec(seed=seed, per_class=10), labels) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("first", {0, 1}), ([3, 0], {0, 3}), ([3, 0, 1], {0, 3})],
)
def test_which_classes_are_majority(choice, expected):
    rows = rows_of(split_csv(imbalanced(2, 10, majority_classes=choice), labels_of([20] * 4)))
    assert {row[1] for row in rows if row[2] == "majority"} == expected


def test_random_majorities_depend_on_the_seed_and_are_nested_in_ka():
    def chosen(seed, majority):
        spec = imbalanced(majority, 2, majority_classes="random", seed=seed)
        return {row[1] for row in rows_of(split_csv(spec, labels_of([4] * 6))) if row[2] == "majority"}

    assert len({frozenset(chosen(seed, 3)) for seed in range(20)}) > 5
    assert all(chosen(seed, 2) < chosen(seed, 4) for seed in range(20))


def test_written_and_read_again(tmp_path):
    labels = labels_of([30] * 4)
    images = np.zeros((len(labels), 1, 2, 2), dtype=np.uint8)
    write_dataset(tmp_path / "train.safetensors", Dataset(images, labels, tuple("abcd"), "mine"))
    write_split(imbalanced(3, 10, validation=0.2), tmp_path / "train.safetensors", tmp_path / "split.csv")
    split = read_split(tmp_path / "split.csv")
    assert split.majority == (0, 1, 2)
    assert len(split.indices) == 3 * 24 + 3
    assert len(split.validation) == 3 * 6
    assert np.array_equal(labels[split.indices], split.labels)
    assert not set(split.indices) & set(split.validation)
    assert split.indices.dtype == split.labels.dtype == split.validation.dtype == np.int64


def test_a_balanced_split_has_no_majority(tmp_path):
    (tmp_path / "split.csv").write_text(split_csv(split_spec(), labels_of([3, 5])))
    split = read_split(tmp_path / "split.csv")
    assert split.majority == ()
    assert np.bincount(split.labels).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (imbalanced(4, 10), "majority = 4: mine has 4 classes"),
        (imbalanced(2, 10, majority_classes=[1]), "majority_classes"),
        (imbalanced(2, 10, majority_classes=[1, 1]), "majority_classes"),
        (imbalanced(2, 10, majority_classes=[1, 4]), "majority_classes"),
    ],
)
def test_what_the_data_set_cannot_give_is_refused_by_key(spec, named):
    with pytest.raises(EqcollapseError, match=named) as caught:
        split_csv(spec, labels_of([5] * 4))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "changes", "named"),
    [
        ("ka0-r10", {"majority": 0, "ratio": 10}, "majority"),
        ("ka2-r0.5", {"majority": 2, "ratio": 0.5}, "ratio"),
        ("ka2-rx", {"majority": 2, "ratio": float("nan")}, "ratio"),
        ("ka2-r10", {"majority": 2}, "majority and ratio"),
        ("balanced", {"majority": 2, "ratio": 10}, "majority and ratio"),
        ("ka3-r10", {}, "majority and ratio"),
        ("longtail-10", {}, "factor"),
        ("longtail-10", {"factor": 10, "draw": "ldam"}, "draw"),
        ("ldam-10", {"factor": 10}, "draw"),
        ("balanced", {"factor": 10}, "factor"),
        ("ka3-r10", {"majority": 3, "ratio": 10, "factor": 10}, "factor"),
        ("longtail-10", {"majority": 3, "ratio": 10, "factor": 10}, "majority and ratio"),
        ("longtail-0.5", {"factor": 0.5}, "factor"),
        ("balanced", {"majority_classes": "last"}, "majority_classes"),
        ("balanced", {"per_class": 0}, "per_class"),
        ("balanced", {"validation": 1.0}, "validation"),
        ("balanced", {"validation": -0.1}, "validation"),
        ("balanced", {"extra": 1}, "is not a key"),
    ],
)
def test_a_wrong_spec_is_refused_by_key(split, changes, named):
    with pytest.raises(ValidationError, match=named):
        split_spec(split, **changes)


def test_a_class_without_samples_is_refused():
    with pytest.raises(EqcollapseError, match="mine: class 1 has no training samples"):
        split_csv(split_spec(), np.array([0, 2]))


@pytest.mark.parametrize(
    "line",
    ["x,0,balanced,train", "1,0,balanced", "1,0,most,train", "1,0,balanced,test", "-1,0,balanced,train"],
)
def test_a_damaged_csv_is_named_by_line(tmp_path, line):
    (tmp_path / "split.csv").write_text(f"index,label,group,part\n0,0,balanced,train\n{line}\n")
    with pytest.raises(EqcollapseError, match=r"split\.csv, line 3"):
        read_split(tmp_path / "split.csv")


def test_a_csv_out_of_order_or_without_header_is_refused(tmp_path):
    (tmp_path / "split.csv").write_text("index,label,group,part\n1,0,balanced,train\n1,0,balanced,train\n")
    with pytest.raises(EqcollapseError, match="ascend"):
        read_split(tmp_path / "split.csv")
    (tmp_path / "split.csv").write_text("0,0,balanced,train\n")
    with pytest.raises(EqcollapseError, match="first line"):
        read_split(tmp_path / "split.csv")


NAMES = ("1", "2", "10", "ant")


@pytest.mark.parametrize(
    ("choice", "labels"),
    [([3, 0], (0, 3)), (["ant", "10"], (2, 3)), (["10", "2"], (1, 2)), (["ant", 0], (0, 3)), (["3", "0"], (0, 3))],
)
def test_majority_classes_are_chosen_by_name_or_label(tmp_path, choice, labels):
    """Text is a name first: "10" is the folder 10, which has the label 2; "3" and "0" are no folders, but labels."""
    held = labels_of([8] * 4)
    write_dataset(tmp_path / "train.safetensors", Dataset(np.zeros((32, 1, 2, 2), np.uint8), held, NAMES, "mine"))
    write_split(imbalanced(2, 4, majority_classes=choice), tmp_path / "train.safetensors", tmp_path / "split.csv")
    assert read_split(tmp_path / "split.csv").majority == labels


@pytest.mark.parametrize(
    ("choice", "words"),
    [(["ent", "1"], "'ent' is no class of mine (did you mean ant?)"), (["1", 0], "different labels")],
)
def test_a_name_of_no_class_is_refused_with_the_nearest(tmp_path, choice, words):
    held = labels_of([8] * 4)
    write_dataset(tmp_path / "train.safetensors", Dataset(np.zeros((32, 1, 2, 2), np.uint8), held, NAMES, "mine"))
    with pytest.raises(EqcollapseError) as caught:
        write_split(imbalanced(2, 4, majority_classes=choice), tmp_path / "train.safetensors", tmp_path / "split.csv")
    assert words in str(caught.value)
