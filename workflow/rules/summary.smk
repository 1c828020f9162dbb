rule summary:
    input:
        images=lambda wc: ancient(
            STUDY.inputs("summary", f"results/data/{wc.dataset}@{wc.digest}")
        ),
    output:
        csv="results/data/{dataset}@{digest}/summary.csv",
        md="results/data/{dataset}@{digest}/summary.md",
        record="results/data/{dataset}@{digest}/provenance.json",
    log:
        "logs/data/{dataset}@{digest}-summary.log",
    # Before training, and on the terminal: it says what the data make of params.yaml.
    priority: 100
    localrule: True
    params:
        job=lambda wc: STUDY.command(
            "summary", f"results/data/{wc.dataset}@{wc.digest}"
        ),
    shell:
        "PYTHONPATH=src python -m eqcollapse summary {params.job}"
        " --inputs {input.images} --outputs {output.csv} {output.md} 2>&1 | tee {log}"
