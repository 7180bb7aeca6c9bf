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
    repository = Repository(path)
    for name, content in files.items():
        target = repository.path / ".reactorcide" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    repository.commit("README", "read me\n")
    return repository


def start(client: Client, source: Repository, **fields: Any) -> Run:
    """Start a run of a repository and return it; it must be accepted."""
    response = client.request("POST", "runs", json={"git_url": f"file://{source.path}"} | fields)
    assert response.status_code == 201, response.text
    run: Run = response.json()
    return run


def over(client: Client, run: Run, deadline_s: float = 60) -> Run:
    """Return the run once it has ended."""
    deadline = time.monotonic() + deadline_s
    latest: Run = client.get(f"runs/{run['run_id']}")
    while latest["status"] not in OVER:
        assert time.monotonic() < deadline, f"not over within {deadline_s:g} s: {latest}"
        latest = client.get(f"runs/{run['run_id']}", wait=1)
    return latest


def statuses(run: Run) -> dict[str, str]:
    """Return the statuses of a run's nodes by name."""
    return {node["name"]: node["status"] for node in run["nodes"]}


def node(run: Run, name: str) -> dict[str, Any]:
    """Return one node of a run."""
    (item,) = (entry for entry in run["nodes"] if entry["name"] == name)
    return dict(item)
