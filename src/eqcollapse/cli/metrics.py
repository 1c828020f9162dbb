"""`python -m eqcollapse metrics`: the metrics of one's own features, as a table, csv or json."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from pathlib import Path

from torch import Tensor
from torch.linalg import LinAlgError

from eqcollapse.collapse.features import PARTS, Measured, measure
from eqcollapse.collapse.metrics import NO_MAJORITY, Metrics
from eqcollapse.collapse.presets import PRESETS
from eqcollapse.collapse.view import CHOICES, Options
from eqcollapse.runtime.errors import EqcollapseError, printable
from eqcollapse.runtime.files import write_named

DESCRIPTION = "Measure neural collapse in the features of a file. docs/reference/metrics.md defines each metric."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `eqcollapse metrics` on `parser`."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add(
        "features",
        metavar="FEATURES",
        type=Path,
        help='.safetensors or .npz with "features" (N×d) and "labels" (N integers); .npy with --labels',
    )
    add("--labels", type=Path, metavar="FILE", help="the labels, if not in FEATURES (.safetensors, .npz, .npy)")
    add(
        "--weight",
        type=Path,
        metavar="FILE",
        help="the classifier's weight (K×d), if not in FEATURES",
    )
    add("--part", choices=PARTS, help="which samples of a trained cell's features.safetensors (train)")
    add("--bias", type=Path, metavar="FILE", help="the classifier's bias (K), if not in FEATURES")
    add("--classes", type=int, metavar="K", help="number of classes, if weight and labels do not show it")
    add(
        "--majority",
        type=class_list,
        metavar="LIST",
        help="the majority classes, as 0,1,2 or 0-2",
    )
    add("--preset", choices=list(PRESETS), help="the metrics of one paper, by its own definitions")
    add(
        "--mean",
        choices=CHOICES["mean"],
        default=Options.mean,
        help="the global mean: of class means, or of all samples (%(default)s)",
    )
    add(
        "--between",
        choices=CHOICES["between"],
        default=Options.between,
        help="weights of classes in S_B: 1/K, or n_k/N (%(default)s)",
    )
    add(
        "--within",
        choices=CHOICES["within"],
        default=Options.within,
        help="S_W averages over samples, or over classes (%(default)s)",
    )
    add("--raw-weight", action="store_true", help="do not centre the rows of the weight")
    add("--per-class", action="store_true", help="each class instead of all together")
    add("--csv", type=Path, metavar="FILE", help="write the table as CSV as well")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write metrics, reasons and each class as JSON as well",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out what `add_arguments` declared and return the exit code; EqcollapseError on what the
    user can mend.
    """
    if args.per_class and args.preset:
        raise EqcollapseError("--per-class does not go with --preset: leave one of them out")
    options = {name: getattr(args, name) for name in ("preset", "mean", "between", "within")}
    try:
        measured = measure(
            args.features,
            labels=args.labels,
            part=args.part,
            weight=args.weight,
            bias=args.bias,
            num_classes=args.classes,
            majority=args.majority,
            center_weight=not args.raw_weight,
            **options,
        )
        rows = class_rows(measured.classes) if args.per_class else metric_rows(measured.metrics)
        print(as_text(rows if args.per_class else applying(rows)))
        if args.csv is not None:
            write_named(args.csv, as_csv(rows))
        if args.json is not None:
            write_named(args.json, as_json(measured))
    except BrokenPipeError:
        raise
    except (ValueError, OSError, LinAlgError) as error:
        raise EqcollapseError(printable(str(error))) from error
    return 0


MOST_LISTED = 10**6
"""Classes of --majority."""

Rows = list[list[str | float]]


def metric_rows(metrics: Metrics) -> Rows:
    """Return a header and one row a metric: name, value, and the reason for a nan."""
    rows: Rows = [[name, value, metrics.reasons.get(name, "")] for name, value in metrics.items()]
    return [["metric", "value", "reason"], *rows]


def applying(rows: Rows) -> Rows:
    """Return `rows` without those of groups that were not asked for."""
    return [row for row in rows if row[2] != NO_MAJORITY]


def class_rows(classes: dict[str, Tensor]) -> Rows:
    """Return a header and one row a class."""
    columns = [column.tolist() for column in classes.values()]
    return [["class", *classes], *([str(k), *values] for k, values in enumerate(zip(*columns, strict=True)))]


def as_text(rows: Rows) -> str:
    """Return `rows` as a table for reading: six digits, columns aligned."""
    shown = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)


def as_csv(rows: Rows) -> str:
    """Return `rows` as csv with every digit."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_json(measured: Measured) -> str:
    """Return metrics, reasons and the numbers of each class as json, in which nan is null."""
    content = {
        "metrics": {name: _number(value) for name, value in measured.metrics.items()},
        "reasons": measured.metrics.reasons,
        "classes": {name: [_number(v) for v in column.tolist()] for name, column in measured.classes.items()},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def class_list(text: str) -> list[int]:
    """Return the classes that `text` lists, such as "0,1,2" or "0-2,7"."""
    classes: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            listed = range(int(first), int(last if dash else first) + 1)
            if listed.stop - listed.start > MOST_LISTED - len(classes):
                raise argparse.ArgumentTypeError(f"more than {MOST_LISTED} classes are listed")
            classes += listed
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no list of classes such as 0,1,2 or 0-2") from None
    return classes
