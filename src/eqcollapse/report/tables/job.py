"""Every table: which function makes it, and how it is written as csv, markdown and LaTeX."""

from collections.abc import Callable

import pandas as pd

from eqcollapse.report.config import TableSpec
from eqcollapse.report.tables import accuracy, selection, solver, theory
from eqcollapse.runtime.files import write_text


def run(spec: TableSpec, inputs: list[str], outputs: list[str]) -> None:
    """Write the table of `spec` from the CSV files `inputs` to `outputs` (csv, md, tex)."""
    numbers, shown, note = KINDS[spec.kind](spec, inputs)
    csv, md, tex = outputs
    write_text(csv, numbers.to_csv(index=False, lineterminator="\n"))
    write_text(md, _markdown(shown) + (f"\n{note}\n" if note else ""))
    write_text(tex, _latex(shown))


KINDS: dict[str, Callable[..., tuple[pd.DataFrame, pd.DataFrame, str]]] = {
    "accuracy": accuracy.table,
    "selection": selection.table,
    "solver": solver.table,
    "theory": theory.table,
}


def _markdown(shown: pd.DataFrame) -> str:
    lines = [shown.columns, ["---"] * len(shown.columns), *shown.itertuples(index=False)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(shown: pd.DataFrame) -> str:
    lines = [r"\begin{tabular}{" + "l" * 3 + "r" * (len(shown.columns) - 3) + "}", r"\hline"]
    lines += [" & ".join(shown.columns) + r" \\", r"\hline"]
    lines += [
        " & ".join(row).replace("_", r"\_").replace("±", r"$\pm$").replace("<", "$<$") + r" \\"
        for row in shown.itertuples(index=False)
    ]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])
