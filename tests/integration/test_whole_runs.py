"""Runs as a whole: pinned, deleted and counted; and ids that are shortened. No worker takes the jobs."""

import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.runs import Run, node, repository, start
from tests.support.service import Service

TEXT = """
name: CI
on: push
jobs:
  a: {command: "true"}
  b: {command: "true"}
"""


@pytest.fixture
def idle(new_service: NewService) -> Service:
    """A service whose worker takes no job."""
    return new_service(concurrency=0)


@pytest.fixture
def api(idle: Service) -> Client:
    return idle.admin


@pytest.fixture
def run(idle: Service, api: Client) -> Run:
    return start(api, repository(idle.source_root / "project", {"workflows/ci.yaml": TEXT}))


def test_ended_run_is_deleted_with_its_jobs(api: Client, run: Run) -> None:
    path = f"runs/{run['run_id']}"
    refused = api.request("DELETE", path)
    assert (refused.status_code, refused.json()["message"]) == (
        409,
        "the run has not ended, so it cannot be deleted; cancel it first",
    )
    assert api.request("POST", f"{path}/cancel").status_code == 200
    assert api.request("DELETE", path).status_code == 204
    assert api.request("GET", path).status_code == 404
    assert api.get("jobs")["total"] == 0
    for name in ("a", "b"):
        assert api.request("GET", f"jobs/{node(run, name)['job_id']}").status_code == 404
    assert "run.delete" in [deed["action"] for deed in api.get("audit")["deeds"]]


def test_a_run_is_pinned(api: Client, run: Run) -> None:
    path = f"runs/{run['run_id']}"
    assert run["pinned"] is False
    for _ in range(2):
        assert api.request("PUT", f"{path}/pin").json()["pinned"] is True
    assert api.request("DELETE", f"{path}/pin").json()["pinned"] is False
    assert [deed["action"] for deed in api.get("audit")["deeds"]][:2] == ["run.unpin", "run.pin"]


def test_run_lists_have_the_total(idle: Service, api: Client, run: Run) -> None:
    source = repository(idle.source_root / "another", {"workflows/ci.yaml": TEXT, "workflows/x.yaml": TEXT})
    for event in ("manual", "push"):
        start(api, source, workflow="x", event={"name": event, "branch": f"of-{event}"})
    page = api.get("runs", limit=1)
    assert (page["total"], page["limit"], len(page["runs"])) == (3, 1, 1)
    rest = api.get("runs", limit=1, cursor=page["next_cursor"])
    assert rest["total"] == 3
    assert [item["event"]["name"] for item in (page["runs"][0], rest["runs"][0])] == ["push", "manual"]
    for filters in ({"event": "push", "workflow": "x"}, {"branch": "of-push"}):
        assert [item["run_id"] for item in api.get("runs", **filters)["runs"]] == [page["runs"][0]["run_id"]]
    assert api.get("runs", workflow="x")["total"] == 2
    assert api.get("runs", workflow="x", status="failed")["total"] == 0
    assert idle.add_user("ann").get("runs")["total"] == 0


def test_ids_can_be_shortened_to_an_unambiguous_prefix(idle: Service, api: Client, run: Run) -> None:
    job_id = node(run, "a")["job_id"]
    # Its last group of digits alone is random; two jobs of one transaction are of one millisecond.
    short, shorter = job_id[:23], job_id[:8]
    assert api.get(f"jobs/{short}")["job_id"] == job_id
    assert api.get(f"jobs/{short}/attempts")["attempts"] == []
    ambiguous = api.request("GET", f"jobs/{shorter}")
    assert ambiguous.status_code == 400
    assert ambiguous.json()["message"] == (f"several ids begin with {shorter}; give more characters")
    run_id = run["run_id"]
    assert api.get(f"runs/{run_id[:8]}")["run_id"] == run_id
    assert api.get("jobs", run_id=run_id[:8])["total"] == 2
    assert api.request("GET", "jobs/00000000").status_code == 404
    assert api.request("GET", f"jobs/{job_id[:7]}").status_code == 404
    # The ids of another user's jobs are no candidates.
    other = idle.add_user("ann")
    assert other.request("GET", f"runs/{run_id[:13]}").status_code == 404
    assert api.request("POST", f"runs/{run_id[:13]}/cancel").json()["run_id"] == run_id
