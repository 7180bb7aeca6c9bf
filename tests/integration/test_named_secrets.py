"""Named secrets on the real engine: the rules for their use, and that they are never shown."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.test_projects import create, new_user
from tests.integration.test_projects import start as start_of_project
from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.runs import Run, node, over, repository, statuses
from tests.support.service import Service

NewSource = Callable[..., Repository]

WORKFLOW = """
name: CI
on: [push, pull_request, tag]
jobs:
  publish:
    environment: {URL: "https://ann:${secret:pypi/prod:token}@host", SHOWN: "$${x}"}
    command: |
      echo "$URL" | tr a-z A-Z
      echo "$URL $SHOWN"; echo "${URL#*ann:}" | cut -d@ -f1
      echo "$URL" > /job/artifacts/url
  other: {command: 'echo "it is $(cat leaked)"'}
"""


@pytest.fixture
def new_source(service: Service) -> NewSource:
    """A factory of repositories with one workflow."""

    def make(text: str = WORKFLOW) -> Repository:
        source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
        source.commit("leaked", "nothing\n")
        return source

    return make


def put(client: Client, project: dict[str, Any] | None, name: str, **body: Any) -> dict[str, Any]:
    """Set a secret of a project or of the service; it must be accepted."""
    path = f"secrets/{name}" if project is None else f"projects/{project['project_id']}/secrets/{name}"
    response = client.request("PUT", path, json=body)
    assert response.status_code == 200, response.text
    secret: dict[str, Any] = response.json()
    return secret


def start(client: Client, project: dict[str, Any], event: str = "push", **fields: Any) -> Run:
    return over(client, start_of_project(client, project, event={"name": event}, **fields))


def test_secret_reaches_only_the_job_that_names_it(service: Service, new_source: NewSource) -> None:
    source, owner = new_source(), new_user(service)
    project = create(owner, source)
    value = f"s3cret-{uuid.uuid4()}"
    stored = put(owner, project, "pypi/prod:token", value=value)
    assert value not in str(stored)
    # Somebody has committed it, and the other job prints that.
    source.commit("leaked", f"{value}\n")
    run = start(owner, project)
    assert statuses(run) == {"publish": "completed", "other": "completed"}, run
    job_id = node(run, "publish")["job_id"]
    log = owner.log({"job_id": job_id}).decode()
    assert f"HTTPS://ANN:{value.upper()}@HOST" in log
    assert log.endswith("[REDACTED] ${x}\n[REDACTED]\n")
    assert owner.log({"job_id": node(run, "other")["job_id"]}).decode().endswith("it is [REDACTED]\n")
    view = owner.get(f"jobs/{job_id}")
    assert (view["job_env_vars"]["URL"], view["secret_env_vars"]) == ("[REDACTED]", ["URL"])
    assert value not in owner.request("GET", f"projects/{project['project_id']}/secrets").text
    for path in service.data_dir.rglob("*.db*"):
        assert value.encode() not in path.read_bytes()
    (listed,) = owner.get(f"projects/{project['project_id']}/secrets")["secrets"]
    (use,) = listed["uses"]
    assert (use["workflow"], use["run_id"], use["at"]) == ("ci", run["run_id"], listed["last_used_at"])
    audit = service.admin.get("audit", subject=f"{project['project_id']} pypi/prod:token")["deeds"]
    assert [item["action"] for item in audit] == ["secret.set"]


def test_secret_rules_limit_its_use(service: Service, new_source: NewSource) -> None:
    source, owner = new_source(), new_user(service)
    project = create(owner, source)
    source.git("branch", "feature")
    source.git("tag", "v1")
    sha = source.git("rev-parse", "HEAD")

    def reason(event: str = "push", **fields: Any) -> str | None:
        run = start(owner, project, event, **fields)
        assert node(run, "other")["status"] == "completed"
        publish = node(run, "publish")
        assert publish["status"] == ("completed" if publish["reason"] is None else "failed")
        assert run["status"] == publish["status"]
        return None if publish["reason"] is None else str(publish["reason"])

    name = "pypi/prod:token"
    refused = f"secret {name} may not be used for "
    assert reason() == f"there is no secret {name} that the project may use"
    put(owner, project, name, value="the value of it")
    assert reason() is None
    assert reason(ref="v1") is None
    assert reason("pull_request_opened", ref="feature") == f"{refused}pull_request"
    assert reason(ref=sha) == (
        f"{refused}a commit to which no branch and no tag leads; start the run for a branch or a tag"
    )
    # The value stays.
    put(owner, project, name, branches=["main", "release/*"])
    assert reason() is None
    assert reason(ref="feature") == f"{refused}the branch feature"
    assert reason(ref="v1") == f"{refused}the tag v1"
    put(owner, project, name, events=["tag_created", "pull_request_opened"], workflows=["ci"])
    assert reason() == f"{refused}push"
    assert reason("pull_request_opened", ref="feature") is None
    body = {"event": {"name": "pull_request_opened", "is_fork": True}, "ref": "feature"}
    run = over(owner, start_of_project(owner, project, **body))
    assert node(run, "publish")["reason"] == f"{refused}a pull request of a fork"
    put(owner, project, name, workflows=["deploy"])
    assert reason() == f"{refused}the workflow ci"


def test_an_event_of_another_branch_is_refused(service: Service, new_source: NewSource) -> None:
    source, owner = new_source(), new_user(service)
    project = create(owner, source)
    source.git("branch", "feature")
    for event in ({"branch": "main"}, {"tag": "v1"}):
        body = {"project": project["name"], "ref": "feature", "event": {"name": "push", **event}}
        response = owner.request("POST", "runs", json=body)
        assert (response.status_code, response.json()["details"][0]["field"]) == (400, "event"), response.text


def test_secret_of_the_service_is_limited_to_its_projects(service: Service, new_source: NewSource) -> None:
    source, owner = new_source(), new_user(service)
    projects = [create(owner, source), create(owner, source)]
    name = f"pypi/prod-{uuid.uuid4().hex}:token"
    for project in projects:
        # One of its own wins.
        put(owner, project, "pypi/prod:token", value="the first value")
    source.commit(".reactorcide/workflows/ci.yaml", WORKFLOW.replace("pypi/prod:token", name))
    missing = f"there is no secret {name} that the project may use"
    stored = put(service.admin, None, name, value="of the service")
    assert (stored["project_id"], stored["projects"]) == (None, [])
    assert node(start(owner, projects[0]), "publish")["reason"] == missing
    stored = put(service.admin, None, name, projects=[projects[0]["name"]])
    assert stored["projects"] == [projects[0]["name"]]
    assert start(owner, projects[0])["status"] == "completed"
    assert node(start(owner, projects[1]), "publish")["reason"] == missing
    assert owner.request("GET", "secrets").status_code == 403
    assert service.admin.request("DELETE", f"secrets/{name}").status_code == 204
    assert service.admin.request("DELETE", f"secrets/{name}").status_code == 404
    assert node(start(owner, projects[0]), "publish")["reason"] == missing


MULTI_LINE = """
name: CI
on: push
jobs:
  a: {environment: {KEY: "${secret:deploy:key}"}, command: 'echo "$KEY"'}
  b: {needs: [a], environment: {WORD: "${env:WORD}"}, command: 'echo "$WORD $MORE"'}
"""


def test_run_without_project_has_the_secrets_of_its_request(service: Service, new_source: NewSource) -> None:
    source, user = new_source(MULTI_LINE), new_user(service)
    key = "-----BEGIN KEY-----\nabcdefghijkl\nmnopqrstuvwx\n-----END KEY-----"
    body = {
        "git_url": f"file://{source.path}",
        "environment": {"WORD": "hello", "MORE": "again"},
        "secrets": {"deploy:key": key},
    }
    run = over(user, user.request("POST", "runs", json=body).json())
    assert statuses(run) == {"a": "completed", "b": "completed"}, run
    log = user.log({"job_id": node(run, "a")["job_id"]}).decode()
    assert log.endswith("[REDACTED]\n")
    assert "abcdefghijkl" not in log
    assert user.log({"job_id": node(run, "b")["job_id"]}).decode().endswith("hello again\n")
    again = over(user, user.request("POST", f"runs/{run['run_id']}/rerun", json={}).json())
    assert (again["status"], again["attempt"]) == ("completed", 2)
    del body["secrets"]
    failed = over(user, user.request("POST", "runs", json=body).json())
    assert node(failed, "a")["reason"] == (
        "there is no secret deploy:key: a run of no project has only those that it is started with"
    )
    del body["environment"]
    wrong = user.request("POST", "runs", json=body).json()
    assert (wrong["status"], wrong["reason"]) == (
        "failed",
        ".reactorcide/workflows/ci.yaml: the job 'b' has the reference ${env:WORD}, which has a value in a "
        "local run alone, as by reactorcide run --env",
    )


HANDED_ON = """
name: CI
on: push
jobs:
  a:
    environment: {URL: "https://${secret:deploy:key}@host"}
    command: printf 'url=%s\\nplain=x\\n' "$URL" >$REACTORCIDE_OUTPUT
  b: {needs: [a], environment: {URL: "${needs.a.url}"}, command: "true"}
  c: {needs: [a], environment: {X: "${needs.a.plain}"}, command: test $X = x && cat $RC_WF_VARS_FILE}
"""


def test_secret_is_not_passed_to_other_jobs(service: Service, new_source: NewSource) -> None:
    source, user = new_source(HANDED_ON), new_user(service)
    body = {"git_url": f"file://{source.path}", "secrets": {"deploy:key": "k3y-of-somebody"}}
    run = over(user, user.request("POST", "runs", json=body).json())
    assert statuses(run) == {"a": "completed", "b": "failed", "c": "completed"}, run
    assert node(run, "b")["reason"] == "${needs.a.url} is refused: its value contains a secret"
    assert user.log({"job_id": node(run, "c")["job_id"]}).decode().endswith('{"a.plain": "x"}')


def test_run_of_a_project_refuses_secret_values(service: Service, new_source: NewSource) -> None:
    owner = new_user(service)
    project = create(owner, new_source())
    for field, values in (("environment", {"PATH": "/evil"}), ("secrets", {"a:b": "value"})):
        response = owner.request("POST", "runs", json={"project": project["name"], field: values})
        assert (response.status_code, response.json()["message"]) == (
            400,
            f"{field} cannot be set for a run of a project",
        )


def test_invalid_secret_is_refused(idle_service: Service) -> None:
    owner = new_user(idle_service)
    body = {"name": f"acme/{uuid.uuid4().hex}", "git_url": "https://git.example/a.git"}
    path = f"projects/{owner.request('POST', 'projects', json=body).json()['project_id']}/secrets"
    for name, sent, field in (
        ("a:b", {"value": "abc"}, "value"),
        ("a:b", {"value": "abc\0def"}, "value"),
        ("a:b", {"value": "x" * (33 << 10)}, "value"),
        ("a:b", {}, "value"),
        ("a:b", {"value": "value", "events": ["pushed"]}, "events.0"),
        ("a:b", {"value": "value", "branches": ["a**"]}, "branches"),
        ("ab", {"value": "value"}, "name"),
        ("a:b", {"value": "value", "projects": []}, "projects"),
    ):
        response = owner.request("PUT", f"{path}/{name}", json=sent)
        assert response.status_code == 400, response.text
        assert [item["field"] for item in response.json()["details"]] == [field]
        assert "abc" not in response.text
