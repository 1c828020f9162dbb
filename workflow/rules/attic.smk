ruleorder: bring_back > metrics > claims > page  # it comes before rules with wildcards anyway


rule bring_back:
    output:
        RUN.sweep.coming,
    log:
        "logs/attic.log",
    localrule: True
    message:
        "Results come back from .attic."
    shell:  # for the plan: a run brings them back before its first job
        "echo 'what lies in .attic comes back by the hook onstart: run without --no-hooks' > {log}; exit 1"
