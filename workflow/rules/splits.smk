rule split:
    input:
        train=lambda wc: ancient(STUDY.inputs("splits", STUDY.split_path(wc))),
    output:
        split="results/splits/{dataset}/{split}/seed-{seed}@{digest}.csv",
        record="results/splits/{dataset}/{split}/seed-{seed}@{digest}.csv.provenance.json",
    log:
        "logs/splits/{dataset}/{split}/seed-{seed}@{digest}.log",
    params:
        job=lambda wc: STUDY.command("splits", STUDY.split_path(wc)),
    shell:
        "PYTHONPATH=src python -m eqcollapse splits {params.job}"
        " --inputs {input.train} --outputs {output.split} > {log} 2>&1"
