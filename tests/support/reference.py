"""The tables of docs/reference.md."""

import re
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading, each as its cells."""
    text = REFERENCE.read_text(encoding="utf-8")
    section = re.split(rf"^## {re.escape(heading)}\n", text, flags=re.MULTILINE)[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]
