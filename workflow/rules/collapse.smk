rule metrics:
    input:
        snapshots=ancient(STUDY.outputs("train", "snapshots.safetensors")),
        histories=ancient(STUDY.outputs("train", "history.csv")),
    output:
        collapse="results/metrics/collapse.csv",
        accuracy="results/metrics/accuracy.csv",
        summary="results/metrics/summary.json",
        record="results/metrics/collapse.provenance.json",
    log:
        "logs/collapse/metrics.log",
    resources:
        mem_mb=4000,
    params:
        job=STUDY.command("collapse", "results/metrics/collapse.csv"),
    shell:
        "PYTHONPATH=src python -m eqcollapse collapse {params.job}"
        " --inputs {input.snapshots} {input.histories}"
        " --outputs {output.collapse} {output.accuracy} {output.summary} > {log} 2>&1"
