rule table:
    input:
        metrics=lambda wc: ancient(
            STUDY.inputs("table", f"results/tables/{wc.name}.csv")
        ),
    output:
        csv="results/tables/{name}.csv",
        md=report(
            "results/tables/{name}.md",
            caption="../report/table.rst",
            category="Tables",
        ),
        tex="results/tables/{name}.tex",
        record="results/tables/{name}.provenance.json",
    log:
        "logs/report/{name}.log",
    params:
        job=lambda wc: STUDY.command("table", f"results/tables/{wc.name}.csv"),
    shell:
        "PYTHONPATH=src python -m eqcollapse table {params.job}"
        " --inputs {input.metrics} --outputs {output.csv} {output.md} {output.tex} > {log} 2>&1"


rule figure:
    input:
        metrics=lambda wc: ancient(
            STUDY.inputs("figure", f"results/figures/{wc.name}.pdf")
        ),
    output:
        pdf="results/figures/{name}.pdf",
        png="results/figures/{name}.png",
        svg=report(
            "results/figures/{name}.svg",
            caption="../report/figure.rst",
            category="Figures",
        ),
        record="results/figures/{name}.provenance.json",
    log:
        "logs/report/{name}.log",
    params:
        job=lambda wc: STUDY.command("figure", f"results/figures/{wc.name}.pdf"),
    shell:
        "PYTHONPATH=src python -m eqcollapse figure {params.job}"
        " --inputs {input.metrics} --outputs {output.pdf} {output.png} {output.svg} > {log} 2>&1"
