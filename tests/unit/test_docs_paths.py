"""Files that the documentation names are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\b(?:dmoe|tests|tools|configs|launch)/[\w/]+\.(?:py|sh|yaml)\b")


def test_files_that_the_documentation_names_exist():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "tools" / "bench" / "README.md"]
    named = {(page.name, path) for page in pages for path in NAMED.findall(page.read_text())}
    assert len(named) > 50
    assert sorted((page, path) for page, path in named if not (ROOT / path).exists()) == []
