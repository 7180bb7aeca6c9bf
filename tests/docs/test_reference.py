"""The tables of docs/reference.md have what the code has, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from reactorcide.cli.root import cli
from reactorcide.domain.jobs import JobStatus
from tests.support.contract import api_document
from tests.support.reference import table

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)


def test_every_api_call_is_documented() -> None:
    documented = {
        (method, f"/api/v1{path}")
        for cells in table("API")
        for method, path in re.findall(r"`([A-Z]+) (/\S+)`", cells[0])
    }
    offered = {
        (method.upper(), path) for path, methods in api_document()["paths"].items() for method in methods
    }
    # The same call by another name or method, and the page for people; the text mentions them.
    others = {
        ("GET", "/api/health"),
        ("GET", "/metrics"),
        ("GET", "/api/docs"),
        ("GET", "/api/docs/{name}"),
        ("POST", "/api/v1/jobs/{job_id}/cancel"),
    }
    assert documented == offered - others


def test_every_status_is_documented() -> None:
    assert [cells[0] for cells in table("Statuses")] != []
    assert {cells[0] for cells in table("Statuses")} == {f"`{status}`" for status in JobStatus}


def commands(group: click.Command, *names: str) -> Iterator[str]:
    """Yield the full name of each command that does something itself."""
    if not isinstance(group, click.Group):
        yield " ".join(names)
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, *names, name)


def test_every_command_is_documented() -> None:
    assert {cells[0].strip("`") for cells in table("Command line")} == set(commands(cli))


def anchor(heading: str) -> str:
    """Return what a forge makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links_have_a_target(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        aim = (path.parent / name).resolve() if name else path
        assert aim.exists(), f"{path.name}: {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, f"{path.name}: {target}"
