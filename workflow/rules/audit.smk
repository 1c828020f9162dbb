import json


rule audit:
    log:
        "logs/audit.log",
    localrule: True
    params:
        settings=json.dumps(config, sort_keys=True),
    shell:
        "PYTHONPATH=src python -m eqcollapse audit --config {params.settings:q} 2>&1 | tee {log}"
