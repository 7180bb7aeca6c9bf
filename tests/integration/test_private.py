"""Private repositories of projects, from real servers through a run to its container."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NewService
from tests.sources.support import HttpServer, Project, git_http
from tests.support.client import Client
from tests.support.runs import Run, node, over
from tests.support.service import Service
from tests.support.sshd import sshd

TOKEN = "forge-token-0f1e2d3c4b"
WORKFLOW = """
name: CI
on: [push, schedule]
jobs:
  show:
    command: |
      cat lib/file .git/config
      env
      find / -xdev -type f -name 'key*' -newer /etc/passwd 2>/dev/null | head
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a workflow, and a submodule on the same server."""
    directory = tmp_path_factory.mktemp("private")
    inner, outer = Project(directory / "inner"), Project(directory / "outer")
    outer.submodule("lib", "../inner", inner.first)
    (outer.path / ".reactorcide" / "workflows").mkdir(parents=True)
    outer.commit(".reactorcide/workflows/ci.yaml", WORKFLOW)
    return directory


@pytest.fixture
def server(base: Path) -> Iterator[HttpServer]:
    with git_http(base, login=f"x-access-token:{TOKEN}") as server:
        yield server


def created(client: Client, git_url: str, **fields: Any) -> dict[str, Any]:
    body = {"name": f"acme/{uuid.uuid4().hex[:12]}", "git_url": git_url} | fields
    response = client.request("POST", "projects", json=body)
    assert response.status_code == 201, response.text
    project: dict[str, Any] = response.json()
    return project


def started(client: Client, project: dict[str, Any]) -> Run:
    response = client.request("POST", "runs", json={"project": project["name"], "event": {"name": "push"}})
    assert response.status_code == 201, response.text
    return over(client, response.json())


def assert_stored_nowhere(service: Service, run: Run, secrets: list[str]) -> None:
    """See that no answer, no log and no database has a secret in plain text."""
    api = service.admin
    job_id = node(run, "show")["job_id"]
    places = {
        "run": api.request("GET", f"runs/{run['run_id']}").text,
        "job": api.request("GET", f"jobs/{job_id}").text,
        "log": api.log({"job_id": job_id}).decode(),
        "service's log": service.log_text(),
        **{
            path.name: path.read_bytes().decode(errors="replace")
            for path in service.data_dir.rglob("*")
            if path.is_file()
        },
    }
    for place, text in places.items():
        assert [secret for secret in secrets if secret in text] == [], place


def test_a_token_clones_the_repository_and_its_submodule(service: Service, server: HttpServer) -> None:
    api = service.admin
    project = created(api, f"{server.url}/outer")
    refused = api.request("POST", "runs", json={"project": project["name"]})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_input")
    assert "access was denied" in refused.json()["message"]
    path = f"projects/{project['project_id']}"
    assert api.request("PATCH", path, json={"token": TOKEN}).status_code == 200
    run = started(api, project)
    assert run["status"] == "completed"
    assert_stored_nowhere(service, run, [TOKEN])
    # A run that is repeated has the token of now.
    api.request("PATCH", path, json={"token": "another-token-77"})
    again = over(api, api.request("POST", f"runs/{run['run_id']}/rerun", json={}).json())
    assert "access was denied" in node(again, "show")["reason"]
    assert_stored_nowhere(service, again, ["another-token-77", TOKEN])


def test_schedule_starts_a_run_of_a_private_repository(service: Service, server: HttpServer) -> None:
    api = service.admin
    project = created(api, f"{server.url}/outer", token=TOKEN)
    path = f"projects/{project['project_id']}/schedules"
    schedule = api.request("POST", path, json={"name": "n", "cron": "@yearly", "workflow": "ci"}).json()
    view = api.request("POST", f"{path}/{schedule['schedule_id']}/run").json()
    (run_id,) = view["occurrences"][0]["run_ids"]
    run = over(api, api.get(f"runs/{run_id}"))
    # It is of no admin, and the server is on a loopback address.
    assert "only the jobs of admins may reach" in run["reason"]


def test_a_deploy_key_clones_the_repository_and_its_submodule(
    new_service: NewService, base: Path, tmp_path: Path
) -> None:
    service = new_service(allow_address="127.0.0.1")
    api = service.admin
    with sshd(tmp_path / "sshd") as ssh:
        project = created(api, ssh.url(base / "outer"))
        path = f"projects/{project['project_id']}"
        response = api.request("POST", f"{path}/deploy-key")
        assert response.status_code == 201
        public = response.json()["public_key"]
        assert re.fullmatch(rf"ssh-ed25519 [A-Za-z0-9+/]+ reactorcide {project['name']}", public)
        refused = api.request("POST", "runs", json={"project": project["name"]})
        assert "access was denied" in refused.json()["message"]
        ssh.let_in(public)
        assert started(api, project)["status"] == "completed"
        # A run that no person has started, too.
        body = {"name": "n", "cron": "@yearly"}
        schedule = api.request("POST", f"{path}/schedules", json=body).json()
        view = api.request("POST", f"{path}/schedules/{schedule['schedule_id']}/run").json()
        (run_id,) = view["occurrences"][0]["run_ids"]
        run = over(api, api.get(f"runs/{run_id}"))
        assert run["status"] == "completed"
        assert_stored_nowhere(service, run, ["OPENSSH PRIVATE KEY"])
        credentials = {item["kind"]: item["public"] for item in api.get(path)["settings"]["credentials"]}
        assert (credentials["deploy_key"], credentials["known_hosts"]) == (public, ssh.host_key)
        assert list((service.data_dir / "workspaces").iterdir()) == []
        # A new key counts alone.
        api.request("POST", f"{path}/deploy-key")
        refused = api.request("POST", "runs", json={"project": project["name"]})
        assert "access was denied" in refused.json()["message"]
        assert api.request("DELETE", f"{path}/deploy-key").status_code == 204
        wrong = api.request("PATCH", path, json={"known_hosts": "127.0.0.1 is my friend!"})
        assert (wrong.status_code, wrong.json()["details"][0]["field"]) == (400, "known_hosts")
        kinds = [item["kind"] for item in api.get(path)["settings"]["credentials"]]
        assert "deploy_key" not in kinds
        api.request("PATCH", path, json={"known_hosts": ""})
        assert "known_hosts" not in api.request("GET", path).text
