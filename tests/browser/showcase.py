"""A service with runs as a team has them: passed, failed, running, waiting, and one with a big graph."""

import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.client import Client
from tests.support.runs import Run, over, repository, start
from tests.support.service import Service

_WAIT_S = 240
"""A run has a dozen containers, and the machine may have other work."""
QUICK_WORKFLOW = """\
name: Quick
on: manual
jobs:
  build: {command: "true"}
  test: {needs: [build], command: "true"}
"""
_BIG_TOP = """\
name: Nightly
on: [schedule, manual]
jobs:
  prepare: {command: "true"}
"""


def workflow(name: str) -> str:
    """Return the text of a workflow file."""
    return (Path(__file__).parent / "workflows" / f"{name}.yaml").read_text()


def big_workflow() -> str:
    """Return a workflow whose graph has about 50 nodes."""
    lines = [_BIG_TOP]
    platforms = ("linux", "freebsd", "darwin", "windows")
    for platform in platforms:
        lines.append(f"  build-{platform}: {{needs: [prepare], command: 'true'}}\n")
        for suite in ("unit", "api", "store", "cli", "docs", "chaos", "migration", "server"):
            command = "exit 3" if (platform, suite) == ("windows", "chaos") else "true"
            lines.append(f"  {suite}-{platform}: {{needs: [build-{platform}], command: '{command}'}}\n")
        suites = ", ".join(f"{suite}-{platform}" for suite in ("unit", "api", "store", "cli", "server"))
        lines.append(f"  package-{platform}: {{needs: [{suites}], command: 'true'}}\n")
    packages = ", ".join(f"package-{platform}" for platform in platforms)
    lines.append(f"  sign: {{needs: [{packages}], command: 'true'}}\n")
    lines.append("  upload: {needs: [sign], command: 'true'}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class Showcase:
    """The runs and jobs of the pages."""

    passed: Run
    failed: Run
    big: Run | None
    active: Run
    failed_job: str
    active_job: str
    project_id: str


def fill(service: Service, client: Client, *, with_big: bool = False) -> Showcase:
    """Make the runs; each but the active one is over on return. The big one takes a minute."""
    repos = [
        repository(
            service.source_root / name / "wordstats",
            {"workflows/ci.yaml": text} | ({"workflows/quick.yaml": QUICK_WORKFLOW} if name == "a" else {}),
        )
        for name, text in (
            ("a", workflow("passing")),
            ("b", workflow("failing")),
            ("c", big_workflow()),
            ("d", workflow("slow")),
        )
    ]
    event = {"name": "push", "branch": "main", "actor": "ann"}
    project = client.request(
        "POST", "projects", json={"name": "acme/wordstats", "git_url": f"file://{repos[0].path}"}
    ).json()
    schedule = {"name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    client.request("POST", f"projects/{project['project_id']}/schedules", json=schedule)
    secret = {"value": "hunter2-hunter2", "events": ["push"]}
    client.request("PUT", f"projects/{project['project_id']}/secrets/pypi:token", json=secret)
    big = None
    if with_big:
        for message in ("Count words of any language", "Release 1.4.0"):
            over(client, _of_project(client, event | {"message": message}), deadline_s=_WAIT_S)
        big = start(client, repos[2], event={"name": "schedule", "message": "Every night"})
        over(client, big, deadline_s=_WAIT_S)
    passed = _of_project(client, event | {"message": "Split at any white space"})
    message = "Count words at single spaces\n\nIt is faster."
    pull_request = {
        "name": "pull_request_opened",
        "branch": "faster-count",
        "base_branch": "main",
        "number": "41",
    }
    failed = start(client, repos[1], event=pull_request | {"message": message, "actor": "bob"})
    failed = over(client, failed, deadline_s=_WAIT_S)
    passed = over(client, passed, deadline_s=_WAIT_S)
    for command, name in (("echo cleaned", "clean caches"), ("exit 2", "rotate keys")):
        client.run(command, name=name)
    active = start(client, repos[3], event={"name": "manual", "message": "Release 1.5.0", "actor": "ann"})
    client.submit("true", name="needs a worker with a GPU", queue_name="gpu", priority=3)
    return Showcase(
        passed,
        failed,
        big,
        active,
        failed_job=_job_of(client, failed, "unit (3.12)"),
        active_job=_job_of(client, active, "integration"),
        project_id=str(project["project_id"]),
    )


def _of_project(client: Client, event: dict[str, str]) -> Run:
    """Start a run of the project."""
    body = {"project": "acme/wordstats", "workflow": "ci", "event": event}
    run: Run = client.request("POST", "runs", json=body).json()
    return run


def _job_of(client: Client, run: Run, node: str) -> str:
    """Return the job of a node as soon as it runs or has run."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        now = client.get(f"runs/{run['run_id']}")
        (item,) = (item for item in now["nodes"] if item["name"] == node)
        if item["job_id"] is not None and item["status"] not in ("queued", "submitted"):
            return str(item["job_id"])
        assert time.monotonic() < deadline, f"{node} did not start: {item}"
        time.sleep(0.2)
