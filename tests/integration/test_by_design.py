"""The behaviour that docs/security.md calls intended, so that a change of it is noticed."""

import json
from pathlib import Path

import docker
import pytest

from tests.conftest import NewService
from tests.support.service import Service
from tests.support.waiting import wait_until


@pytest.mark.parametrize("how", ["disabled", "revoked"])
def test_jobs_of_a_disabled_user_continue(new_service: NewService, how: str) -> None:
    service = new_service(concurrency=1)
    user = service.add_user("ann")
    me = user.get("users/me")
    runs = user.submit("echo begun; sleep 3; echo done")
    wait_until(lambda: user.log(runs) == b"begun\n", 20, "the first one runs")
    waits = [user.submit("echo ran") for _ in range(2)]
    if how == "disabled":
        body = {"is_active": False}
        assert service.admin.request("PATCH", f"users/{me['user_id']}", json=body).status_code == 200
    else:
        (token,) = user.get("tokens")["tokens"]
        assert user.request("DELETE", f"tokens/{token['token_id']}").status_code == 204
    assert user.request("GET", "jobs").status_code == 401
    for job in (runs, *waits):
        assert service.admin.wait(job)["status"] == "completed"


def test_submit_only_token_can_read_artifacts_by_a_job(service: Service) -> None:
    user = service.add_user("submitter-of-artifacts")
    first = user.run("echo kept >/job/artifacts/file")
    token = user.request("POST", "tokens", json={"name": "n", "scopes": ["jobs:write"]}).json()
    submitter = service.client(token["token"])
    path = f"jobs/{first['job_id']}/artifacts/file"
    assert submitter.request("GET", path).status_code == 403
    second = submitter.submit("cat file", source_job_id=first["job_id"])
    user.wait(second)
    assert user.log(second) == b"kept\n"


def test_proxies_in_dockers_configuration_are_set_in_jobs(new_service: NewService, tmp_path: Path) -> None:
    config = {"proxies": {"default": {"httpProxy": "http://proxy.example.com:3128"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    api = new_service({"DOCKER_CONFIG": str(tmp_path)}).admin
    assert api.log(api.run('echo "$HTTP_PROXY"')) == b"http://proxy.example.com:3128\n"


def test_query_of_a_git_url_is_shown(idle_service: Service) -> None:
    url = "https://user:hidden@git.example.com/project.git?access_token=shown"
    job = idle_service.admin.post_job(source_type="git", git_url=url).json()
    assert "hidden" not in job["git_url"]
    assert job["git_url"].endswith("?access_token=shown")


def test_isolated_network_resolves_names_of_other_jobs(
    new_service: NewService, engine: docker.APIClient
) -> None:
    service = new_service(job_network="isolated", concurrency=2)
    other = service.add_user("neighbour")
    neighbour = other.submit("hostname -i; sleep 60")
    wait_until(lambda: bool(other.log(neighbour).strip()), 20, "it tells its address")
    address = other.log(neighbour).split()[0].decode()
    job = service.admin.run(f"nslookup {address}")
    assert neighbour["job_id"] in service.admin.log(job).decode()
    other.cancel(neighbour)
    other.wait(neighbour)
