"""The commands `audit`, `explain`, `sign` and `crate`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from eqcollapse.cli.params import add_settings, settings_of
from eqcollapse.runtime.errors import EqcollapseError


def add_arguments(commands: Any) -> None:
    """Add the four commands to the command line's subparsers."""
    audit = commands.add_parser("audit", help="check that results/ is what params.yaml and the code give")
    add_settings(audit)
    audit.add_argument(
        "--no-snakemake", action="store_true", help="do not compare with Snakemake's own plan (saves seconds)"
    )
    audit.add_argument("--json", metavar="FILE", help="write the report as JSON to FILE as well ('-': standard output)")
    audit.add_argument("--signers", metavar="FILE", help="check the signature as well, with the keys in FILE: one "
                       "`name key` a line (allowed_signers of ssh-keygen)")  # fmt: skip
    audit.add_argument("--revoked", metavar="FILE", help="keys that no longer count: one public key a line, or a KRL")
    audit.set_defaults(run=_audit)
    explain = commands.add_parser("explain", help="say where a file comes from, and how to rebuild it")
    explain.add_argument("file", help="an output under results/ or resources/")
    which = explain.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="print every job behind it, with settings and command")
    which.add_argument("--commands", action="store_true", help="print only the commands, as a shell script")
    explain.set_defaults(run=_explain)
    sign = commands.add_parser("sign", help="sign everything under results/ and resources/ with an ssh key")
    sign.add_argument("--key", required=True, metavar="FILE", help="an ssh private key, or a public key whose private "
                      "key the ssh agent holds")  # fmt: skip
    sign.set_defaults(run=_sign)
    crate = commands.add_parser("crate", help="pack the run as a Workflow Run RO-Crate")
    add_settings(crate)
    crate.add_argument(
        "--output", default="eqcollapse-crate.zip", help="a .zip file or a new folder (eqcollapse-crate.zip)"
    )
    crate.set_defaults(run=_crate)


def _audit(options: argparse.Namespace, _: list[str]) -> int:
    from eqcollapse.provenance import page, pictures
    from eqcollapse.provenance.audit import JOBS_PICTURE, MACHINE, PAGE, STAGES_PICTURE, audit
    from eqcollapse.runtime.files import write_named, write_text

    if options.revoked and not options.signers:
        raise EqcollapseError("audit: --revoked needs --signers: it lists keys of that file that no longer count")
    done = audit(
        settings_of(options),
        name=options.params,
        snakemake=not options.no_snakemake,
        signers=options.signers,
        revoked=options.revoked,
    )
    report = done.report()
    states = done.states()
    write_text(STAGES_PICTURE, pictures.stage_graph(done.lineage, states))
    write_text(JOBS_PICTURE, pictures.job_graph(done.lineage, states))
    shown = {"Stages": "audit/stages.svg", "Jobs, and what is stale and why": "audit/jobs.svg"}
    write_text(PAGE, page.page(report, shown))
    write_text(MACHINE, page.machine(report))
    if options.json == "-":
        print(page.machine(report), end="")
    elif options.json:
        write_named(options.json, page.machine(report))
    said = sys.stderr if options.json == "-" else sys.stdout
    for finding in report.findings:
        print(f"{finding.kind}: {finding.path}: expected {finding.expected}; found {finding.found}", file=said)
    print(f"{page.summary(report)} See {PAGE}.", file=said)
    return 0 if report.passed else 1


def _explain(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.provenance import explain
    from eqcollapse.provenance.chain import Chain

    chain = Chain(options.file)
    shown = explain.tree if options.all else explain.answer
    print(chain.script() if options.commands else shown(chain))


def _sign(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.provenance.audit import sign_results
    from eqcollapse.provenance.signature import MANIFEST, SIGNATURE

    print(f"{MANIFEST} is signed by {sign_results(options.key)}: {SIGNATURE}")


def _crate(options: argparse.Namespace, _: list[str]) -> None:
    from eqcollapse.provenance.crate import write_crate

    write_crate(settings_of(options), Path(options.output))
    print(options.output)
