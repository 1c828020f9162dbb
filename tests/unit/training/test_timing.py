"""The time of an image in training is measured, in the right order of size."""

import time

from eqcollapse.training.config import TrainSpec
from eqcollapse.training.timing import seconds_an_image


def test_it_is_below_the_time_of_the_call_and_grows_with_the_image(spec):
    model = TrainSpec.model_validate(spec)
    start = time.perf_counter()
    small = seconds_an_image(model, 1, 8, 4)
    passed = time.perf_counter() - start
    assert 0 < small < passed
    assert seconds_an_image(model, 3, 64, 4) > small
