"""Snakemake's own job DAG, planned in an empty folder, against the study and the records."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.provenance.findings import Finding, Lineage
from eqcollapse.provenance.reading import Record
from eqcollapse.provenance.records import recorded
from eqcollapse.runtime.errors import EqcollapseError

PATIENCE = 600
_BLOCK = re.compile(r"\n\n(?=\[\w{3} \w{3} [ \d]\d \d\d:)")
"""What parts the jobs of a dry run: an empty line, and the clock; for a command may have empty lines of its own."""
_PLAIN = r"[\w@%+=:,./-]"  # what a shell takes as it stands, as `shlex.quote` has it
_WORDS = rf"(?: +(?:{_PLAIN}|'[^']*'|\"'\")+)*"
_FRAME = re.compile(
    rf"(?:printf '%s\\n'{_WORDS} \| )?PYTHONPATH=src python -m eqcollapse{_WORDS}"
    rf"(?: > {_PLAIN}+ 2>&1| 2>&1 \| tee {_PLAIN}+)",
    re.ASCII,
)
"""All that a rule's command may be: one call of eqcollapse, whose words go to a log, or to the terminal and a log."""


@dataclass(frozen=True)
class Planned:
    """One job as Snakemake plans it."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    command: tuple[str, ...]


class Planning:
    """A Snakemake that plans all jobs of `config` while other work is done; None of it where it is not installed.

    It plans in an empty folder, so that every job is planned and nothing here is looked at, moved or locked.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._folder = tempfile.TemporaryDirectory(prefix="eqcollapse-audit-")
        Path(self._folder.name, "params.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
        words = ["--profile", "none", "--workflow-profile", "none", "--snakefile", str(Path("Snakefile").resolve())]
        words += ["--directory", self._folder.name, "--dry-run", "--forceall", "--printshellcmds", "--nocolor"]
        self._output = open(Path(self._folder.name, "plan.txt"), "w+")  # noqa: SIM115 (closed in `jobs`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *words], stdout=self._output, stderr=subprocess.STDOUT
        )

    @staticmethod
    def possible() -> bool:
        """Whether there is a Snakemake and a Snakefile here."""
        return importlib.util.find_spec("snakemake") is not None and Path("Snakefile").exists()

    def jobs(self) -> list[Planned]:
        """Wait for the plan and return its jobs; EqcollapseError if Snakemake fails."""
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise EqcollapseError(f"Snakefile: planning took more than {PATIENCE} s") from None
        self._output.seek(0)
        said = self._output.read()
        self._output.close()
        self._folder.cleanup()
        if code != 0:
            raise EqcollapseError(
                f"Snakefile: {said.strip().splitlines()[-1] if said.strip() else 'cannot be planned'}"
            )
        return list(parsed(said))


def parsed(said: str) -> Iterator[Planned]:
    """Yield the jobs of what `snakemake --dry-run --printshellcmds` says."""
    for block in _BLOCK.split(said):
        about, _, command = block.partition("\nShell command: ")
        lines = about.strip().splitlines()
        rule = next((line for line in lines if line.startswith(("rule ", "localrule "))), None)
        if rule is None:
            continue
        fields = dict(line.strip().partition(": ")[::2] for line in lines)
        command = command.partition("\nJob stats:")[0].strip()
        yield Planned(
            rule.split()[1].rstrip(":"),
            _paths(fields.get("input", "")),
            _paths(fields.get("output", "")),
            () if command in ("", "None") else recorded_command(command),
        )


def _paths(text: str) -> tuple[str, ...]:
    return tuple(path for path in text.split(", ") if path)


def recorded_command(command: str) -> tuple[str, ...]:
    """Return what a record keeps of a rule's shell command: no environment, no redirection, nothing that says where.

    What `printf FORMAT` hands to its standard input counts as given in the place of `-`. A command that does more than
    to call eqcollapse and keep its words in a log is returned as it is, so that it equals no record's.
    """
    if not _FRAME.fullmatch(command):
        return (command,)
    words = shlex.split(command)
    python = words.index("python")
    piped = words[2 : words.index("|")] if "|" in words[:python] else []
    end = words.index("2>&1") if "tee" in words[-2:] else words.index(">")
    return tuple(recorded(words[python:end], piped))


def check_plan(planned: list[Planned], lineage: Lineage, records: Mapping[str, Record]) -> Iterator[Finding]:
    """Compare Snakemake's jobs with the study's: files, inputs and the command lines in the records."""
    making = {file: job for job in planned for file in job.outputs}
    for job in lineage.jobs:
        missing = [file for file in job.files if file not in making]
        for file in missing:
            yield Finding(
                "snakemake", file, f"a rule that makes it in stage {job.stage}", "Snakemake plans no such job"
            )
        if missing:
            continue
        plan = making[job.outputs[0]]
        if set(plan.inputs) != set(job.inputs):
            yield Finding("snakemake", job.path, f"{len(job.inputs)} inputs, as the study has it",
                          f"rule {plan.rule} reads {len(plan.inputs)}, or others")  # fmt: skip
        record = records.get(job.record)
        if record and record.usable and record.content["digest"] == job.digest:
            command = tuple(record.content["command"])
            if plan.command != command:
                yield Finding(
                    "snakemake", job.record, f"the command of rule {plan.rule}", _contrast(plan.command, command)
                )
    for file in sorted(set(making) - set(lineage.writer)):
        yield Finding("snakemake", file, "no job", f"rule {making[file].rule} makes it, which the study does not know")


def _contrast(planned: tuple[str, ...], recorded: tuple[str, ...]) -> str:
    pairs = zip(planned, recorded, strict=False)
    old, new = next(((a, b) for a, b in pairs if a != b), ("another number of words", "in the record"))
    return f"{new[:80]} where the rule has {old[:80]}"
