"""Captions name the paper and its number."""

import pytest

from eqcollapse.report.captions import caption


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a-figure-2-digits", "Paper A, figure 2"),
        ("a-figure-appendix-mnist-ka3", "Paper A, appendix: as figure 3, for KA = 3, on mnist"),
        ("b-figure-4", "Paper B, figure 4:"),
        ("b-figure-5", "Paper B, figure 5:"),
        ("a-table-3", "Paper A, table 3"),
        ("a-table-longtail", "Test accuracy (%) of the last epoch on long tails"),
        ("a-figure-appendix-cifar10-ldam", "As figure 3 of paper A, for long tails, on cifar10"),
        ("theory", "Minima"),
    ],
)
def test_captions_have_the_papers_numbers(name, start):
    assert caption(name).startswith(start)
