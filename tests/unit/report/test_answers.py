"""How far an accuracy hangs on the test images, against resampling them."""

import numpy as np
import pytest

from eqcollapse.report.answers import TEST, Answers, Contrast, accuracy_of, difference, read_answers, write_answers

IMAGES, CLASSES = 600, 6


@pytest.fixture
def answers() -> Answers:
    """Two models on one data set, right more often on classes 0 and 1, and mostly on the same images."""
    draw = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    easy = draw.random(IMAGES)
    right = {}
    for model, share in (("explicit", 0.5), ("deq", 0.6)):
        hard = 0.7 * easy + 0.3 * draw.random(IMAGES) > share + 0.2 * (labels < 2)
        right["digits", "ka2-r10", model, 3] = {TEST: (~hard).astype(np.uint8)}
    return Answers({"digits": labels}, right, dict.fromkeys(right, (0, 1)))


def value(answers: Answers, chosen: np.ndarray, contrast: Contrast) -> float:
    """`contrast` on some of the images, from its definition."""
    labels, total = answers.labels["digits"][chosen], 0.0
    among = {"overall": labels >= 0, "majority": labels < 2, "minority": labels >= 2}
    for (model, way), sign in contrast.models.items():
        right = answers.right["digits", "ka2-r10", model, 3][way][chosen]
        total += sum(sign * group_sign * right[among[group]].mean() for group, group_sign in contrast.groups.items())
    return total


@pytest.mark.parametrize(
    "contrast",
    [
        accuracy_of("deq", "overall"),
        accuracy_of("explicit", "minority"),
        difference("explicit", "deq", {"overall": 1}),
        difference("explicit", "deq", {"minority": 1}),
        difference("explicit", "deq", {"minority": 1, "majority": -1}),
        Contrast({("deq", TEST): 1}, {"majority": 1, "minority": -1}),
    ],
)
def test_deviations_have_the_variance_of_other_images(answers, contrast):
    draw = np.random.default_rng(1)
    resampled = [value(answers, draw.integers(0, IMAGES, IMAGES), contrast) for _ in range(4000)]
    moves = answers.deviations("digits", "ka2-r10", 3, contrast)
    own, ends = moves[:IMAGES], moves[IMAGES:]
    assert np.sqrt((own**2).sum()) == pytest.approx(np.std(resampled), rel=0.05)
    assert own.sum() == pytest.approx(0, abs=1e-12)
    sizes = {"overall": IMAGES, "majority": IMAGES / 3, "minority": IMAGES * 2 / 3}
    assert sorted(ends) == pytest.approx(
        sorted(end for group in contrast.groups for end in (1 / sizes[group], -1 / sizes[group]))
    )


def test_images_that_both_models_get_right_or_wrong_do_not_move_their_difference(answers):
    same = dict.fromkeys(answers.right, answers.right["digits", "ka2-r10", "deq", 3])
    answers = Answers(answers.labels, same, answers.majority)
    assert not answers.deviations("digits", "ka2-r10", 3, difference("explicit", "deq", {"minority": 1}))[:IMAGES].any()


def test_written_and_read_again(answers, tmp_path):
    write_answers(tmp_path / "answers.safetensors", answers)
    again = read_answers(tmp_path / "answers.safetensors")
    assert again.majority == answers.majority
    assert again.labels["digits"].tolist() == answers.labels["digits"].tolist()
    assert {cell: {way: of.tolist() for way, of in ways.items()} for cell, ways in again.right.items()} == {
        cell: {way: of.tolist() for way, of in ways.items()} for cell, ways in answers.right.items()
    }
