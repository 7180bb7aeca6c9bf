"""Runs of workflows on the real engine: the graph, conditions, matrices, errors, cancel and repeat."""

import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import NewService
from tests.sources.support import Repository, basic, git_http
from tests.support.client import Client
from tests.support.runs import Run, node, over, repository, start, statuses
from tests.support.service import Service
from tests.support.waiting import wait_until

NewProject = Callable[..., Repository]


@pytest.fixture
def project(service: Service) -> NewProject:
    """A factory of repositories below the shared service's source root."""

    def make(text: str, **more: str) -> Repository:
        return repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text} | more)

    return make


def log_of(api: Client, run: Run, name: str) -> str:
    return api.log({"job_id": node(run, name)["job_id"]}).decode()


GRAPH = """
name: CI
on: [push]
vars: {greeting: hello}
environment: {LANG: C.UTF-8}
jobs:
  build:
    run_local: {user: runner}
    environment: {WORD: "${vars.greeting}", EVENT: "${event.name} ${event.branch}"}
    command: |
      cat /job/ci/README
      readlink /job/ci
      id -u
      echo "$WORD $EVENT $REACTORCIDE_NODE $REACTORCIDE_RUN_ID"
      env | grep ^REACTORCIDE_
  test:
    needs: [build]
    matrix: {n: [3.10, "3.11"]}
    command: test "$N" = "${N}" && echo "n is $N"
    environment: {N: "${matrix.n}"}
  publish:
    needs: [test]
    on: {branches: [main]}
    command: echo published
"""


def test_a_workflow_runs_from_its_commit(api: Client, project: NewProject) -> None:
    source = project(GRAPH)
    run = start(api, source, event={"name": "push"})
    assert (run["status"], run["workflow"], run["workflow_name"], run["attempt"]) == (
        "running",
        "ci",
        "CI",
        1,
    )
    assert run["sha"] == source.git("rev-parse", "HEAD")
    assert statuses(run) | {"build": ""} == {
        "build": "",
        "test (3.10)": "waiting",
        "test (3.11)": "waiting",
        "publish": "waiting",
    }
    assert node(run, "publish")["reason"] == "it waits for test (3.10), test (3.11)"
    # What the branch leads to by now makes no difference.
    source.commit("README", "another\n")
    ended = over(api, run)
    assert ended["status"] == "completed", ended
    assert set(statuses(ended).values()) == {"completed"}
    log = log_of(api, ended, "build")
    assert "read me\n/job/src\n0\n" in log
    assert f"hello push main build {run['run_id']}\n" in log
    for line in ("EVENT_TYPE=push", "WORKFLOW=CI", "BRANCH=main", f"SHA={run['sha']}"):
        assert f"REACTORCIDE_{line}\n" in log
    assert "n is 3.10\n" in log_of(api, ended, "test (3.10)")
    jobs = api.get("jobs", run_id=run["run_id"])
    assert jobs["total"] == len(jobs["jobs"]) == 4
    assert {job["node"] for job in jobs["jobs"]} == set(statuses(ended))
    assert api.request("GET", f"runs/{run['run_id']}/file").text == GRAPH
    assert ended["run_id"] in [item["run_id"] for item in api.get("runs", workflow="ci")["runs"]]


OVER_HTTP = """
name: CI
on: [push]
jobs:
  a: {command: cat README, cache: {key: "file:README", paths: kept}}
  b: {needs: [a], command: "cat README; touch kept", cache: {key: "file:README", paths: kept}}
"""


@pytest.mark.parametrize("modern", [True, False])
def test_a_workflow_runs_from_a_git_server_over_http(api: Client, project: NewProject, modern: bool) -> None:
    source = project(OVER_HTTP)
    logins = ("ann:first-password", "bob:second-password")
    with git_http(source.path, login=logins, modern=modern) as server:
        for login in logins:
            url = f"http://{login}@{server.host}/.git"
            run = over(api, start(api, source, git_url=url, git_ref="main"))
            assert run["status"] == "completed", run
            assert run["sha"] == source.git("rev-parse", "HEAD")
            assert run["git_url"] == f"http://[REDACTED]@{server.host}/.git"
            logs = [log_of(api, run, name) for name in ("a", "b")]
            assert all("read me\n" in log and "password" not in log for log in logs)
        assert {basic(login) for login in logins} == set(server.authorizations)
        # A repository is the same for whoever logs in.
        assert "is restored" in logs[0]
        (cache,) = (
            item for item in api.get("caches", limit=200)["caches"] if server.host in item["repository"]
        )
        assert cache["repository"] == server.url
        refused = api.request("POST", "runs", json={"git_url": f"http://eve:wrong@{server.host}/.git"})
    assert refused.status_code == 400
    assert "wrong" not in refused.text


CONDITIONS = """
name: C
on: push
jobs:
  good: {command: "true"}
  bad: {command: exit 3}
  allowed: {command: exit 4, allow_failure: true}
  after_good: {needs: [good, allowed], command: "true"}
  after_bad: {needs: [bad], command: "true"}
  after_that: {needs: [after_bad], command: "true"}
  cleanup: {needs: [bad], condition: any_failed, command: "true"}
  report: {needs: [after_that, good], condition: always, command: "true"}
  other_branch: {on: {branches: [release]}, command: "true"}
  after_other: {needs: [other_branch], condition: no_failure, command: "true"}
"""


def test_conditions_select_jobs_after_a_failure(api: Client, project: NewProject) -> None:
    ended = over(api, start(api, project(CONDITIONS), event={"name": "push"}))
    assert ended["status"] == "failed"
    assert statuses(ended) == {
        "good": "completed",
        "bad": "failed",
        "allowed": "failed",
        "after_good": "completed",
        "after_bad": "skipped",
        "after_that": "skipped",
        "cleanup": "completed",
        "report": "completed",
        "other_branch": "skipped",
        "after_other": "completed",
    }
    assert node(ended, "bad")["reason"] == "exit code 3"
    assert node(ended, "after_bad")["reason"] == "bad did not succeed"
    assert node(ended, "other_branch")["reason"] == "the branch main matches none of release"
    assert node(ended, "after_bad")["job_id"] is None


def test_invalid_file_is_a_failed_run_with_all_errors(api: Client, project: NewProject) -> None:
    source = project("name: CI\non: push\njobs:\n  a: {comand: x}\n  b: {needs: [c], command: x}\n")
    run = start(api, source)
    assert (run["status"], run["nodes"]) == ("failed", [])
    path = ".reactorcide/workflows/ci.yaml"
    assert f"{path}:4:7: 'comand' is not a key of a job; did you mean command?" in run["reason"]
    assert f"{path}:5:15: needs: there is no job 'c'" in run["reason"]
    refused = api.request("POST", f"runs/{run['run_id']}/rerun", json={})
    assert refused.status_code == 409, refused.text


def test_too_many_files_are_an_error_for_every_workflow(api: Client, service: Service) -> None:
    files = {f"workflows/{number}.yaml": "x" for number in range(101)}
    run = start(api, repository(service.source_root / "many", files), workflow="1")
    assert run["status"] == "failed"
    assert "there are more than 100 files" in run["reason"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("services: {db: {image: x}}", "the job 'a': services: the image of db, docker.io/library/x:latest"),
        (
            'environment: {X: "${env:A}"}',
            "the job 'a' has the reference ${env:A}, which has a value in a local",
        ),
        ("cpu_limit: 900", "the job 'a': cpu_limit is above the server's maximum of 64"),
        ("image: other:latest", "the job 'a': runner_image docker.io/library/other:latest is none of those"),
    ],
)
def test_unsupported_keys_fail_the_run_with_a_reason(
    new_service: NewService, images: Any, keys: str, reason: str
) -> None:
    service = new_service(max_cpu_limit=64, allow_image=images.default)
    text = f"name: CI\non: push\njobs:\n  a: {{command: x, {keys}}}\n"
    source = repository(service.source_root / "project", {"workflows/ci.yaml": text})
    run = start(service.admin, source)
    assert run["status"] == "failed"
    assert reason in run["reason"]


def test_event_without_a_matching_trigger_skips_the_workflow(api: Client, project: NewProject) -> None:
    source = project("name: CI\non: {events: [push], branches: [release]}\njobs: {a: {command: x}}\n")
    run = start(api, source, event={"name": "push"})
    assert (run["status"], run["nodes"]) == ("skipped", [])
    assert run["reason"] == "the branch main matches none of release"
    paths = project("name: CI\non: push\npaths: {include: [src/**]}\njobs: {a: {command: exit 0}}\n")
    assert start(api, paths, event={"name": "push"}, changed_files=["docs/x"])["status"] == "skipped"
    assert (
        over(api, start(api, paths, event={"name": "push"}, changed_files=["src/x"]))["status"] == "completed"
    )


@pytest.mark.parametrize(
    ("files", "fields", "field", "message"),
    [
        ({}, {}, "workflow", "there is no workflow file in .reactorcide/workflows or .reactorcide/jobs"),
        (
            {"workflows/a.yaml": "name: A\non: push\njobs: {a: {command: x}}\n", "workflows/b.yaml": "x"},
            {},
            "workflow",
            "there is more than one workflow, so name one of them: a, b",
        ),
        ({"workflows/a.yaml": "x"}, {"workflow": "b"}, "workflow", "there is no workflow 'b'; there is a"),
        ({}, {"git_ref": "nope"}, "git_url", 'no branch, tag or commit "nope"'),
    ],
)
def test_unknown_workflow_is_refused(
    api: Client, service: Service, files: dict[str, str], fields: dict[str, str], field: str, message: str
) -> None:
    source = repository(service.source_root / uuid.uuid4().hex, files)
    response = api.request("POST", "runs", json={"git_url": f"file://{source.path}"} | fields)
    assert response.status_code == 400
    assert message in response.json()["message"]
    assert response.json()["details"][0]["field"] == field


LONG = """
name: CI
on: push
jobs:
  a: {command: "trap 'exit 1' TERM; sleep 60 & wait"}
  b: {needs: [a], command: "true"}
  c: {needs: [b], condition: always, command: "true"}
"""


def test_cancelled_run_ends_all_of_its_jobs(api: Client, project: NewProject) -> None:
    run = start(api, project(LONG))
    job = api.wait({"job_id": node(run, "a")["job_id"]}, "running")
    response = api.request("POST", f"runs/{run['run_id']}/cancel")
    assert response.status_code == 200, response.text
    cancelled = response.json()
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled")
    assert set(statuses(cancelled).values()) == {"cancelled"}
    assert api.job(job)["status"] == "cancelled"
    again = api.request("POST", f"runs/{run['run_id']}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_cancelled_job_is_a_failure_of_its_node(api: Client, project: NewProject) -> None:
    run = start(api, project(LONG))
    job_id = node(run, "a")["job_id"]
    for method, path in (("DELETE", ""), ("POST", "/rerun"), ("PUT", "/pin"), ("DELETE", "/pin")):
        refused = api.request(method, f"jobs/{job_id}{path}")
        assert refused.status_code == 409
        # The call of the run that does the same.
        assert f": {method} /runs/{run['run_id']}{path} " in refused.json()["message"]
    api.cancel({"job_id": job_id})
    ended = over(api, run)
    assert ended["status"] == "failed"
    assert statuses(ended) == {"a": "cancelled", "b": "skipped", "c": "completed"}
    refused = api.request("POST", f"runs/{run['run_id']}/cancel")
    assert refused.status_code == 409


GROUPS = """
name: CI
on: push
concurrency: {group: "ci-${event.branch}"}
jobs:
  a: {command: "test $REACTORCIDE_BRANCH = main || sleep 1000"}
  deploy: {needs: [a], concurrency: {group: prod}, command: "test $REACTORCIDE_BRANCH = dev || sleep 1000"}
"""


def test_runs_and_jobs_of_a_group_run_one_at_a_time(api: Client, project: NewProject) -> None:
    source = project(GROUPS)

    def begin(branch: str) -> Run:
        return start(api, source, event={"name": "push", "branch": branch})

    def runs_now(run: Run, name: str) -> bool:
        return bool(node(api.get(f"runs/{run['run_id']}"), name)["status"] == "running")

    first, second, other = begin("main"), begin("main"), begin("side")
    assert (second["status"], statuses(second)) == ("waiting", {"a": "waiting", "deploy": "waiting"})
    assert second["reason"] == f"it waits for the concurrency group ci-main, held by #{first['number']}"
    assert other["status"] == "running"
    wait_until(lambda: runs_now(first, "deploy"), 30, "the first deployment runs")
    assert api.request("POST", f"runs/{first['run_id']}/cancel").status_code == 200
    wait_until(lambda: runs_now(second, "deploy"), 30, "the next one runs")
    for run in (second, other):
        assert api.request("POST", f"runs/{run['run_id']}/cancel").status_code == 200


def test_full_group_cancels_the_newer_run_or_replaces_the_older(api: Client, project: NewProject) -> None:
    def begin(when_full: str) -> Run:
        group = f"concurrency: {{group: full, when_full: {when_full}}}"
        return start(api, project(f"name: CI\non: push\n{group}\njobs: {{a: {{command: sleep 1000}}}}\n"))

    first, newer = begin("queue"), begin("cancel")
    assert newer["status"] == "cancelled"
    assert newer["reason"] == f"the concurrency group full is held by #{first['number']}"
    last = begin("replace")
    replaced = over(api, first)
    assert (replaced["status"], replaced["reason"]) == ("cancelled", f"superseded by #{last['number']}")
    assert api.request("POST", f"runs/{last['run_id']}/cancel").status_code == 200


FLAKY = """
name: CI
on: push
jobs:
  ok: {command: "true"}
  flaky: {command: "test $REACTORCIDE_RUN_ID = x || exit ${FAILS:-1}"}
  after: {needs: [flaky], command: "true"}
  always: {needs: [flaky, ok], condition: always, command: "true"}
"""


def test_failed_nodes_are_repeated_as_the_next_attempt(api: Client, project: NewProject) -> None:
    run = over(api, start(api, project(FLAKY)))
    assert run["status"] == "failed"
    repeated = api.request("POST", f"runs/{run['run_id']}/rerun", json={"only": "failed"})
    assert repeated.status_code == 200, repeated.text
    assert (repeated.json()["attempt"], repeated.json()["status"]) == (2, "running")
    again = over(api, run)
    assert {item["name"]: item["jobs"] for item in again["nodes"]} == {
        "ok": 1,
        "flaky": 2,
        "after": 0,
        "always": 2,
    }
    job = api.job({"job_id": node(again, "flaky")["job_id"]})
    assert job["rerun_of"] == node(run, "flaky")["job_id"]
    # The earlier job stays.
    assert api.job({"job_id": job["rerun_of"]})["status"] == "failed"
    everything = api.request("POST", f"runs/{run['run_id']}/rerun", json={"only": "all"})
    assert everything.json()["attempt"] == 3
    assert {item["name"]: item["jobs"] for item in over(api, run)["nodes"]}["ok"] == 2
    succeeded = over(api, start(api, project("name: C\non: push\njobs: {a: {command: exit 0}}\n")))
    nothing = api.request("POST", f"runs/{succeeded['run_id']}/rerun", json={"only": "failed"})
    assert nothing.status_code == 409


def test_matrix_respects_max_parallel(api: Client, project: NewProject) -> None:
    text = "name: C\non: push\njobs:\n  a: {matrix: {n: [1, 2, 3], max_parallel: 1}, command: exit 0}\n"
    run = start(api, project(text))
    assert sorted(statuses(run).values()).count("waiting") == 2
    assert node(run, "a (3)")["reason"] == "no more than 1 of its matrix run at once"
    ended = over(api, run)
    assert ended["status"] == "completed"
    times = sorted(
        (job["created_at"], job["completed_at"]) for job in api.get("jobs", run_id=run["run_id"])["jobs"]
    )
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_an_idempotency_key_starts_one_run(api: Client, project: NewProject) -> None:
    body = {"git_url": f"file://{project(LONG).path}"}
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = api.request("POST", "runs", json=body, headers=headers)
    again = api.request("POST", "runs", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["run_id"] == again.json()["run_id"]
    other = api.request("POST", "runs", json=body | {"workflow": "ci"}, headers=headers)
    assert other.status_code == 409
    api.request("POST", f"runs/{first.json()['run_id']}/cancel")


def test_changes_of_runs_and_nodes_are_events(api: Client, project: NewProject) -> None:
    with api.request("GET", "events", stream=True) as response:
        run = start(api, project(CONDITIONS), event={"name": "push"})
        lines: list[str] = []
        for line in response.iter_lines(chunk_size=None):
            if run["run_id"] in line.decode():
                lines.append(line.decode())
            if '"node": null, "from": "running", "to": "failed"' in line.decode():
                break
    assert f'"run_id": "{run["run_id"]}", "number": {run["number"]}' in lines[0]
    assert any('"node": "after_bad", "from": "waiting", "to": "skipped"' in line for line in lines)
    assert any('"to": "completed"' in line and '"node": "good"' in line for line in lines)


def test_an_upload_runs_its_workflow(api: Client, project: NewProject) -> None:
    import io
    import tarfile

    packed = io.BytesIO()
    source = project("name: U\non: push\njobs: {a: {command: cat README}}\n")
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(source.path, ".", filter=lambda member: None if ".git" in member.name.split("/") else member)
    uploaded = api.request(
        "POST", "sources", data=packed.getvalue(), headers={"Content-Type": "application/gzip"}
    )
    response = api.request("POST", "runs", json={"source_id": uploaded.json()["source_id"]})
    assert response.status_code == 201, response.text
    ended = over(api, response.json())
    assert ended["status"] == "completed", ended
    assert log_of(api, ended, "a") == "read me\n"


def test_job_files_are_one_workflow(api: Client, service: Service) -> None:
    files = {
        "jobs/test.yaml": "name: test\ntriggers: {events: [push]}\njob: {command: exit 0}\n",
        "jobs/never.yaml": "name: never\njob: {command: exit 1}\n",
    }
    source = repository(service.source_root / uuid.uuid4().hex, files)
    ended = over(api, start(api, source, event={"name": "push"}))
    assert ended["status"] == "completed", ended
    assert statuses(ended) == {"test": "completed", "never": "skipped"}
    assert ended["workflow_name"] == source.path.name
