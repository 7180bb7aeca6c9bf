"""Every route, with two users, an admin and nobody: no one reads or changes what belongs to another.

The routes are the application's own: a new one without an expectation here fails.
"""

import io
import re
import tarfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from reactorcide.app.service import Service as WholeService
from reactorcide.domain.accounts import Role, Scope
from reactorcide.settings import Settings
from reactorcide.web.auth import NEEDS, OF_WORKERS, PUBLIC
from tests.support.client import Client, Job
from tests.support.runs import Run, repository, start
from tests.support.service import Service

UNKNOWN = "019aa552-9c09-77ac-b544-929902c7203d"
ANN = "ann"
"""How the name begins of whoever makes what the others try to get at."""
JOB = {"name": "test", "job_command": "true", "source_type": "copy"}


@dataclass(frozen=True)
class Public:
    """For anybody, and the same for all."""

    status: int = 200
    json: Any = None


@dataclass(frozen=True)
class OfJob:
    """On one job: for its owner and admins."""

    status: int = 200
    """What the owner of a job that waits is answered."""


@dataclass(frozen=True)
class OfRun:
    """On one run: for its owner and admins."""

    status: int = 200
    """What the owner of a run that is not over is answered."""
    json: Any = None


@dataclass(frozen=True)
class OfProject:
    """On one project: for its owners and admins, and to others there is no such project."""

    status: int = 200
    """What an owner is answered."""
    json: Any = None
    reader: int = 403
    """What a member is answered who may only read."""


@dataclass(frozen=True)
class OfCache:
    """On one cache: for its owner and admins."""


@dataclass(frozen=True)
class Own:
    """Shows or makes what is the caller's own, and nothing else."""

    status: int = 200
    json: Any = None


@dataclass(frozen=True)
class OfWebhook:
    """On one webhook: for its creator and admins; to others there is no such webhook."""

    status: int = 200
    json: Any = None


@dataclass(frozen=True)
class OfToken:
    """On one token: for its owner, and to others there is no such token."""


@dataclass(frozen=True)
class OfSource:
    """On one uploaded source: for whoever has uploaded it and admins; to others there is no such source."""


@dataclass(frozen=True)
class Stream:
    """Goes on until somebody hangs up, with what is the caller's own and nothing else."""

    status: int = 200


@dataclass(frozen=True)
class Admins:
    """For admins only."""

    status: int = 200
    json: Any = None


@dataclass(frozen=True)
class Workers:
    """For workers on other machines, by their secrets; for no user, whatever the token."""


_ATTEMPT = "/api/v1/worker/attempts/<job_id>/<int:attempt>"
EXPECTED: Mapping[
    str,
    Public
    | OfJob
    | OfRun
    | OfProject
    | OfCache
    | OfWebhook
    | Own
    | OfToken
    | OfSource
    | Stream
    | Admins
    | Workers,
] = {
    "GET /metrics": Public(),
    "GET /api/health": Public(),
    "GET /api/docs": Public(),
    "GET /api/docs/<name>": Public(),
    "GET /api/v1/openapi.json": Public(),
    "GET /api/v1/schemas/workflow.json": Public(),
    "GET /api/v1/health": Public(),
    "GET /api/v1/ready": Public(),
    "GET /api/v1/metrics": Public(),
    "POST /api/v1/register": Public(403, {"invitation": "wrong", "username": "eve"}),
    "GET /api/v1/workers": Own(),
    "POST /api/v1/workers": Admins(400, {"name": "with a space"}),
    "POST /api/v1/workers/<worker_id>/drain": Admins(404),
    "POST /api/v1/workers/<worker_id>/resume": Admins(404),
    "DELETE /api/v1/workers/<worker_id>": Admins(404),
    "POST /api/v1/worker/register": Public(403, {"token": "wrong", "secret": "x" * 32}),
    "POST /api/v1/worker/sessions": Workers(),
    "POST /api/v1/worker/sessions/<session_id>/next": Workers(),
    "GET /api/v1/worker/attempts": Workers(),
    f"POST {_ATTEMPT}/renew": Workers(),
    f"PUT {_ATTEMPT}/log": Workers(),
    f"POST {_ATTEMPT}/handing-over": Workers(),
    f"POST {_ATTEMPT}/started": Workers(),
    f"POST {_ATTEMPT}/finish": Workers(),
    f"POST {_ATTEMPT}/try-again": Workers(),
    f"GET {_ATTEMPT}/source": Workers(),
    f"GET {_ATTEMPT}/inputs": Workers(),
    f"GET {_ATTEMPT}/needs": Workers(),
    f"POST {_ATTEMPT}/known-hosts": Workers(),
    f"PUT {_ATTEMPT}/artifacts/<path:path>": Workers(),
    f"POST {_ATTEMPT}/artifact-copies": Workers(),
    f"DELETE {_ATTEMPT}/artifacts": Workers(),
    f"PUT {_ATTEMPT}/listing": Workers(),
    f"PUT {_ATTEMPT}/report": Workers(),
    f"PUT {_ATTEMPT}/services/<service>/log": Workers(),
    f"POST {_ATTEMPT}/cache-lookups": Workers(),
    f"GET {_ATTEMPT}/caches/<cache_id>": Workers(),
    f"DELETE {_ATTEMPT}/caches/<cache_id>": Workers(),
    f"PUT {_ATTEMPT}/expected-caches": Workers(),
    f"GET {_ATTEMPT}/expected-caches": Workers(),
    f"PUT {_ATTEMPT}/caches": Workers(),
    "GET /api/v1/queues": Own(),
    "GET /api/v1/events": Stream(),
    # Nothing is sent, which is no tar.gz.
    "POST /api/v1/sources": Own(415),
    "GET /api/v1/sources/<source_id>": OfSource(),
    "POST /api/v1/jobs": Own(201, JOB),
    "GET /api/v1/jobs": Own(),
    "GET /api/v1/jobs/<job_id>": OfJob(),
    "DELETE /api/v1/jobs/<job_id>": OfJob(204),
    "PUT /api/v1/jobs/<job_id>/cancel": OfJob(),
    "POST /api/v1/jobs/<job_id>/cancel": OfJob(),
    "POST /api/v1/jobs/<job_id>/rerun": OfJob(201),
    "PUT /api/v1/jobs/<job_id>/pin": OfJob(),
    "DELETE /api/v1/jobs/<job_id>/pin": OfJob(),
    "GET /api/v1/jobs/<job_id>/logs": OfJob(),
    "GET /api/v1/jobs/<job_id>/logs/search": OfJob(),
    "GET /api/v1/jobs/<job_id>/attempts": OfJob(),
    "GET /api/v1/jobs/<job_id>/why": OfJob(),
    "GET /api/v1/jobs/<job_id>/artifacts": OfJob(),
    "GET /api/v1/jobs/<job_id>/artifacts/<path:path>": OfJob(404),
    "GET /api/v1/jobs/<job_id>/artifacts.tar.gz": OfJob(),
    "GET /api/v1/jobs/<job_id>/tests": OfJob(),
    "GET /api/v1/jobs/<job_id>/summary": OfJob(404),
    # It names no source.
    "POST /api/v1/runs": Own(400, {}),
    "GET /api/v1/runs": Own(),
    "GET /api/v1/runs/<run_id>": OfRun(),
    "GET /api/v1/runs/<run_id>/file": OfRun(),
    "POST /api/v1/runs/<run_id>/approve": OfRun(409),
    "POST /api/v1/runs/<run_id>/cancel": OfRun(),
    "POST /api/v1/runs/<run_id>/rerun": OfRun(409, {}),
    "DELETE /api/v1/runs/<run_id>": OfRun(409),
    "PUT /api/v1/runs/<run_id>/pin": OfRun(),
    "DELETE /api/v1/runs/<run_id>/pin": OfRun(),
    # It names no repository.
    "POST /api/v1/projects": Own(400, {"name": "eve"}),
    "GET /api/v1/projects": Own(),
    "GET /api/v1/projects/<project_id>": OfProject(reader=200),
    "GET /api/v1/projects/<project_id>/badge.svg": OfProject(reader=200),
    "PATCH /api/v1/projects/<project_id>": OfProject(json={"visibility": "private"}),
    "DELETE /api/v1/projects/<project_id>": OfProject(204),
    # A project that names no forge has no webhook.
    "POST /api/v1/hooks/<project_id>": Public(404),
    "GET /api/v1/projects/<project_id>/deliveries": OfProject(),
    "GET /api/v1/projects/<project_id>/deliveries/<delivery_id>": OfProject(404),
    "POST /api/v1/projects/<project_id>/deliveries/<delivery_id>/redeliver": OfProject(404),
    "POST /api/v1/projects/<project_id>/webhook-secret": OfProject(201),
    "DELETE /api/v1/projects/<project_id>/webhook-secret": OfProject(204),
    "GET /api/v1/projects/<project_id>/statuses": OfProject(reader=200),
    "POST /api/v1/projects/<project_id>/deploy-key": OfProject(201),
    "DELETE /api/v1/projects/<project_id>/deploy-key": OfProject(204),
    "POST /api/v1/projects/<project_id>/check": OfProject(),
    "PUT /api/v1/projects/<project_id>/members": OfProject(404, {"username": "no-such-user", "role": "read"}),
    "DELETE /api/v1/projects/<project_id>/members/<user_id>": OfProject(409),
    "GET /api/v1/caches": Own(),
    "POST /api/v1/webhooks": Own(404, {"url": "https://a.example", "events": ["run"], "projects": ["eve"]}),
    "GET /api/v1/webhooks": Own(),
    "GET /api/v1/webhooks/<webhook_id>": OfWebhook(),
    "PATCH /api/v1/webhooks/<webhook_id>": OfWebhook(json={"events": ["job"]}),
    "POST /api/v1/webhooks/<webhook_id>/secret": OfWebhook(201),
    "DELETE /api/v1/webhooks/<webhook_id>": OfWebhook(204),
    "GET /api/v1/webhooks/<webhook_id>/messages": OfWebhook(),
    "POST /api/v1/webhooks/<webhook_id>/messages/<message_id>/redeliver": OfWebhook(404),
    "DELETE /api/v1/caches/<cache_id>": OfCache(),
    "GET /api/v1/projects/<project_id>/secrets": OfProject(),
    "PUT /api/v1/projects/<project_id>/secrets/<path:name>": OfProject(json={"value": "secret"}),
    "DELETE /api/v1/projects/<project_id>/secrets/<path:name>": OfProject(404),
    "GET /api/v1/projects/<project_id>/schedules": OfProject(),
    # Its time is none.
    "POST /api/v1/projects/<project_id>/schedules": OfProject(400, {"name": "nightly", "cron": "never"}),
    "GET /api/v1/projects/<project_id>/schedules/<schedule_id>": OfProject(404),
    "PATCH /api/v1/projects/<project_id>/schedules/<schedule_id>": OfProject(404, {"enabled": True}),
    "DELETE /api/v1/projects/<project_id>/schedules/<schedule_id>": OfProject(404),
    "POST /api/v1/projects/<project_id>/schedules/<schedule_id>/run": OfProject(404),
    "GET /api/v1/secrets": Admins(),
    # It is too short, so that there is no such secret.
    "PUT /api/v1/secrets/<path:name>": Admins(400, {"value": "x"}),
    "DELETE /api/v1/secrets/<path:name>": Admins(404),
    "GET /api/v1/users/me": Own(),
    "POST /api/v1/tokens": Own(201, {"name": "another"}),
    "GET /api/v1/tokens": Own(),
    "DELETE /api/v1/tokens/<token_id>": OfToken(),
    "GET /api/v1/users": Admins(),
    "POST /api/v1/users": Admins(400, {"username": "with a space"}),
    "PATCH /api/v1/users/<string(length=36):user_id>": Admins(200, {"is_active": True}),
    "DELETE /api/v1/users/<string(length=36):user_id>": Admins(409),
    "POST /api/v1/invitations": Admins(201, {}),
    "GET /api/v1/audit": Admins(),
    "GET /api/v1/retention": Admins(),
    "POST /api/v1/links": Own(201),
    "GET /static/<version>/<name>": Public(),
    "GET /sign-in": Public(),
    "POST /sign-in": Public(400),
    # It leads to the page before.
    "POST /sign-out": Public(),
    "GET /": Own(),
    "GET /runs": Own(),
    "GET /runs/<run_id>": OfRun(),
    "GET /jobs": Own(),
    "GET /jobs/<job_id>": OfJob(),
    "GET /jobs/<job_id>/artifacts/<path:path>": OfJob(404),
    "GET /queues": Own(),
    "GET /workers": Own(),
    "GET /projects": Own(),
    "GET /projects/<project_id>": OfProject(reader=200),
    "GET /account": Own(),
    "GET /admin": Admins(),
}
_SHOW_NOTHING_OF_ONES_OWN = ("GET /api/v1/workers", "GET /workers")
"""Here no worker runs anything."""


def routes() -> set[str]:
    """Return what the application answers, as ``METHOD rule``."""
    app = WholeService(Settings(data_dir=Path("/nowhere")), {}).wsgi
    return {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def routes_of(*kinds: type) -> list[str]:
    return [route for route, expected in EXPECTED.items() if isinstance(expected, kinds)]


@dataclass(frozen=True)
class Ann:
    """A user with a job, a run and a token, all with marks that nothing else has."""

    client: Client
    job: Job
    run: Run
    project_id: str
    cache_id: str
    webhook_id: str
    token_id: str
    user_id: str
    marks: tuple[str, ...]


@pytest.fixture
def ann(idle_service: Service) -> Ann:
    return new_ann(idle_service)


@pytest.fixture(scope="module")
def lasting_ann(idle_service: Service) -> Ann:
    """The same for all tests of requests that change nothing."""
    return new_ann(idle_service)


def new_ann(idle_service: Service) -> Ann:
    """Make a user with one of everything."""
    name = f"{ANN}-{uuid.uuid4()}"
    client = idle_service.add_user(name)
    mark = f"mark-{uuid.uuid4()}"
    job = client.submit(name=mark, queue_name=f"queue-{mark}", job_env_vars={"SECRET": mark})
    run = start_run(idle_service, client, mark)
    token = client.request("POST", "tokens", json={"name": mark}).json()
    project_id = create_project(client, mark)
    user_id = client.get("users/me")["user_id"]
    cache_id = add_cache(idle_service, user_id, mark)
    webhook = {"url": f"https://{mark}.example/", "events": ["run"], "projects": [project_id]}
    webhook_id = client.request("POST", "webhooks", json=webhook).json()["webhook_id"]
    ids = (project_id, cache_id, webhook_id)
    marks = (mark, job["job_id"], run["run_id"], *ids, name, user_id, token["token_id"])
    return Ann(client, job, run, *ids, token["token_id"], user_id, marks)


def create_project(client: Client, name: str) -> str:
    """Create a project and return its id."""
    body = {"name": name, "git_url": "https://git.example/acme/site.git"}
    response = client.request("POST", "projects", json=body)
    assert response.status_code == 201, response.text
    return str(response.json()["project_id"])


def start_run(service: Service, client: Client, mark: str) -> Run:
    """Start a run whose workflow has a mark in its name."""
    text = f"name: {mark}\non: push\njobs: {{a: {{command: echo {mark}}}}}\n"
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    return start(client, source)


def add_cache(service: Service, user_id: str, mark: str) -> str:
    """Add a cache as a job would have stored it: here no job runs."""
    cache_id = str(uuid.uuid4())
    row = (cache_id, user_id, None, user_id, mark, "main", mark, "[]", 1, 1, str(uuid.uuid4()), 1, 1)
    with service.database() as database, database.transaction() as tx:
        tx.execute("INSERT INTO cache VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return cache_id


def address(rule: str, ann: Ann, **other: str) -> str:
    """Return the path of a route with its ids filled in: Ann's, unless ``other`` has another."""
    values = {
        "job_id": ann.job["job_id"],
        "run_id": ann.run["run_id"],
        "project_id": ann.project_id,
        "cache_id": ann.cache_id,
        "path": "a",
        "token_id": ann.token_id,
        "user_id": ann.user_id,
        "webhook_id": ann.webhook_id,
        "message_id": UNKNOWN,
        "schedule_id": UNKNOWN,
        "delivery_id": UNKNOWN,
        "worker_id": "nobody",
        "session_id": UNKNOWN,
        "attempt": "1",
        "service": "db",
        "source_id": "a" * 64,
        "name": "show.js" if "docs" in rule else "app.css" if "static" in rule else "pypi:token",
        "version": "1",
    }
    for name, value in (values | other).items():
        rule = re.sub(f"<([^<>]+:)?{name}>", value, rule)
    assert "<" not in rule, f"no value for {rule}"
    return rule


def call(client: Client, route: str, ann: Ann, **other: str) -> requests.Response:
    """Call a route with the body that ``EXPECTED`` names, and with Ann's ids unless ``other`` has others."""
    method, _, rule = route.partition(" ")
    body = getattr(EXPECTED[route], "json", None)
    is_stream = isinstance(EXPECTED[route], Stream)
    response = client.request(
        method, address(rule, ann, **other), stream=is_stream, **({} if body is None else {"json": body})
    )
    if is_stream and response.ok:
        response.close()
    return response


def test_every_route_has_an_expectation_and_scopes() -> None:
    assert routes() == set(EXPECTED)
    assert routes() == set(NEEDS)


@pytest.mark.parametrize("route", EXPECTED)
def test_missing_token_is_refused_except_on_public_routes(
    idle_service: Service, lasting_ann: Ann, route: str
) -> None:
    expected, ann = EXPECTED[route], lasting_ann
    anonymous = idle_service.anonymous()
    if isinstance(expected, Public):
        response = call(anonymous, route, ann)
        assert response.status_code == expected.status, response.text
        # The names of queues are labels of the metrics, which are open to whoever may scrape them.
        assert not any(mark in response.text.replace(ann.job["queue_name"], "") for mark in ann.marks)
        return
    for authorization in (None, "Bearer ", "Bearer wrong", "Basic YTpi", f"Token {idle_service.admin.token}"):
        anonymous.token = None
        method, _, rule = route.partition(" ")
        headers = {} if authorization is None else {"Authorization": authorization}
        response = anonymous.request(method, address(rule, ann), headers=headers)
        assert response.status_code == 401, (authorization, response.text)
        if rule.startswith("/api/"):
            assert response.json()["error"] == "unauthorized"
        else:
            assert "<h1>Sign in</h1>" in response.text
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", routes_of(OfJob))
def test_a_job_is_its_owners_and_the_admins(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, OfJob)
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    response = call(bob, route, ann)
    assert response.status_code == 403, response.text
    assert not any(mark in response.text for mark in ann.marks)
    assert ann.client.job(ann.job) == ann.job
    assert ann.client.get("jobs", name="mark-")["total"] == 1
    # An admin's token that is not for this is nobody else's.
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ, Scope.JOBS_WRITE})
    assert call(limited, route, ann).status_code == 403
    for client in (ann.client, bob, idle_service.admin):
        assert call(client, route, ann, job_id=UNKNOWN).status_code == 404
    for client in (ann.client, idle_service.admin):
        # The first answer may have deleted the job.
        job = ann.client.submit(name=ann.marks[0])
        response = call(client, route, ann, job_id=job["job_id"])
        assert response.status_code == expected.status, response.text


@pytest.mark.parametrize("route", routes_of(OfRun))
def test_a_run_is_its_owners_and_the_admins(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, OfRun)
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ, Scope.JOBS_WRITE})
    for other in (bob, limited):
        response = call(other, route, ann)
        assert response.status_code == 403, response.text
        assert not any(mark in response.text for mark in ann.marks)
    assert ann.client.get(f"runs/{ann.run['run_id']}")["status"] == "running"
    assert bob.request("GET", "runs", params={"user_id": ann.user_id}).status_code == 403
    assert bob.get("jobs", run_id=ann.run["run_id"])["total"] == 0
    for client in (ann.client, bob, idle_service.admin):
        assert call(client, route, ann, run_id=UNKNOWN).status_code == 404
    for client in (ann.client, idle_service.admin):
        run = start_run(idle_service, ann.client, ann.marks[0])
        response = call(client, route, ann, run_id=run["run_id"])
        assert response.status_code == expected.status, response.text


@pytest.mark.parametrize("route", routes_of(OfProject))
def test_a_project_is_its_members_by_their_roles(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, OfProject)
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ, Scope.JOBS_WRITE})
    for other in (bob, limited):
        response = call(other, route, ann)
        assert response.status_code == 404, response.text
        assert not any(mark in response.text.replace(ann.project_id, "") for mark in ann.marks)
    name = f"reader-{uuid.uuid4()}"
    reader = idle_service.add_user(name)
    member = {"username": name, "role": "read"}
    added = ann.client.request("PUT", f"projects/{ann.project_id}/members", json=member)
    assert added.status_code == 200, added.text
    assert call(reader, route, ann).status_code == expected.reader
    for client in (ann.client, bob, reader, idle_service.admin):
        assert call(client, route, ann, project_id=UNKNOWN).status_code == 404
    for client in (ann.client, idle_service.admin):
        # The first answer may have deleted it.
        project_id = create_project(ann.client, f"mark-{uuid.uuid4()}")
        response = call(client, route, ann, project_id=project_id)
        assert response.status_code == expected.status, response.text


@pytest.mark.parametrize("route", routes_of(OfCache))
def test_a_cache_is_its_owners_and_the_admins(idle_service: Service, ann: Ann, route: str) -> None:
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ, Scope.JOBS_WRITE})
    for other in (bob, limited):
        response = call(other, route, ann)
        assert response.status_code == 403, response.text
        assert not any(mark in response.text for mark in ann.marks)
    assert bob.request("GET", "caches", params={"user_id": ann.user_id}).status_code == 403
    assert [item["cache_id"] for item in ann.client.get("caches")["caches"]] == [ann.cache_id]
    for client in (ann.client, idle_service.admin):
        cache_id = add_cache(idle_service, ann.user_id, f"{ann.marks[0]}-{uuid.uuid4()}")
        assert call(client, route, ann, cache_id=cache_id).status_code == 204
        assert call(client, route, ann, cache_id=cache_id).status_code == 404
    entries = idle_service.admin.get("audit", action="cache.delete", subject=cache_id)["deeds"]
    assert len(entries) == 1


@pytest.mark.parametrize("route", routes_of(Own))
def test_own_resources_show_nothing_of_others(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, Own)
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    response = call(bob, route, ann)
    assert response.status_code == expected.status, response.text
    assert not any(mark in response.text for mark in ann.marks)
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ, Scope.JOBS_WRITE})
    assert not any(mark in call(limited, route, ann).text for mark in ann.marks)
    own = call(ann.client, route, ann)
    assert own.status_code == expected.status
    if route.startswith("GET") and route not in _SHOW_NOTHING_OF_ONES_OWN:
        assert any(mark in own.text for mark in ann.marks)


def test_a_total_counts_only_what_the_caller_may_see(idle_service: Service, ann: Ann) -> None:
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    bob.submit()
    for query in ({}, {"status": "queued"}, {"queue_name": ann.job["queue_name"]}, {"name": "mark-"}):
        for listing in (bob.get("jobs", **query), bob.get("jobs", limit=1, **query)):
            assert listing["total"] <= 1
            assert ann.job not in listing["jobs"]
    assert bob.request("GET", "jobs", params={"user_id": ann.user_id}).status_code == 403
    assert idle_service.admin.get("jobs", user_id=ann.user_id, name="mark-")["total"] == 1


@pytest.mark.parametrize("route", routes_of(OfWebhook))
def test_webhook_is_visible_to_its_creator_only(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, OfWebhook)
    for other in (idle_service.add_user(f"bob-{uuid.uuid4()}"), idle_service.admin):
        assert call(other, route, ann, webhook_id=UNKNOWN).status_code == 404
    eve = idle_service.add_user(f"eve-{uuid.uuid4()}")
    response = call(eve, route, ann)
    assert response.status_code == 404
    assert ann.marks[0] not in response.text
    assert call(ann.client, route, ann).status_code == expected.status


@pytest.mark.parametrize("route", routes_of(OfToken))
def test_token_is_visible_to_its_owner_only(idle_service: Service, ann: Ann, route: str) -> None:
    for other in (idle_service.add_user(f"bob-{uuid.uuid4()}"), idle_service.admin):
        assert call(other, route, ann).status_code == 404
        assert call(other, route, ann, token_id=UNKNOWN).status_code == 404
    assert ann.token_id in ann.client.request("GET", "tokens").text
    assert call(ann.client, route, ann).status_code == 204
    assert ann.token_id not in ann.client.request("GET", "tokens").text


@pytest.mark.parametrize("route", routes_of(OfSource))
def test_source_is_usable_by_its_uploaders_only(idle_service: Service, ann: Ann, route: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(ann.marks[0]))
    response = ann.client.request(
        "POST", "sources", data=packed.getvalue(), headers={"Content-Type": "application/gzip"}
    )
    assert response.status_code == 201, response.text
    source_id = response.json()["source_id"]
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    assert call(bob, route, ann, source_id=source_id).status_code == 404
    refused = bob.post_job(source_id=source_id)
    assert (refused.status_code, refused.json()["details"][0]["field"]) == (400, "source_id")
    for client in (ann.client, idle_service.admin):
        assert call(client, route, ann, source_id=source_id).status_code == 200
        assert call(client, route, ann).status_code == 404


@pytest.mark.parametrize("route", routes_of(Stream))
def test_a_stream_shows_nothing_of_others(idle_service: Service, ann: Ann, route: str) -> None:
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    own = bob.submit()
    limited = limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ})
    method, _, rule = route.partition(" ")
    for client, job in ((bob, own), (limited, idle_service.admin.submit())):
        # All that there ever was, up to what is the caller's own and came after.
        with client.request(method, rule, stream=True, headers={"Last-Event-ID": "0"}) as response:
            content = b""
            for chunk in response.iter_content(None):
                content += chunk
                if job["job_id"].encode() in content:
                    break
        assert not any(mark.encode() in content for mark in ann.marks)


@pytest.mark.parametrize("route", routes_of(Admins))
def test_admin_routes_refuse_users(idle_service: Service, ann: Ann, route: str) -> None:
    expected = EXPECTED[route]
    assert isinstance(expected, Admins)
    user = idle_service.add_user(f"user-{uuid.uuid4()}")
    before = idle_service.admin.get("users")
    for client in (user, limited_token(idle_service, idle_service.admin, {Scope.JOBS_READ})):
        response = call(client, route, ann)
        assert response.status_code == 403, response.text
        assert not any(mark in response.text for mark in ann.marks)
    assert idle_service.admin.get("users") == before
    for client in (idle_service.admin, idle_service.add_user(f"admin-{uuid.uuid4()}", Role.ADMIN)):
        response = call(client, route, ann)
        assert response.status_code == expected.status, response.text
    if ":user_id>" in route:
        assert call(idle_service.admin, route, ann, user_id=UNKNOWN).status_code == 404


def limited_token(service: Service, client: Client, scopes: set[Scope]) -> Client:
    """Return the same user with a token for ``scopes`` alone."""
    response = client.request("POST", "tokens", json={"name": "limited", "scopes": sorted(scopes)})
    assert response.status_code == 201, response.text
    return service.client(response.json()["token"])


@pytest.mark.parametrize("route", [route for route, needed in NEEDS.items() if needed])
def test_token_needs_exactly_the_listed_scopes(idle_service: Service, ann: Ann, route: str) -> None:
    needed = NEEDS[route]
    assert needed
    # What the audit and the like need is an admin's; the rest is tried on what is the user's own.
    user = idle_service.admin if Scope.ADMIN in needed else ann.client
    every = set(Scope) if Scope.ADMIN in needed else set(Scope) - {Scope.ADMIN}
    for missing in needed:
        response = call(limited_token(idle_service, user, every - {missing}), route, ann)
        assert response.status_code == 403, response.text
        assert f"lacks the scope {missing}" in response.text
    response = call(limited_token(idle_service, user, set(needed)), route, ann)
    assert response.status_code not in (401, 403), response.text


def test_submit_only_token_can_only_submit(idle_service: Service, ann: Ann) -> None:
    submitter = limited_token(idle_service, ann.client, {Scope.JOBS_WRITE})
    assert submitter.submit(name="by CI")["name"] == "by CI"
    for route, expected in EXPECTED.items():
        if NEEDS[route] != frozenset({Scope.JOBS_WRITE}) and not isinstance(expected, Public | Workers):
            assert call(submitter, route, ann).status_code == 403, route


def test_workers_calls_refuse_every_users_token(idle_service: Service, ann: Ann) -> None:
    assert {route for route, needed in NEEDS.items() if needed == OF_WORKERS} == set(routes_of(Workers))
    for route in routes_of(Workers):
        for client in (ann.client, idle_service.admin):
            response = call(client, route, ann)
            assert response.status_code == 401, (route, response.text)


def test_a_workers_secret_allows_its_own_calls_alone(idle_service: Service, ann: Ann) -> None:
    added = idle_service.admin.request("POST", "workers", json={"name": f"worker-{uuid.uuid4()}"}).json()
    registration = {"token": added["token"], "secret": uuid.uuid4().hex}
    for _ in range(2):
        response = idle_service.anonymous().request("POST", "worker/register", json=registration)
        assert response.json() == {"worker_id": added["worker_id"]}
    # The token is used up.
    stolen = registration | {"secret": uuid.uuid4().hex}
    assert idle_service.anonymous().request("POST", "worker/register", json=stolen).status_code == 403
    worker = idle_service.client(registration["secret"])
    assert worker.get("worker/attempts") == {"attempts": []}
    for route, expected in EXPECTED.items():
        if not isinstance(expected, Public | Workers):
            assert call(worker, route, ann).status_code == 401, route
    # A job of which it was not assigned the attempt.
    for route in routes_of(Workers):
        if "<job_id>" in route:
            response = call(worker, route, ann)
            assert response.status_code in (400, 409, 415), (route, response.text)
            assert not any(mark in response.text for mark in ann.marks if mark != ann.job["job_id"])
    too_large = f"worker/attempts/{ann.job['job_id']}/{10**20}/renew"
    assert worker.request("POST", too_large, headers={"X-Lease-Token": "x"}).status_code == 400
    assert idle_service.admin.request("DELETE", f"workers/{added['worker_id']}").status_code == 204
    assert worker.request("GET", "worker/attempts").status_code == 401


def public_routes() -> list[str]:
    return sorted(PUBLIC)


@pytest.mark.parametrize("visibility", ["private", "internal", "public"])
def test_public_parts_of_a_project_are_visible_without_a_token(
    idle_service: Service, ann: Ann, visibility: str
) -> None:
    text = f"name: {ann.marks[0]}\non: [push]\njobs: {{a: {{command: 'true'}}}}\n"
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    body = {"name": f"acme/{uuid.uuid4().hex}", "git_url": f"file://{source.path}", "visibility": visibility}
    project = ann.client.request("POST", "projects", json=body).json()
    run = ann.client.request("POST", "runs", json={"project": body["name"]}).json()
    own = {
        "run_id": run["run_id"],
        "job_id": run["nodes"][0]["job_id"],
        "project_id": project["project_id"],
    }
    missing = ("/artifacts/<path:path>", "/summary")
    bob = idle_service.add_user(f"bob-{uuid.uuid4()}")
    removed = idle_service.add_user(f"removed-{uuid.uuid4()}")
    for route in public_routes():
        expected = 404 if route.endswith(missing) else 200
        query = {"run_id": own["run_id"]} if route.endswith("/jobs") else {}
        query |= {"project": body["name"]} if route.endswith(("/runs", "/events")) else {}
        _, _, rule = route.partition(" ")
        is_stream = isinstance(EXPECTED[route], Stream)

        def get(
            client: Client, rule: str = rule, query: dict[str, str] = query, is_stream: bool = is_stream
        ) -> requests.Response:
            response = client.request("GET", address(rule, ann, **own), params=query, stream=is_stream)
            if is_stream and response.ok:
                response.close()
            return response

        anonymous = get(idle_service.anonymous())
        is_public = visibility == "public" and expected == 200
        assert anonymous.status_code == (200 if is_public else 401), (route, anonymous.text)
        if not is_public:
            text = anonymous.text
            if rule.startswith("/api/"):
                assert anonymous.json()["message"].startswith("nothing here is public; send a token")
            else:
                assert "<h1>Sign in</h1>" in text
                # Signing in leads back to this address.
                text = text.replace(address(rule, ann, **own), "")
            assert not any(mark in text for mark in (*ann.marks, *own.values()))
        if route == "GET /api/v1/projects/<project_id>" and is_public:
            view = anonymous.json()
            assert (view["role"], view["members"], view["settings"]) == (None, [], None)
        if route == "GET /projects/<project_id>" and is_public:
            # A page shows no more to anybody than the API does, where caches are for users.
            assert "Caches</h2>" in get(idle_service.admin).text
            assert "Caches</h2>" not in anonymous.text
        for client in (bob, removed):
            response = get(client)
            if route.endswith("/jobs") and visibility == "private":
                assert response.json()["jobs"] == []
            else:
                assert response.status_code == (404 if visibility == "private" else expected), (
                    route,
                    response.text,
                )
        wrong = idle_service.anonymous()
        wrong.token = "wrong-token-of-nobody"
        assert get(wrong).status_code == 401
    # All else needs a token, whoever's the project is.
    for route in set(EXPECTED) - PUBLIC - set(routes_of(Public)):
        method, _, rule = route.partition(" ")
        response = idle_service.anonymous().request(method, address(rule, ann, **own))
        assert response.status_code == 401, (route, response.text)


def test_changes_of_a_public_project_are_followed_without_a_token_until_it_is_private(
    idle_service: Service, ann: Ann
) -> None:
    text = f"name: {ann.marks[0]}\non: [push]\njobs: {{a: {{command: 'true'}}}}\n"
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    name = f"acme/{uuid.uuid4().hex}"
    body = {"name": name, "git_url": f"file://{source.path}", "visibility": "public"}
    project = ann.client.request("POST", "projects", json=body).json()
    # A user who is no member sees it as well.
    followers = [
        client.request("GET", "events", params={"project": name}, stream=True)
        for client in (idle_service.anonymous(), idle_service.add_user(f"bob-{uuid.uuid4()}"))
    ]
    other = start_run(idle_service, ann.client, ann.marks[0])
    own = ann.client.request("POST", "runs", json={"project": name}).json()
    streams = [response.iter_content(None) for response in followers]
    for chunks in streams:
        content = b""
        for chunk in chunks:
            content += chunk
            if content.count(own["nodes"][0]["job_id"].encode()) == 2:
                break
        assert own["run_id"].encode() in content
        assert not any(mark.encode() in content for mark in (other["run_id"], *ann.marks))
    patch = {"visibility": "private"}
    ann.client.request("PATCH", f"projects/{project['project_id']}", json=patch).raise_for_status()
    for chunks in streams:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            for _ in chunks:
                pass
    ids = re.findall(rb"id: (\S+)", content)
    for client in (idle_service.anonymous(), idle_service.add_user(f"eve-{uuid.uuid4()}")):
        # The id of another's event is no one's, and there is no such project any more.
        for query in ({"project": name}, {"project": name, "after": ids[-1].decode()}):
            response = client.request("GET", "events", params=query)
            assert response.status_code == (401 if client.token is None else 404), response.text


def test_without_a_token_nothing_outside_of_projects_is_listed(idle_service: Service, ann: Ann) -> None:
    anonymous = idle_service.anonymous()
    for path, query in (
        ("jobs", {}),
        ("jobs", {"user_id": ann.user_id}),
        ("runs", {}),
        ("runs", {"user_id": ann.user_id}),
        ("projects", {}),
        ("events", {}),
        ("events", {"project": "none"}),
    ):
        response = anonymous.request("GET", path, params=query)
        assert response.status_code == 401, (path, response.text)
    empty = anonymous.request("GET", "jobs", params={"run_id": ann.run["run_id"]})
    assert empty.status_code == 401 or empty.json()["jobs"] == []
