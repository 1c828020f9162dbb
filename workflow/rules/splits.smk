rule split:
    input:
        train=lambda wc: ancient(
            STUDY.inputs(
                "splits", f"results/splits/{wc.dataset}/{wc.split}@{wc.digest}.csv"
            )
        ),
    output:
        split="results/splits/{dataset}/{split}@{digest}.csv",
        record="results/splits/{dataset}/{split}@{digest}.csv.provenance.json",
    log:
        "logs/splits/{dataset}/{split}@{digest}.log",
    params:
        job=lambda wc: STUDY.command(
            "splits", f"results/splits/{wc.dataset}/{wc.split}@{wc.digest}.csv"
        ),
    shell:
        "PYTHONPATH=src python -m eqcollapse splits {params.job}"
        " --inputs {input.train} --outputs {output.split} > {log} 2>&1"
