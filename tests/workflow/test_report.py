"""The report of a study that the real Snakemake ran: files, the page in a real browser, the same bytes again."""

import json
import re
import shutil
import subprocess

import pytest

from projects import Project, cloned

pytestmark = pytest.mark.workflow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what the page asked for would fail, and be told on the console
    "--virtual-time-budget=3000",
)
MODELS = {name: {"train": {"epochs": 2}, "network": {"width": 4, "stages": 3, "blocks": 1}} for name in ("mse", "ce")}


@pytest.fixture(scope="session")
def reported(tmp_path_factory) -> Project:
    """A clone whose small study has both papers' experiments, run to its page."""
    project = cloned(tmp_path_factory.mktemp("reported") / "project")
    seeds = {"seeds": [0, 1]}
    b = {"datasets": ["digits"], "splits": ["balanced"], "models": ["mse", "ce"], "report": "b"}
    project.edit({"models": MODELS, "experiments": {"a": seeds, "b": b | seeds}})
    project.snakemake()
    return project


def browsed(project: Project, *words: str, width: int = 1200) -> subprocess.CompletedProcess:
    page = (project.folder / "results/report.html").as_uri()
    profile = project.folder.parent / "profile"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", *words, page]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_every_figure_of_both_papers_is_there(reported):
    figures = {path.stem for path in (reported.folder / "results/figures").glob("*.png")}
    assert figures >= {"a-figure-2-digits", "a-figure-3-digits", "a-figure-solver-digits", "b-figure-1", "b-figure-5"}
    claims = json.loads((reported.folder / "results/claims.json").read_text())
    assert {claim["claim"] for claim in claims} >= {f"{paper}{n}" for paper in "AB" for n in (1, 2, 3, 4)}


def test_the_page_needs_no_network(reported):
    page = (reported.folder / "results/report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("#", "data:")) for source in sources)
    assert "@import" not in page
    assert "url(http" not in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {source[1:] for source in sources if source.startswith("#")} <= set(ids)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_page_and_asks_nobody(reported):
    answer = browsed(reported, "--enable-logging=stderr", "--dump-dom")
    assert answer.stdout.count("<svg") > 5
    assert "CONSOLE" not in answer.stderr


def test_drawn_again_it_is_the_same_bytes(reported):
    before = reported.files("results/figures", "results/tables")
    page = (reported.folder / "results/report.html").read_bytes()
    reported.snakemake("report", "--forcerun", "figure", "table", "claims", "page")
    assert reported.files("results/figures", "results/tables") == before
    assert (reported.folder / "results/report.html").read_bytes() == page


def test_snakemake_has_a_report_of_it_with_captions_and_categories(reported, tmp_path):
    file = tmp_path / "report.html"
    reported.snakemake("--report", str(file))
    text = file.read_text(encoding="utf-8")
    for category in ("Figures", "Tables", "Claims"):
        assert category in text
    assert "a-figure-3-digits" in text
