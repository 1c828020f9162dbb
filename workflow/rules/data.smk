rule dataset:
    output:
        train="resources/datasets/{dataset}@{digest}/train.safetensors",
        test="resources/datasets/{dataset}@{digest}/test.safetensors",
        record="resources/datasets/{dataset}@{digest}/provenance.json",
    log:
        "logs/data/{dataset}@{digest}.log",
    resources:
        mem_mb=4000,
    params:
        job=lambda wc: STUDY.command(
            "data", f"resources/datasets/{wc.dataset}@{wc.digest}"
        ),
        where=lambda wc: STUDY.where(wc.dataset),
    shell:
        "PYTHONPATH=src python -m eqcollapse data {params.job} {params.where}"
        " --outputs {output.train} {output.test} > {log} 2>&1"
