"""The run as a Workflow Run RO-Crate, of the profile Provenance Run Crate 0.5: WorkflowHub and Zenodo understand it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eqcollapse.provenance.commits import date, head
from eqcollapse.provenance.reading import Record, read_sound
from eqcollapse.runtime.errors import EqcollapseError
from eqcollapse.runtime.packages import installed_version
from eqcollapse.study.fingerprint import ROOT, files
from eqcollapse.study.grid import Study
from eqcollapse.study.jobs import Job
from eqcollapse.study.params import parse
from eqcollapse.study.stages import STAGES

TERMS = "https://w3id.org/ro/terms/workflow-run/context"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
LICENCE = "https://spdx.org/licenses/MIT"
SOURCE_FILES = ("params.yaml", "README.md", "LICENSE", "CITATION.cff", "dvc.yaml", "dvc.lock", "requirements.lock")
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".tex": "text/x-tex",
    ".yaml": "application/yaml",
}


def write_crate(config: Mapping[str, Any], output: Path) -> None:
    """Write the finished run of the study of `config` to `output`, a .zip or a folder that is not there yet.

    The files of data sets are described (size, sha256) and not packed: they are pinned, and others' to license.
    Raises EqcollapseError if a file of the study is missing: an unfinished run is no crate.
    """
    if output.exists():
        raise EqcollapseError(f"{output}: is there already: remove it, or name another with --output")
    jobs = list(Study(parse(config)))
    missing = next((file for job in jobs for file in job.files if not Path(file).is_file()), None)
    if missing:
        raise EqcollapseError(f"{missing}: is not there: run snakemake first")
    crate = _Crate(jobs).build()
    if output.suffix == ".zip":
        crate.write_zip(output)
    else:
        crate.write(output)


class _Crate:
    """A crate under construction."""

    def __init__(self, jobs: list[Job]):
        from rocrate.rocrate import ROCrate

        self._crate = ROCrate(version="1.1")
        self._jobs = jobs
        self._records = {job.record: read_sound(job.record) for job in jobs}
        self._ids: dict[str, str] = {}  # by path: the crate's own name for a file quotes the @ of a digest
        self._stages = list(dict.fromkeys(job.stage for job in jobs))

    def build(self) -> Any:
        """Return the crate with everything in it."""
        self._describe_root()
        workflow = self._workflow()
        tools = self._tools(workflow)
        self._files()
        steps = self._steps(workflow, tools)
        runs = {job.record: self._job_action(job, tools[job.stage]) for job in self._jobs}
        whole = self._run_action(workflow)
        self._organise(whole, steps, runs)
        return self._crate

    def _context(self, address: str, kind: str | list[str], **properties: Any) -> Any:
        from rocrate.model.contextentity import ContextEntity

        return self._crate.add(ContextEntity(self._crate, address, properties={"@type": kind, **properties}))

    def _describe_root(self) -> None:
        crate = self._crate
        crate.metadata.extra_contexts.append(TERMS)
        citation = yaml.safe_load(Path("CITATION.cff").read_text()) if Path("CITATION.cff").exists() else {}
        crate.name = f"A run of {citation.get('title', 'eqcollapse')}"
        crate.description = " ".join(
            str(citation.get("abstract", "Neural collapse in deep equilibrium models")).split()
        )
        crate.license = self._context(LICENCE, "CreativeWork", name="MIT License", identifier="MIT")
        commit = head()
        when = date(commit) if commit else None
        if when is None:
            raise EqcollapseError(
                "no git history here: a crate is dated by the commit that it is of; make it in a clone"
            )
        crate.datePublished = when
        crate.root_dataset["version"] = commit
        crate.root_dataset["author"] = _plain(self._authors(citation))
        for address, name in PROFILES.items():
            entity = self._context(address, "CreativeWork", name=name, version=address.rpartition("/")[2])
            crate.root_dataset.append_to("conformsTo", entity)

    def _authors(self, citation: Mapping) -> list:
        named = [author.get("name") or f"{author['given-names']} {author['family-names']}"
                 for author in citation.get("authors", [])]  # fmt: skip
        return [self._context(f"#author-{number}", "Organization", name=name) for number, name in enumerate(named, 1)]

    def _workflow(self) -> Any:
        kinds = {"@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]}
        workflow = self._crate.add_workflow("Snakefile", "Snakefile", main=True, lang="snakemake", properties=kinds)
        workflow["name"] = "eqcollapse"
        workflow["description"] = "Every figure and table of two papers on neural collapse, from data to report"
        workflow["license"] = {"@id": LICENCE}
        workflow["version"] = head()
        workflow["encodingFormat"] = "text/plain"
        workflow["conformsTo"] = self._context(
            BIOSCHEMAS, "CreativeWork", name="ComputationalWorkflow", version="1.0-RELEASE"
        )
        workflow["input"] = self._parameter("#input-params", "params.yaml", "File")
        workflow["output"] = [self._parameter(f"#output-{stage}", f"{stage}s", "File") for stage in ("table", "figure")
                              if stage in self._stages]  # fmt: skip
        return workflow

    def _parameter(self, identifier: str, name: str, kind: str) -> Any:
        profile = {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"}
        self._context(profile["@id"], "CreativeWork", name="FormalParameter", version="1.0-RELEASE")
        return self._context(identifier, "FormalParameter", name=name, additionalType=kind, conformsTo=profile)

    def _tools(self, workflow: Any) -> dict[str, Any]:
        """Add the module of each stage, which runs its jobs, as a part of the workflow."""
        tools = {}
        for stage in self._stages:
            path = _module_path(STAGES[stage].module)
            properties = {"@type": ["File", "SoftwareSourceCode"], "name": f"python -m eqcollapse {stage}",
                          "description": STAGES[stage].about, "programmingLanguage": "Python",
                          **_format(path)}  # fmt: skip
            tools[stage] = self._crate.get(path) or self._crate.add_file(path, path, properties=properties)
        parts = {tool.id: tool for tool in tools.values()}
        workflow["hasPart"] = list(parts.values())
        return tools

    def _files(self) -> None:
        """Add settings and sources as they are, results with their sha256, and data sets by description."""
        rules = [str(path) for path in sorted(Path("workflow").rglob("*")) if path.is_file()]
        code = {
            f"src/{path.relative_to(ROOT.parent)}" for stage in self._stages for path in files(STAGES[stage].module)
        }
        for path in [*SOURCE_FILES, *rules, *sorted(code)]:
            if Path(path).is_file() and self._crate.get(path) is None:
                self._crate.add_file(path, path, properties={"name": path, **_format(path)})
        self._crate.get("README.md")["about"] = {"@id": "./"}
        self._crate.get("params.yaml")["exampleOfWork"] = {"@id": "#input-params"}
        for job in self._jobs:
            for file, stated in self._records[job.record].outputs.items():
                self._output(job, file, stated)
            properties = {"name": f"provenance record of {job.path}", "encodingFormat": "application/json"}
            self._ids[job.record] = self._crate.add_file(job.record, job.record, properties=properties).id

    def _output(self, job: Job, file: str, stated: Mapping) -> None:
        properties = {"name": file.rpartition("/")[2], "sha256": stated["sha256"], "contentSize": str(stated["bytes"])}
        if job.stage == "data":
            about = "not packed: made anew from pinned sources"
            self._ids[file] = self._context(f"#{file}", "CreativeWork", description=about, **properties).id
            return
        properties |= _format(file)
        if job.stage in ("table", "figure"):
            properties["exampleOfWork"] = {"@id": f"#output-{job.stage}"}
        self._ids[file] = self._crate.add_file(file, file, properties=properties).id

    def _reference(self, file: str) -> dict[str, str]:
        return {"@id": self._ids[file]}

    def _steps(self, workflow: Any, tools: Mapping) -> dict[str, Any]:
        steps = {}
        for position, stage in enumerate(self._stages):
            steps[stage] = self._context(f"#step-{stage}", "HowToStep", name=STAGES[stage].about,
                                         position=str(position), workExample={"@id": tools[stage].id})  # fmt: skip
        workflow["step"] = list(steps.values())
        return steps

    def _job_action(self, job: Job, tool: Any) -> Any:
        record = self._records[job.record]
        properties = {
            "@type": "CreateAction",
            "name": f"{job.stage}: {job.path}",
            "description": " ".join(record.content["command"][:4]),
            "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
            "subjectOf": self._reference(job.record),
            **self._container(record),
        }
        objects = [self._reference(file) for file in job.inputs] or [{"@id": "params.yaml"}]
        results = [self._reference(file) for file in job.outputs]
        return self._crate.add_action(tool, f"#job-{job.path}", _plain(objects), _plain(results), properties)

    def _container(self, record: Record) -> dict[str, Any]:
        image = record.content["environment"]["image"]
        if not image:
            return {}
        entity = self._context(f"#image-{image['sha256'][:12]}", "ContainerImage", name="eqcollapse.sif",
                               sha256=image["sha256"])  # fmt: skip
        return {"containerImage": {"@id": entity.id}}

    def _run_action(self, workflow: Any) -> Any:
        shown = [file for job in self._jobs if job.stage in ("table", "figure") for file in job.outputs]
        results = [self._reference(file) for file in shown or [file for job in self._jobs for file in job.outputs]]
        properties = {"name": "The run of the study in params.yaml", "@type": "CreateAction",
                      "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"}}  # fmt: skip
        action = self._crate.add_action(workflow, "#run", {"@id": "params.yaml"}, results, properties)
        self._crate.root_dataset["mentions"] = action
        return action

    def _organise(self, whole: Any, steps: Mapping, runs: Mapping) -> None:
        """Tie the run, its steps and its jobs together: what Snakemake organised."""
        controls = [
            self._context(f"#control-{job.path}", "ControlAction", name=f"control of {job.path}",
                          instrument={"@id": steps[job.stage].id}, object={"@id": runs[job.record].id})
            for job in self._jobs
        ]  # fmt: skip
        version = installed_version("snakemake") or "unknown"
        engine = self._context("#snakemake", "SoftwareApplication", name="Snakemake", version=version,
                               url="https://snakemake.github.io")  # fmt: skip
        self._context("#organize", "OrganizeAction", name="Snakemake's run", instrument={"@id": engine.id},
                      object=[{"@id": control.id} for control in controls], result={"@id": whole.id})  # fmt: skip


def _plain(values: list) -> Any:
    """Return the one value of a list alone, as RO-Crate asks for; longer lists as they are."""
    return values[0] if len(values) == 1 else values


def _format(path: str) -> dict[str, str]:
    return {"encodingFormat": FORMATS.get(Path(path).suffix, "text/plain")}


def _module_path(module: str) -> str:
    return f"src/{module.replace('.', '/')}.py"
