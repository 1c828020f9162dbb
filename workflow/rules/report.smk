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
        caption=lambda wc: STUDY.job("table", f"results/tables/{wc.name}.csv").caption,
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
        caption=lambda wc: STUDY.job("figure", f"results/figures/{wc.name}.pdf").caption,
    shell:
        "PYTHONPATH=src python -m eqcollapse figure {params.job}"
        " --inputs {input.metrics} --outputs {output.pdf} {output.png} {output.svg} > {log} 2>&1"


rule claims:
    input:
        metrics=ancient(STUDY.inputs("claims", "results/claims.json")),
    output:
        json="results/claims.json",
        md=report(
            "results/claims.md",
            caption="../report/claims.rst",
            category="Claims",
        ),
        record="results/claims.provenance.json",
    log:
        "logs/report/claims.log",
    params:
        job=STUDY.command("claims", "results/claims.json"),
    shell:
        "PYTHONPATH=src python -m eqcollapse claims {params.job}"
        " --inputs {input.metrics} --outputs {output.json} {output.md} > {log} 2>&1"


rule page:
    input:
        shown=ancient(STUDY.inputs("page", "results/report.html")),
    output:
        html="results/report.html",
        record="results/report.html.provenance.json",
    log:
        "logs/report/page.log",
    params:
        job=STUDY.command("page", "results/report.html"),
    shell:
        "PYTHONPATH=src python -m eqcollapse page {params.job}"
        " --inputs {input.shown} --outputs {output.html} > {log} 2>&1"
