"""The report of a study that the real Snakemake ran: files, the page in a real browser, the same bytes again."""

import json
import re
import shutil
import subprocess
from pathlib import Path

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
    "--host-resolver-rules=MAP * ~NOTFOUND",
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


def browsed(page: Path, profile: Path, *words: str, width: int = 1200) -> subprocess.CompletedProcess:
    flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},900", "--enable-logging=stderr", *words]
    command = [CHROMIUM, *flags, page.as_uri()]
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
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_the_page_and_asks_nobody(reported, tmp_path, width):
    page = reported.folder / "results/report.html"
    answer = browsed(page, tmp_path / "profile", "--dump-dom", width=width)
    assert answer.stdout.count("<svg") > 5
    assert "CONSOLE" not in answer.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(
    "planted",
    [
        '<img src="http://example.com/x.png">',
        '<p style="background: url(//example.com/x.png)">x</p>',
        '<script>fetch("http://example.com/x")</script>',
    ],
)
def test_a_page_that_asked_somebody_would_be_told_on(reported, tmp_path, planted):
    page = tmp_path / "planted.html"
    text = (reported.folder / "results/report.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"{planted}</body>"), encoding="utf-8")
    assert "CONSOLE" in browsed(page, tmp_path / "profile", "--dump-dom").stderr


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
