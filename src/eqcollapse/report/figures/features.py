"""Figure A-2: the test features themselves, as t-SNE and as a Gram matrix, both models side by side."""

import json
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from safetensors import safe_open
from threadpoolctl import threadpool_limits

from eqcollapse.report.config import FeaturesFigure
from eqcollapse.report.figures.style import new_figure
from eqcollapse.report.results import model_name, split_name

METADATA = "eqcollapse.run"
MOST = 1000
"""So many samples are drawn at most, as many of each class: t-SNE and the Gram matrix cost their square."""
LONGEST_NAME = 14
"""Letters of a class name that are written out."""
MARKERS = ("o", "x")
"""Of majority (and balanced) and of minority classes."""


@dataclass(frozen=True)
class Features:
    """Test features of one run, ordered by class: `values` N×d (float64), `labels` N, its majority classes, and the
    names of all classes by label.
    """

    values: np.ndarray
    labels: np.ndarray
    majority: tuple[int, ...]
    names: tuple[str, ...]


def draw(spec: FeaturesFigure, inputs: list[str]) -> Figure:
    """Draw the figure of `spec` from a features.safetensors a model."""
    return features_figure(dict(zip(spec.models, map(read, inputs), strict=True)), spec)


def read(path: str, most: int = MOST) -> Features:
    """Read the test features of a run, the first of each class, at most `most` in all."""
    with safe_open(path, framework="numpy") as stream:
        about = json.loads(stream.metadata()[METADATA])
        values, labels = stream.get_tensor("test/features"), stream.get_tensor("test/labels")
    classes = np.unique(labels)
    rows = np.concatenate([np.flatnonzero(labels == k)[: max(1, most // len(classes))] for k in classes])
    return Features(values[rows].astype(np.float64), labels[rows], tuple(about["majority"]), tuple(about["classes"]))


def cosine_matrix(features: Features) -> np.ndarray:
    """Return the N×N cosines of the features less the mean of their class means.

    With a simplex ETF it is 1 within a class and -1/(K-1) between two.
    """
    means = [features.values[features.labels == k].mean(axis=0) for k in np.unique(features.labels)]
    centred = features.values - np.mean(means, axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norms > 0, norms, 1)
    return unit @ unit.T


def embedding(values: np.ndarray) -> np.ndarray:
    """Return the t-SNE of `values` (N×d) in the plane (N×2): exact, in float64, of one thread, so that it repeats.

    Features that are all the same are one point.
    """
    from sklearn.manifold import TSNE  # a second to import, which no other figure should wait for

    if not np.ptp(values, axis=0).any():  # which t-SNE divides by
        return np.zeros((len(values), 2))
    perplexity = min(30.0, (len(values) - 1) / 3)
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", method="exact", random_state=0).fit_transform(values)


def features_figure(models: dict[str, Features], spec: FeaturesFigure) -> Figure:
    """Draw figure A-2: a column a model; above t-SNE, below the Gram matrix ordered by class."""
    width = spec.style.width
    figure, axes = new_figure(2, len(models), width=width, height=0.4 + 0.9 * width)
    for column, (model, features) in enumerate(models.items()):
        _scatter(axes[0, column], features)
        image = _matrix(axes[1, column], features)
        axes[0, column].set_title(f"{model_name(model)}: t-SNE of test features")
        axes[1, column].set_title(f"{model_name(model)}: cosines of test features")
    figure.colorbar(image, ax=axes[1, :], shrink=0.9, label="Cosine, global mean removed")
    figure.suptitle(split_name(spec.split), fontsize=9)
    if any(features.majority for features in models.values()):
        # Grey: the colours are those of the classes.
        handles = [Line2D([], [], marker=marker, color="0.3", linestyle="") for marker in MARKERS]
        figure.legend(handles, ["majority class", "minority class"], loc="outside lower center", ncols=2)
    return figure


def _scatter(axis: Axes, features: Features) -> None:
    points = embedding(features.values)
    classes = np.unique(features.labels)
    for k in classes:
        marker = MARKERS[bool(features.majority) and k not in features.majority]
        chosen = points[features.labels == k]
        axis.scatter(chosen[:, 0], chosen[:, 1], s=10, marker=marker, linewidths=0.7, color=_colour(k, len(classes)))
    if len(classes) <= 20:  # by name, for eyes and printers without colour
        middles = np.stack([np.median(points[features.labels == k], axis=0) for k in classes])
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
        for k, (x, y) in zip(classes, apart(middles, 0.07 * np.ptp(points, axis=0).max()), strict=True):
            axis.text(x, y, class_name(features.names, k), ha="center", va="center", fontsize=8, bbox=box,
                      parse_math=False)  # fmt: skip
    axis.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])


def class_name(names: tuple[str, ...], label: int) -> str:
    """Return the name of a class as a figure has room for it; its label where the font has no glyph for a letter."""
    name = names[label]
    font = get_font(findfont(FontProperties()))
    if not all(font.get_char_index(ord(letter)) for letter in name):
        return str(label)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def apart(points: np.ndarray, least: float) -> np.ndarray:
    """Return `points` (K×2), of which those nearer to each other than `least` are pushed apart."""
    points = points.copy()
    for _ in range(100):
        moved = False
        for one in range(len(points)):
            for other in range(one):
                between = points[one] - points[other]
                distance = np.linalg.norm(between)
                if distance < 0.999 * least:
                    direction = between / distance if distance else np.array([1.0, 0.0])
                    shift = (least - distance) / 2 * direction
                    points[one] += shift
                    points[other] -= shift
                    moved = True
        if not moved:
            break
    return points


def _colour(k: int, classes: int) -> tuple[float, ...]:
    return colormaps["tab10"](int(k)) if classes <= 10 else colormaps["turbo"](k / (classes - 1))


def _matrix(axis: Axes, features: Features) -> AxesImage:
    image = axis.imshow(cosine_matrix(features), vmin=-1, vmax=1, cmap="cividis", interpolation="nearest")
    classes, counts = np.unique(features.labels, return_counts=True)
    ends = np.cumsum(counts)
    if len(classes) <= 20:
        names = [class_name(features.names, k) for k in classes]
        axis.set_xticks(ends - counts / 2 - 0.5, names, parse_math=False)
        axis.tick_params(axis="x", labelrotation=90 if max(map(len, names)) > 2 else 0)
        axis.set_yticks(ends - counts / 2 - 0.5, names, parse_math=False)
        for end in ends[:-1]:
            axis.axhline(end - 0.5, color="black", linewidth=0.3)
            axis.axvline(end - 0.5, color="black", linewidth=0.3)
    if features.majority and sorted(features.majority) == list(range(len(features.majority))):
        border = ends[len(features.majority) - 1] - 0.5
        axis.axhline(border, color="black", linewidth=1.2)
        axis.axvline(border, color="black", linewidth=1.2)
    axis.set(xlabel="Class of the sample", ylabel="Class of the sample")
    axis.grid(visible=False)
    return image
