"""Runs of workflows: the overhead of a graph, and the delay of a dependent job."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, alone, interleaved, ratio, seconds
from benchmarks.service import Client, serving

_LAYERS = 5
_GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.com")


def layers(image: str, *, quick: bool) -> Figure:
    """Compare a run whose jobs each need one of the layer before with as many jobs submitted by hand."""
    width = 2 if quick else 10
    text = "".join(
        _job(f"j{layer}_{column}", image, f"j{layer - 1}_{column}" if layer else "")
        for layer in range(_LAYERS)
        for column in range(width)
    )
    with project(text) as path, serving("--concurrency", "4", "--source-root", str(path)) as service:
        client = service.client()

        def by_hand() -> None:
            for job_id in [client.submit(image) for _ in range(_LAYERS * width)]:
                client.wait(job_id)

        ours_s, bare_s = interleaved(
            1 if quick else 3, lambda: seconds(lambda: run(client, path)), lambda: seconds(by_hand)
        )
    return ratio(f"run of {_LAYERS * width} nodes, 4 at a time", ours_s, bare_s, unit="s", mark=1.15)


def to_dependent(image: str, *, quick: bool) -> Figure:
    """Return the time from the end of a job to the claim of the one that needs it."""
    length = 5 if quick else 25
    text = "".join(_job(f"j{number}", image, f"j{number - 1}" if number else "") for number in range(length))
    with project(text) as path, serving("--concurrency", "2", "--source-root", str(path)) as service:
        client = service.client()
        run_id = run(client, path)
        nodes = json.loads(client.call("GET", f"/runs/{run_id}"))["nodes"]
        times = [_times(client, node["job_id"]) for node in nodes]
    gaps_ms = [(after[0] - before[1]).total_seconds() * 1000 for before, after in pairwise(times)]
    return alone("job's end to its dependent's claim", gaps_ms, unit="ms", mark=20)


def _job(name: str, image: str, need: str) -> str:
    return f'  {name}: {{image: "{image}", command: "true", checkout: false, needs: [{need}]}}\n'


@contextlib.contextmanager
def project(jobs: str) -> Iterator[Path]:
    """Yield a repository with a workflow of these jobs."""
    with tempfile.TemporaryDirectory(prefix="reactorcide-benchmark-") as directory:
        path = Path(directory, "project")
        file = path / ".reactorcide" / "workflows" / "ci.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"name: CI\non: push\njobs:\n{jobs}", encoding="utf-8")
        for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "x"]):
            subprocess.run([*_GIT, *arguments], cwd=path, check=True)
        yield path


def run(client: Client, path: Path, **fields: Any) -> str:
    """Run the workflow of a repository and return the run's id."""
    body = {"git_url": str(path)} | fields
    state: dict[str, Any] = json.loads(client.call("POST", "/runs", body, expect=201))
    while state["status"] == "running":
        state = json.loads(client.call("GET", f"/runs/{state['run_id']}?wait=60"))
    if state["status"] != "completed":
        raise RuntimeError(f"a benchmark's run {state['status']}: {state['reason']}")
    return str(state["run_id"])


def _times(client: Client, job_id: str) -> tuple[datetime, datetime]:
    """Return when a job was claimed, and when it ended."""
    (attempt,) = json.loads(client.call("GET", f"/jobs/{job_id}/attempts"))["attempts"]
    return datetime.fromisoformat(attempt["claimed_at"]), datetime.fromisoformat(attempt["completed_at"])
