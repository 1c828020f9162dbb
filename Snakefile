"""Every figure and table of the study in params.yaml: the DAG at a glance."""

import os
import sys

from snakemake.utils import min_version

min_version("9.27")

# On a full disk byte code would be torn, and no later start gets past that.
sys.dont_write_bytecode = True

sys.path.insert(0, os.path.join(workflow.basedir, "src"))

from eqcollapse.pipeline.failures import words_of_failure
from eqcollapse.pipeline.plan import Run, look_at

look_at("params.yaml")


configfile: "params.yaml"


RUN = Run(config, workflow)
STUDY = RUN.study


container: "containers/eqcollapse.sif"


report: "workflow/report/study.rst"


wildcard_constraints:
    digest="[0-9a-f]{10}",
    seed="[0-9]+",
    dataset="[^/@]+",
    split="[^/@]+",
    model="[^/@]+",
    name="[^/@]+",


include: "workflow/rules/attic.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/splits.smk"
include: "workflow/rules/summary.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/collapse.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/audit.smk"


rule data:
    input:
        STUDY.files("data"),


rule splits:
    input:
        STUDY.files("splits"),
        STUDY.files("summary"),


rule train:
    input:
        STUDY.files("train"),


rule theory:
    input:
        STUDY.files("theory"),


rule collapse:
    input:
        STUDY.files("collapse"),


rule report:
    input:
        STUDY.files("table"),
        STUDY.files("figure"),
        STUDY.files("claims"),
        STUDY.files("page"),


rule all:
    default_target: True
    input:
        rules.data.input,
        rules.splits.input,
        rules.train.input,
        rules.theory.input,
        rules.collapse.input,
        rules.report.input,


onstart:
    RUN.begin()


onsuccess:
    print(f"\n{STUDY.closing_words()}")


onerror:
    print(f"\n{words_of_failure(log)}", file=sys.stderr)
