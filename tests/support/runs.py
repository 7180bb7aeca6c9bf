"""Runs of workflows, over HTTP."""

import time
from pathlib import Path
from typing import Any

from tests.sources.support import Repository
from tests.support.client import Client

Run = dict[str, Any]
OVER = ("completed", "failed", "cancelled", "skipped")


def repository(path: Path, files: dict[str, str]) -> Repository:
    """Return a new repository with workflow files, each by its name."""
    made = Repository(path)
    for name, content in files.items():
        target = made.path / ".reactorcide" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    made.commit("README", "read me\n")
    return made


def start(client: Client, source: Repository, **fields: Any) -> Run:
    """Start a run of a repository and return it; it must be accepted."""
    response = client.request("POST", "runs", json={"git_url": f"file://{source.path}"} | fields)
    assert response.status_code == 201, response.text
    run: Run = response.json()
    return run


def over(client: Client, run: Run, deadline_s: float = 60) -> Run:
    """Return the run once it is over."""
    deadline = time.monotonic() + deadline_s
    found: Run = client.get(f"runs/{run['run_id']}")
    while found["status"] not in OVER:
        assert time.monotonic() < deadline, f"not over within {deadline_s:g} s: {found}"
        found = client.get(f"runs/{run['run_id']}", wait=1)
    return found


def statuses(run: Run) -> dict[str, str]:
    """Return the statuses of a run's nodes by name."""
    return {node["name"]: node["status"] for node in run["nodes"]}


def node(run: Run, name: str) -> dict[str, Any]:
    """Return one node of a run."""
    (found,) = (item for item in run["nodes"] if item["name"] == name)
    return dict(found)
