rule cell:
    input:
        data=lambda wc: ancient(STUDY.inputs("train", STUDY.run_path(wc))),
    output:
        history="results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}/history.csv",
        snapshots="results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}/snapshots.safetensors",
        features="results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}/features.safetensors",
        weights="results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}/model.safetensors",
        record="results/runs/{dataset}/{split}/{model}/seed-{seed}@{digest}/provenance.json",
    log:
        "logs/train/{dataset}/{split}/{model}/seed-{seed}@{digest}.log",
    benchmark:
        "logs/train/{dataset}/{split}/{model}/seed-{seed}@{digest}.tsv"
    threads: lambda wc: STUDY.job("train", STUDY.run_path(wc)).spec.train.threads
    resources:
        mem_mb=4000,
    params:
        job=lambda wc: STUDY.command("train", STUDY.run_path(wc)),
        options=STUDY.training_options(),
    shell:
        "PYTHONPATH=src python -m eqcollapse train {params.job} {params.options}"
        " --inputs {input.data}"
        " --outputs {output.history} {output.snapshots} {output.features} {output.weights} > {log} 2>&1"
