"""What README points at is there."""

import re

import pytest

from projects import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [name for name in targets if "://" not in name and not (page.parent / name).exists()]
    assert not missing
