rule metrics:
    input:
        snapshots=ancient(STUDY.outputs("train", "snapshots.safetensors")),
        histories=ancient(STUDY.outputs("train", "history.csv")),
    output:
        collapse="results/metrics/collapse.csv",
        accuracy="results/metrics/accuracy.csv",
        answers="results/metrics/answers.safetensors",
        summary="results/metrics/summary.json",
        record="results/metrics/collapse.provenance.json",
    log:
        "logs/collapse/metrics.log",
    resources:
        mem_mb=4000,
    params:
        job=STUDY.command("collapse", "results/metrics/collapse.csv"),
    shell:  # printf is the shell's own: only what is started anew is held to a length (2 MB, some 12 000 cells)
        "printf '%s\\n' {input.snapshots} {input.histories}"
        " | PYTHONPATH=src python -m eqcollapse collapse {params.job}"
        " --inputs - --outputs {output.collapse} {output.accuracy} {output.answers} {output.summary} > {log} 2>&1"
