"""The example workflows: each checks, and says what it is an example of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reactorcide.domain.events import EventName
from reactorcide.workflows.definition import check
from reactorcide.workflows.events import Event
from tests.support.service import PROGRAM

WORKFLOWS = Path(__file__).resolve().parents[2] / "examples" / "workflows"
NODES = {
    "python-package": ["test (3.11)", "test (3.12)", "test (3.13)", "test (3.14-rc)", "build"],
    "database": ["test"],
    "deploy": ["build", "check", "deploy"],
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in WORKFLOWS.iterdir() if path.is_dir()} == set(NODES)


@pytest.mark.parametrize("example", NODES)
def test_example_passes_the_check(example: str) -> None:
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "check"],
        cwd=WORKFLOWS / example,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result
    assert "no error" in result.stderr
    assert "warning" not in result.stderr + result.stdout


@pytest.mark.parametrize(("example", "nodes"), NODES.items())
def test_example_has_the_documented_jobs(example: str, nodes: list[str]) -> None:
    root = WORKFLOWS / example
    files = {
        str(path.relative_to(root)): path.read_text() for path in (root / ".reactorcide").rglob("*.yaml")
    }
    (definition,) = check(files, example)
    graph = definition.expand(Event(name=EventName.PUSH, branch="main"))
    assert [node.name for node in graph.nodes if node.skipped is None] == nodes
    other = definition.expand(Event(name=EventName.PUSH, branch="other"))
    assert {node.name for node in other.nodes if node.skipped} == {"build", "deploy"} & {nodes[-1]}
