"""SIGKILL while a run starts, continues, is cancelled or repeated: it ends correctly."""

import contextlib
from pathlib import Path

import docker
import pytest
import requests

from tests.chaos.test_crash_points import armed, assert_nothing_remains, crash, keeps_orphans
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.runs import Run, over, repository, start, statuses
from tests.support.waiting import wait_until

TEXT = """
name: CI
on: push
jobs:
  build: {command: echo v=one >$REACTORCIDE_OUTPUT; echo x >/job/artifacts/x}
  lint: {command: exit 3}
  test:
    needs: [build]
    artifacts_from: [build]
    matrix: {n: [1, 2]}
    env: {V: "${needs.build.v}"}
    command: test $V = one && test -s /job/needs/build/x
  publish: {needs: [test, lint], command: "true"}
  report: {needs: [publish], condition: always, command: "true"}
"""
ENDED = {
    "build": "completed",
    "lint": "failed",
    "test (1)": "completed",
    "test (2)": "completed",
    "publish": "skipped",
    "report": "completed",
}


def only_run(api: Client) -> Run:
    (run,) = api.get("runs")["runs"]
    return dict(run)


def assert_ended(api: Client, *, attempt: int = 1) -> None:
    """See that the run ends as it would have without the kill, with no job too many."""
    ended = over(api, only_run(api))
    assert (ended["status"], ended["attempt"]) == ("failed", attempt)
    assert statuses(ended) == ENDED
    jobs = {node["name"]: node["jobs"] for node in ended["nodes"]}
    assert jobs == {name: 0 if status == "skipped" else attempt for name, status in ENDED.items()}
    assert api.get("jobs")["total"] == sum(jobs.values())


@pytest.mark.parametrize(
    "point",
    [
        "run-committed",
        "submit-task-made",
        "command-ended",
        "log-sealed",
        "dependents-committed",
        "finish-written",
    ],
)
def test_run_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, point)
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": TEXT})
    # Killed in the middle of the request, the client learns nothing; the run is there all the same.
    with contextlib.suppress(requests.ConnectionError):
        start(service.admin, source)
    crash(service, marker)
    assert_ended(service.admin)
    assert_nothing_remains(service, engine)


def test_rerun_survives_a_kill(new_service: NewService, engine: docker.APIClient, tmp_path: Path) -> None:
    service, marker = armed(new_service, tmp_path, "run-rerun-written")
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": TEXT})
    run = over(service.admin, start(service.admin, source))
    with contextlib.suppress(requests.ConnectionError):
        service.admin.request("POST", f"runs/{run['run_id']}/rerun", json={"only": "all"})
    crash(service, marker)
    assert_ended(service.admin, attempt=2)
    assert_nothing_remains(service, engine)


def test_superseded_run_ends_after_a_kill_at_each_crash_point(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "dependents-cancelled")
    text = (
        "name: CI\non: push\nconcurrency: {group: ci, when_full: replace}\n"
        "jobs:\n  a: {command: 'echo begun; test $REACTORCIDE_EVENT_TYPE = push || sleep 1000'}\n"
    )
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": text})
    older = start(service.admin, source)
    job = {"job_id": older["nodes"][0]["job_id"]}
    wait_until(lambda: service.admin.log(job).endswith(b"begun\n"), 30, "the command runs")
    with contextlib.suppress(requests.ConnectionError):
        start(service.admin, source, event={"name": "push"})
    crash(service, marker)
    newer, ended = service.admin.get("runs")["runs"]
    assert (ended["status"], ended["reason"]) == ("cancelled", "superseded by #2")
    assert over(service.admin, newer)["status"] == "completed"
    assert service.admin.job(job)["error"] == "superseded by #2"
    assert_nothing_remains(service, engine)


def test_interrupted_deletion_of_a_run_is_completed(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "run-delete-written")
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": TEXT})
    run = over(service.admin, start(service.admin, source))
    prefixes = [f"jobs/{job['job_id']}/" for job in service.admin.get("jobs")["jobs"]]
    service.until_sealed()
    assert all(service.object_keys(prefix) for prefix in prefixes)
    with contextlib.suppress(requests.ConnectionError):
        service.admin.request("DELETE", f"runs/{run['run_id']}")
    crash(service, marker)
    assert service.admin.get("runs")["total"] == service.admin.get("jobs")["total"] == 0
    wait_until(lambda: not any(map(service.object_keys, prefixes)), 30, "the logs are removed")
    assert_nothing_remains(service, engine)


def test_cancel_of_a_run_survives_a_kill(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "run-cancel-written")
    text = (
        "name: CI\non: push\njobs:\n  a: {command: echo begun; sleep 1000}\n  b: {needs: [a], command: x}\n"
    )
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": text})
    run = start(service.admin, source)
    job = {"job_id": run["nodes"][0]["job_id"]}
    wait_until(lambda: service.admin.log(job).endswith(b"begun\n"), 30, "the command runs")
    with contextlib.suppress(requests.ConnectionError):
        service.admin.request("POST", f"runs/{run['run_id']}/cancel")
    crash(service, marker)
    ended = only_run(service.admin)
    assert ended["status"] == "cancelled"
    assert service.admin.get("jobs")["total"] == 1
    assert_nothing_remains(service, engine)


CACHED = """
name: CI
on: push
jobs:
  a:
    cache: [{key: [k], paths: [/cache]}]
    command: cat /cache/f || { mkdir /cache; echo cached > /cache/f; }; echo kept > /job/artifacts/f
"""


@pytest.mark.parametrize("point", ["start-written", "artifacts-stored", "cache-stored", "cache-recorded"])
def test_cache_survives_a_kill_at_each_crash_point(
    point: str, new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, point)
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": CACHED})
    start(service.admin, source)
    crash(service, marker)
    ended = over(service.admin, only_run(service.admin))
    job = service.admin.job({"job_id": ended["nodes"][0]["job_id"]})
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert [item["path"] for item in service.admin.get(f"jobs/{job['job_id']}/artifacts")["artifacts"]] == [
        "f"
    ]
    (cache,) = service.admin.get("caches")["caches"]
    # The objects whose row was not written yet are removed.
    stored = {key.split("/")[1] for key in service.object_keys("caches/")}
    assert stored == {cache["cache_id"]} or (keeps_orphans(service) and stored > {cache["cache_id"]})
    again = over(service.admin, start(service.admin, source))
    assert "cached\n" in service.admin.log({"job_id": again["nodes"][0]["job_id"]}).decode()
    assert_nothing_remains(service, engine)


def test_interrupted_removal_of_a_project_is_completed(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "project-delete-written")
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": CACHED})
    body = {"name": "acme/site", "git_url": f"file://{source.path}"}
    project_id = service.admin.request("POST", "projects", json=body).json()["project_id"]
    run = service.admin.request("POST", "runs", json={"project": "acme/site"}).json()
    over(service.admin, run)
    service.until_sealed()
    assert service.object_keys("jobs/")
    assert service.object_keys("caches/")
    with contextlib.suppress(requests.ConnectionError):
        service.admin.request("DELETE", f"projects/{project_id}")
    crash(service, marker)
    assert service.admin.request("GET", f"projects/{project_id}").status_code == 404
    wait_until(lambda: not any(map(service.object_keys, ("jobs/", "caches/"))), 60, "its objects are removed")
    assert service.admin.get("runs", user_id=run["user_id"])["total"] == 0
    assert_nothing_remains(service, engine)


def test_an_approval_survives_a_kill(
    new_service: NewService, engine: docker.APIClient, tmp_path: Path
) -> None:
    service, marker = armed(new_service, tmp_path, "run-approve-written")
    text = "name: CI\non: pull_request\njobs: {a: {command: 'true'}}\n"
    source = repository(service.source_root / "of-run", {"workflows/ci.yaml": text})
    body = {"name": "acme/site", "git_url": f"file://{source.path}"}
    service.admin.request("POST", "projects", json=body)
    request = {"project": "acme/site", "event": {"name": "pull_request_opened", "is_fork": True}}
    path = f"runs/{service.admin.request('POST', 'runs', json=request).json()['run_id']}"
    service.admin.request("POST", f"{path}/cancel")
    held = service.admin.request("POST", f"{path}/rerun", json={"only": "all"}).json()
    assert (held["status"], held["waits_for_approval"]) == ("waiting", True)
    with contextlib.suppress(requests.ConnectionError):
        service.admin.request("POST", f"{path}/approve")
    crash(service, marker)
    ended = over(service.admin, held)
    assert (ended["status"], ended["trusted"], ended["waits_for_approval"]) == ("completed", False, False)
    assert_nothing_remains(service, engine)
