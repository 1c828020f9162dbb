"""What each table and figure shows, with its number in the paper. Imports nothing heavy: the Snakefile asks, too."""

import re

CAPTIONS = {
    r"figure-2-(.+)": "Paper A, figure 2: test features of one seed as t-SNE (above) and Gram matrix (below), on {0}. "
    "Circles are majority, crosses minority classes; classes are named.",
    r"figure-3-(.+)": "Paper A, figure 3: test accuracy and NC1, NC2, NC3 of training features over epochs, on {0}. "
    "Means over seeds; bands from the lowest to the highest seed.",
    r"figure-appendix-g-(.+)": "Paper B, appendix G: as figure 5, on {0}.",
    r"figure-appendix-(.+)-ka(\d+)": "Paper A, appendix: as figure 3, for KA = {1}, on {0}.",
    r"figure-appendix-(.+)-(?:longtail|ldam)": "As figure 3 of paper A, for long tails, on {0}. Not in the paper.",
    r"figure-solver-(.+)": "The DEQ's solver over epochs, on {0}, balanced and at the largest R of each KA: steps, "
    "samples that did not converge in training or evaluation (dotted: 1 %), residual, and spectral radius of df/dz at "
    "equilibria (dotted: 1). Not in the paper.",
    r"figure-5": "Paper B, figure 5: NC1, NC2, NC3 at the stages of ResNets, beside the ReLU UFM of figure 4.",
    r"figure-theory(-.+)?": "The layer-peeled models of paper A over R{0}: descents, and exact minima where they are "
    "known.",
    r"figure-low-rank": "Runs of a deep ReLU UFM that end below full collapse (bold: the lowest). Not in the paper.",
    r"figure-(\d)(-.+)?": "Paper B, figure {0}{1}: loss, NC1, NC2, NC3 of gradient descent; dotted: the closed form.",
    r"table-1": "Paper A, table 1: test accuracy (%) of the last epoch on balanced data, mean ± 95 % interval (over "
    "seeds and test images).",
    r"table-(\d+)": "Paper A, table {0}: test accuracy (%) of the last epoch under imbalance (a split kaA-rR has A "
    "majority classes and R times fewer samples in the others), mean ± 95 % interval. Differences are paired by seed.",
    r"solver": "Test accuracy (%) of the DEQ of the last epoch with its solver as trained, skipped (z = f(0, x)), and "
    "run to a relative residual of 1e-8, mean ± 95 % interval. Not in the paper.",
    r"table-longtail": "Test accuracy (%) of the last epoch on long tails (longtail-F and ldam-F: the largest class "
    "has F times the samples of the smallest), mean ± 95 % interval. Differences are paired by seed. Not in the paper.",
    r"selection": "Models by their accuracy on the validation share of the training set. Not in the paper.",
    r"theory": "Minima reached by gradient descent against closed forms.",
}
"""Captions by what follows the experiment's name; the first pattern that fits a whole name counts."""


def caption(name: str) -> str:
    """Return the caption of a table or figure, with its number in the paper."""
    rest = name if name.startswith("theory") else name.partition("-")[2]
    for pattern, text in CAPTIONS.items():
        if match := re.fullmatch(pattern, rest):
            return text.format(*(group or "" for group in match.groups()))
    return name
