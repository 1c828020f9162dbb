"""What it takes to plan a study of thousands of made-up cells (docs/reference/sizes.md), as a table.

Run: `PYTHONPATH=src python benchmarks/cells.py [CELLS ...]`, with the .venv on the PATH; without numbers, it takes a
minute or two of one core. Times are processor seconds, memory the largest process'. It plans in a clone of HEAD in the
temporary folder, and runs no cell.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

CELLS = (100, 1000, 10_000)
PLANS = {
    "plan": ("snakemake", "--dry-run", "--quiet", "all"),
    "`collapse --batch metrics=1/10`": (
        "snakemake", "collapse", "--batch", "metrics=1/10", "--dry-run", "--quiet", "all",
    ),
    "the study alone (`check`)": (sys.executable, "-m", "eqcollapse", "check"),
}  # fmt: skip
SPLITS, MODELS = 10, 2
"""Of experiment a: balanced, and three numbers of majority classes times three ratios; explicit and deq."""


def main() -> None:
    """Plan each study in each way and print the table."""
    numbers = [int(word) for word in sys.argv[1:]] or CELLS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(["git", "clone", "-q", Path(__file__).parents[1], folder], check=True)
        print("| cells | " + " | ".join(f"{plan}: processor s, MB" for plan in PLANS) + " |")
        print("|---" * (len(PLANS) + 1) + "|")
        for cells in numbers:
            ask(folder / "params.yaml", cells)
            costs = [measured(words, folder) for words in PLANS.values()]
            row = " | ".join(f"{seconds:.1f}, {held:.0f}" for seconds, held in costs)
            print(f"| {cells} | {row} |", flush=True)


def ask(path: Path, cells: int) -> None:
    """Make the study in `path` one of so many cells: experiment a alone, with as many seeds as it takes."""
    content = yaml.safe_load(path.read_text())
    experiment = content["experiments"]["a"] | {"seeds": list(range(cells // (SPLITS * MODELS)))}
    path.write_text(yaml.safe_dump(content | {"experiments": {"a": experiment}}, sort_keys=False))


def measured(words: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Return the processor seconds of a command and its children, and the MB of the largest of them."""
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(words, cwd=folder, env={**os.environ, "PYTHONPATH": "src"}, stdout=nowhere)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)}: failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
