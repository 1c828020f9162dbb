rule experiment:
    output:
        csv="results/theory/{name}@{digest}.csv",
        record="results/theory/{name}@{digest}.csv.provenance.json",
    log:
        "logs/theory/{name}@{digest}.log",
    benchmark:
        "logs/theory/{name}@{digest}.tsv"
    resources:
        mem_mb=2000,
    params:
        job=lambda wc: STUDY.command(
            "theory", f"results/theory/{wc.name}@{wc.digest}.csv"
        ),
    shell:
        "PYTHONPATH=src python -m eqcollapse theory {params.job} --outputs {output.csv} > {log} 2>&1"
