"""The study that `init` chooses fits the images and the time; its preset is one that params.yaml's types accept."""

import pytest
import yaml

from eqcollapse.data.survey import Survey
from eqcollapse.pipeline import new_study
from eqcollapse.runtime.errors import EqcollapseError


def images(*train: int, test: int = 10, width=(28, 28), height=(28, 28)) -> Survey:
    classes = tuple(f"class {label}" for label in range(len(train)))
    return Survey("0" * 64, classes, train, (test,) * len(train), 1, width, height)


@pytest.mark.parametrize("minutes", [5, 20, 120])
@pytest.mark.parametrize("cost", [1e-4, 1e-3])
def test_the_choice_fits_into_the_time(minutes, cost):
    found = images(*[2000] * 10)
    chosen = new_study.choose(found, 60 * minutes, [cost, 2 * cost])
    assert chosen.seconds <= 60 * minutes or (chosen.epochs == 2 or chosen.per_class == new_study.FEWEST_SAMPLES)
    assert chosen.per_class == 2000 or (chosen.per_class < 2000 and chosen.epochs <= new_study.MOST)


def test_samples_are_cut_before_epochs_are():
    found = images(*[2000] * 10)
    whole = new_study.choose(found, 10**6, [1e-3])
    assert (whole.per_class, whole.epochs) == (2000, new_study.MOST)
    cut = new_study.choose(found, 1200, [1e-3])
    assert cut.per_class < 2000
    assert cut.epochs >= new_study.ENOUGH


def test_more_time_gives_no_fewer_images_trained():
    found = images(*[500] * 5)
    trained = [
        chosen.per_class * chosen.epochs
        for chosen in (new_study.choose(found, 60 * minutes, [1e-3, 2e-3]) for minutes in (1, 5, 20, 60, 300))
    ]
    assert trained == sorted(trained)


@pytest.mark.parametrize("train", [(4, 4), (60, 60, 60), (5000, 300, 80), (100,) * 100])
def test_majority_classes_and_ratio_fit_the_classes(train):
    chosen = new_study.choose(images(*train), 600, [1e-3])
    assert 1 <= chosen.majority < len(train)
    assert chosen.ratio >= 2
    assert -(-chosen.per_class // chosen.ratio) >= 2
    assert chosen.per_class <= min(train)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [((28, 28), (28, 28), None), ((24, 24), (20, 20), None), ((28, 30), (28, 28), 32), ((640, 640), (480, 480), 32)],
)
def test_images_of_several_sizes_or_large_ones_are_resized(width, height, side):
    assert new_study.side(images(10, 10, width=width, height=height)) == side


@pytest.mark.parametrize(("train", "said"), [((50,), "one class"), ((50, 3), "'class 1' has 3 images")])
def test_images_of_which_no_study_can_be_made_are_refused(train, said):
    with pytest.raises(EqcollapseError, match=said):
        new_study.check(images(*train))


@pytest.mark.parametrize(
    ("stem", "name"),
    [("My Images", "my-images"), ("Bilder_für", "bilder_f-r"), ("日本", "images"), ("a" * 99, "a" * 60)],
)
def test_a_data_set_is_named_in_the_letters_that_are_allowed(stem, name):
    assert new_study.name_of(stem) == name


def test_a_path_of_odd_letters_stands_in_the_preset_as_it_is():
    found = images(100, 100, 100)
    path = 'a "folder": of #images/日本'
    text = new_study.preset("mine", path, found, new_study.choose(found, 600, [1e-3]))
    assert yaml.safe_load(text)["datasets"]["mine"]["path"] == path
