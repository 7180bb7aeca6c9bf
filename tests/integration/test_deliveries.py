"""From ``git push`` to the status of a commit: a forge, over HTTP, and a real service."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from reactorcide.app.parts import webhook_rules
from reactorcide.settings import Settings
from tests.conftest import ended_cleanly
from tests.support.client import Client
from tests.support.dialects import DIALECTS, Repo
from tests.support.forge import TOKEN, Forge, ForgeRepository, running_forge
from tests.support.http_server import answer_with, serving
from tests.support.image import Images
from tests.support.runs import node, over
from tests.support.service import PROGRAM, Service, clean_environment
from tests.support.waiting import wait_until

CI = "name: CI\non: [push, tag, pull_request]\njobs: {test: {command: 'test -f README'}}\n"


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, engine: docker.APIClient, images: Images
) -> Iterator[Service]:
    """A service that may fetch from this host."""
    service = Service(
        tmp_path_factory.mktemp("service"),
        images.default,
        allow_address="127.0.0.1/32",
        bad_tokens=100,
        buildkit_address=BUILDKIT,
    )
    yield from ended_cleanly(service.start(), engine)


@pytest.fixture(params=DIALECTS)
def forge(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Forge]:
    with running_forge(tmp_path / "forge", request.param) as running:
        yield running


@pytest.fixture
def github(tmp_path: Path) -> Iterator[Forge]:
    with running_forge(tmp_path / "forge", "github") as running:
        yield running


def add_project(service: Service, forge: Forge, repository: ForgeRepository, **fields: Any) -> dict[str, Any]:
    """Create a project of a repository, and give its webhook to the forge."""
    body = {
        "name": f"acme/{time.monotonic_ns()}",
        "git_url": repository.push_url,
        "forge": forge.dialect.kind.value,
        "forge_url": forge.url,
        "token": TOKEN,
    } | fields
    answer = service.admin.request("POST", "projects", json=body)
    assert answer.status_code == 201, answer.text
    project: dict[str, Any] = answer.json()
    address = service.base_url + project["settings"]["webhook_url"].partition("//")[2].partition("/")[1]
    path = f"/api/v1/hooks/{project['project_id']}"
    assert project["settings"]["webhook_url"].endswith(path)
    repository.hook = f"{address.rstrip('/')}{path}", project["webhook_secret"]
    return project


def deliveries(client: Client, project: dict[str, Any], deadline_s: float = 60) -> list[dict[str, Any]]:
    """Return a project's deliveries, the oldest first, once none waits any more."""
    path = f"projects/{project['project_id']}/deliveries"
    wait_until(
        lambda: client.get(path, status="waiting")["total"] == 0, deadline_s, "all deliveries are processed"
    )
    newest_first: list[dict[str, Any]] = client.get(path, limit=1000)["deliveries"]
    return newest_first[::-1]


def command(service: Service, *arguments: str) -> str:
    """Return what a command prints, for the admin of a service."""
    access = {"REACTORCIDE_API_URL": service.base_url, "REACTORCIDE_API_TOKEN": str(service.admin.token)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=clean_environment(service.home) | access,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_starts_a_run_and_sets_a_status(service: Service, forge: Forge) -> None:
    repository = forge.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, forge, repository)
    sha = repository.commit("src", "1")
    for sent in (repository.push(), repository.tag("v1"), repository.pull_request("opened", 7, "fix")):
        for answer in repository.deliver(sent):
            assert answer.status_code == 202, answer.text
    received = deliveries(service.admin, project)
    started = [delivery for delivery in received if delivery["status"] == "started"]
    runs = [over(service.admin, {"run_id": delivery["run_ids"][0]}) for delivery in started]
    assert [(run["status"], run["sha"]) for run in runs] == [("completed", sha)] * 3
    names = [run["event"]["name"] for run in runs]
    assert names == ["push", "tag_created", "pull_request_opened"]
    assert service.admin.get("runs", project=project["project_id"])["total"] == 3
    if forge.dialect.has_statuses:
        contexts = [f"reactorcide/{kind}/ci" for kind in ("push", "tag", "pr")]
        final = dict.fromkeys(contexts, "success")
        wait_until(lambda: forge.final(sha) == final, 60, "the forge has the final statuses")
        for context in contexts:
            states = [status.state for status in forge.statuses(sha, context)]
            assert states in (["pending", "success"], ["success"])
    output = command(service, "runs", "show", runs[0]["run_id"])
    assert "completed" in output
    assert sha[:7] in output


BUILDKIT = "tcp://buildkit.example:1234"
FORKED = """
name: CI
on: [push, pull_request]
jobs:
  build: {capabilities: [builder], command: echo "at $BUILDKIT_HOST"}
  a: {on: pull_request, command: "cat word /job/ci/word; env | grep -E '_(HEAD_URL|HEAD_ACTOR|DIFF_BASE)='"}
"""


def test_fork_runs_its_commit_without_grants_of_the_project(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": FORKED})
    base_sha = repository.commit("word", "of the base\n")
    project = add_project(service, github, repository, pull_requests="all", builder=True)
    repository.deliver(repository.push())
    repository.commit("word", "of the fork\n")
    fork = Repo(2, "mona/site", github.url)
    repository.deliver(repository.pull_request("opened", 7, "fix", fork=fork))
    own, ended = [
        over(service.admin, {"run_id": delivery["run_ids"][0]})
        for delivery in deliveries(service.admin, project)
    ]
    assert f"\nat {BUILDKIT}\n" in service.admin.log({"job_id": node(own, "build")["job_id"]}).decode()
    assert node(ended, "build")["reason"] == (
        "the capability builder cannot be used: the code of a stranger never gets it"
    )
    log = service.admin.log({"job_id": node(ended, "a")["job_id"]}).decode()
    assert "of the fork\nof the base\n" in log
    variables = {"HEAD_URL": fork.clone_url, "HEAD_ACTOR": "mona", "DIFF_BASE": base_sha}
    for name, value in variables.items():
        assert f"REACTORCIDE_{name}={value}\n" in log


def test_delivery_commands_work(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, github, repository)
    repository.commit("src", "1")
    repository.deliver(repository.push())
    (delivery,) = deliveries(service.admin, project)

    def run(*arguments: str) -> str:
        return command(service, "project", "deliveries", *arguments)

    assert "run started" in run("list", project["name"], "--status", "started")
    output = run("show", project["name"], delivery["delivery_id"][:23])
    assert "x-github-event: push" in output
    assert '"refs/heads/main"' in output
    assert project["webhook_secret"] not in output
    assert "is processed again" in run("redeliver", project["name"], delivery["delivery_id"])
    (again,) = deliveries(service.admin, project)
    assert len(again["run_ids"]) == 2


def test_webhook_receives_the_result_of_a_push(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, github, repository)
    messages: list[tuple[str, bytes]] = []

    def take(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        messages.append((request.headers["webhook-signature"], body))
        answer_with(204)(request)

    with serving(take) as port:
        # One that is allowed by its address, and one of an internal network.
        allowed, internal = (
            service.admin.request(
                "POST", "webhooks", json={"url": url, "events": ["run"], "projects": [project["name"]]}
            ).json()
            for url in (f"http://127.0.0.1:{port}/", "http://10.1.2.3/")
        )
        repository.deliver(repository.push())
        wait_until(lambda: len(messages) == 2, 60, "the run's begin and end are told")
    assert [json.loads(body)["type"] for _, body in messages] == ["run.running", "run.completed"]
    assert {signature.partition(",")[0] for signature, _ in messages} == {"v1"}
    path = f"webhooks/{internal['webhook_id']}"
    wait_until(lambda: service.admin.get(path)["problem"] is not None, 20, "the other is refused")
    assert "10.1.2.3 is not a public address" in service.admin.get(path)["problem"]
    assert webhook_rules(Settings(allow_internal_webhooks=True)).refusal(ip_address("10.1.2.3")) is None
    for webhook in (allowed, internal):
        assert service.admin.request("DELETE", f"webhooks/{webhook['webhook_id']}").status_code == 204


def test_malformed_delivery_is_refused(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, github, repository)
    assert repository.hook is not None
    url, secret = repository.hook
    headers, body = github.dialect.request(repository.push()[0], secret)
    anonymous = service.anonymous()
    path = url.removeprefix(service.base_url)
    stored = set((service.data_dir / "objects" / "deliveries").glob("*/*"))

    def send(address: str = path, data: bytes = body, without: str = "") -> requests.Response:
        sent = {name: value for name, value in headers.items() if name != without}
        return anonymous.request("POST", address, data=data, headers=sent)

    assert send(data=body + b" ").status_code == 401
    assert send(without="X-Hub-Signature-256").status_code == 401
    assert send(without="X-GitHub-Delivery").status_code == 400
    assert send("/api/v1/hooks/019aa552-9c09-77ac-b544-929902c7203d").status_code == 404
    assert send("/api/v1/hooks/nope").status_code == 404
    assert send(data=b"x" * (26 << 20)).status_code in (413, 401)
    assert deliveries(service.admin, project) == []
    assert set((service.data_dir / "objects" / "deliveries").glob("*/*")) == stored


def test_large_delivery_is_accepted(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    project = add_project(service, github, repository)
    name, payload = repository.push()[0]
    (answer,) = repository.deliver([(name, payload | {"padding": "x" * (20 << 20)})], timeout_s=60)
    assert answer.status_code == 202, answer.text
    (delivery,) = deliveries(service.admin, project)
    assert delivery["status"] == "started"
    assert delivery["size"] > 20 << 20


def test_a_ping_is_answered(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    add_project(service, github, repository)
    ping = github.dialect.ping(repository.repo, ["push", "pull_request"])  # type: ignore[attr-defined]  # GitHub's
    (answer,) = repository.deliver([ping])
    assert answer.status_code == 202
    assert "start the workflows of" in answer.json()["outcome"]


def test_bad_deliveries_are_rate_limited(tmp_path: Path, images: Images, engine: docker.APIClient) -> None:
    service = Service(tmp_path / "few", images.default, bad_tokens=3, concurrency=0)
    for limited in ended_cleanly(service.start(), engine):
        anonymous = limited.anonymous()
        codes = [anonymous.request("POST", "hooks/nope", data=b"{}").status_code for _ in range(5)]
        assert codes == [404, 404, 404, 429, 429]


def test_slow_clients_do_not_block_deliveries(service: Service, github: Forge) -> None:
    repository = github.repository("acme/site", {"workflows/ci.yaml": CI})
    add_project(service, github, repository)
    assert repository.hook is not None
    path = repository.hook[0].removeprefix(service.base_url)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n".encode()
    name, payload = repository.push()[0]
    with ExitStack() as opened:
        for _ in range(60):
            stranger = opened.enter_context(closing(socket.socket()))
            stranger.bind(("127.0.0.2", 0))
            stranger.connect(("127.0.0.1", service.port))
            stranger.sendall(head + b"{")
        for padding_bytes in (1, 1 << 20):
            began = time.monotonic()
            (answer,) = repository.deliver([(name, payload | {"padding": "x" * padding_bytes})])
            assert answer.status_code == 202, answer.text
            assert json.loads(answer.text)["status"] == "waiting"
            assert time.monotonic() - began < 10
