"""Checking what a project needs, against a real repository and a forge of the test's own."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.conftest import NewService
from tests.support.client import Client
from tests.support.http_server import answer_with, serving
from tests.support.runs import repository
from tests.support.service import Service


@pytest.fixture
def service(new_service: NewService) -> Service:
    return new_service(allow_address="127.0.0.1", concurrency=0)


git_logins: list[str | None] = []
"""The Authorization fields of the requests from git."""


@pytest.fixture
def forge() -> Iterator[int]:
    """A forge that is like Gitea, and knows the tokens ``right`` and ``reader``."""
    git_logins.clear()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if not request.path.startswith("/api/v1/repos/acme/site"):
            git_logins.append(request.headers["Authorization"])
            answer_with(401, {"WWW-Authenticate": "Basic"})(request)
        elif request.headers["Authorization"] == "token right":
            answer_with(200, body=b'{"permissions": {"push": true}}')(request)
        elif request.headers["Authorization"] == "token reader":
            answer_with(200, body=b'{"permissions": {"push": false, "admin": false}}')(request)
        else:
            answer_with(401)(request)

    with serving(answer) as port:
        yield port


def checked(client: Client, **fields: Any) -> dict[str, Any]:
    response = client.request("POST", "projects", json={"name": "acme/site", **fields})
    assert response.status_code == 201, response.text
    project_id = response.json()["project_id"]
    answer: dict[str, Any] = client.request("POST", f"projects/{project_id}/check").json()
    return answer


def test_reachable_repository_passes_the_check(service: Service) -> None:
    source = repository(service.source_root / "project", {"workflows/ci.yaml": "name: CI\n"})
    report = checked(service.admin, git_url=f"file://{source.path}")
    assert report["repository"] is None
    assert report["token"] == "the project has no forge for commit statuses; set forge"


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("right", None),
        ("reader", "the token may only read the repository; setting a commit status needs write"),
        ("wrong", "the forge does not know the token (401); create a new one"),
        (None, "the project has no token of its forge for commit statuses; set token"),
    ],
)
def test_check_asks_the_forge_about_the_token(
    service: Service, forge: int, token: str | None, problem: str | None
) -> None:
    sent = {} if token is None else {"token": token}
    report = checked(service.admin, git_url=f"http://127.0.0.1:{forge}/acme/site.git", forge="gitea", **sent)
    assert report["token"] == problem
    # git has tried the token, too.
    assert "git: " in report["repository"]
    assert any(git_logins) is (token is not None)


def test_checks_use_slots_of_long_requests(new_service: NewService) -> None:
    """A server that does not answer must not keep all threads of the service."""
    free = threading.Event()
    entered = threading.Semaphore(0)

    def hang(request: BaseHTTPRequestHandler) -> None:
        entered.release()
        free.wait(30)

    service = new_service(allow_address="127.0.0.1", concurrency=0, stream_slots=2)
    with serving(hang) as port, ThreadPoolExecutor() as pool:
        project = {"name": "acme/site", "git_url": f"http://127.0.0.1:{port}/acme/site.git"}
        project_id = service.admin.request("POST", "projects", json=project).json()["project_id"]
        check = f"projects/{project_id}/check"
        first = pool.submit(service.admin.request, "POST", check)
        assert entered.acquire(timeout=20)
        response = service.admin.request("POST", check)
        assert (response.status_code, response.json()["error"]) == (503, "unavailable")
        free.set()
        assert first.result().status_code == 200


def test_forge_at_a_refused_address_is_not_contacted(new_service: NewService, forge: int) -> None:
    service = new_service(concurrency=0)
    report = checked(
        service.admin, git_url=f"http://127.0.0.1:{forge}/acme/site.git", forge="gitea", token="right"
    )
    assert "127.0.0.1 is a loopback address; the operator can allow it with" in report["token"]
