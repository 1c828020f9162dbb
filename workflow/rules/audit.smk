import json


rule audit:
    localrule: True
    params:
        settings=json.dumps(config, sort_keys=True),
    shell:
        "PYTHONPATH=src python -m eqcollapse audit --config {params.settings:q}"
