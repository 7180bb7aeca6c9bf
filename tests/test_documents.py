"""The documents name existing tests and functions."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("document", ["security.md", "reliability.md"])
def test_every_test_named_in_a_document_exists(document: str) -> None:
    named = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)`", (ROOT / "docs" / document).read_text())
    named += re.findall(r"tests/[\w/]+\.py", (ROOT / "docs" / document).read_text())
    assert named
    # Those without a directory are the integration tests.
    places = (ROOT, ROOT / "tests", ROOT / "tests" / "integration")
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


def test_the_way_of_a_job_names_existing_functions() -> None:
    text = (ROOT / "docs" / "how-it-works.md").read_text()
    steps = re.findall(r"`([\w/]+\.py)` `(\w+)`", text)
    assert len(steps) > 20
    for path, name in steps:
        assert re.search(rf"def {name}\(", (ROOT / "reactorcide" / path).read_text()), (path, name)
