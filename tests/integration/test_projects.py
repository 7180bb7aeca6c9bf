"""Projects on the real service: who may do what with their runs, and how runs are numbered."""

import re
import sqlite3
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from reactorcide.domain import runs
from reactorcide.domain.projects import Project, Visibility
from reactorcide.lib.ids import new_id
from reactorcide.store.database import Database
from tests.conftest import NewService
from tests.sources.support import Repository
from tests.support.client import Client
from tests.support.runs import Run, node, over, repository
from tests.support.service import Service
from tests.support.store import new_store
from tests.support.waiting import wait_until

WORKFLOW = """
name: CI
on: [push]
jobs:
  show: {command: 'echo "$REACTORCIDE_PROJECT ${REACTORCIDE_SOURCE_URL##*/}"'}
"""


@pytest.fixture
def source(service: Service) -> Repository:
    """A repository with a workflow."""
    return repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})


def new_user(service: Service, role: str | None = None, project: dict[str, Any] | None = None) -> Client:
    """Return a new user, who is a member of ``project`` if there is one."""
    name = f"user-{uuid.uuid4()}"
    client = service.add_user(name)
    if project is not None:
        body = {"username": name, "role": role}
        response = service.admin.request("PUT", f"projects/{project['project_id']}/members", json=body)
        assert response.status_code == 200, response.text
    return client


def create(client: Client, source: Repository, **fields: Any) -> dict[str, Any]:
    """Create a project of a repository; it must be accepted."""
    body = {"name": f"acme/{uuid.uuid4().hex[:12]}", "git_url": f"file://{source.path}"} | fields
    response = client.request("POST", "projects", json=body)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


def start(client: Client, project: dict[str, Any], **fields: Any) -> Run:
    response = client.request("POST", "runs", json={"project": project["name"], **fields})
    assert response.status_code == 201, response.text
    run: Run = response.json()
    return run


def test_run_of_a_project_is_visible_to_its_members(service: Service, source: Repository) -> None:
    owner = new_user(service)
    project = create(owner, source)
    assert (project["role"], project["visibility"]) == ("owner", "private")
    writer, reader = new_user(service, "write", project), new_user(service, "read", project)
    stranger = new_user(service)
    run = over(writer, start(writer, project, event={"name": "push"}))
    assert (run["status"], run["project_id"], run["number"]) == ("completed", project["project_id"], 1)
    job_id = node(run, "show")["job_id"]
    for client in (owner, writer, reader):
        assert client.get(f"runs/{run['run_id']}")["status"] == "completed"
        assert client.get(f"jobs/{job_id}")["status"] == "completed"
        log = client.log({"job_id": job_id}).decode()
        assert log.endswith(f"{project['name']} {source.path.name}\n")
        listed = client.get("runs", project=project["name"])["runs"]
        assert [item["run_id"] for item in listed] == [run["run_id"]]
        assert client.get("jobs", run_id=run["run_id"])["total"] == 1
    assert reader.get("runs")["runs"] == []
    for path in (f"runs/{run['run_id']}", f"jobs/{job_id}", f"jobs/{job_id}/logs"):
        assert stranger.request("GET", path).status_code == 404
    assert stranger.request("GET", "runs", params={"project": project["name"]}).status_code == 404
    assert stranger.get("jobs", run_id=run["run_id"])["total"] == 0
    refused = stranger.request("POST", "runs", json={"project": project["name"]})
    assert (refused.status_code, refused.json()["message"]) == (
        404,
        f"there is no project {project['name']}",
    )
    needs_write = "this needs the role write in the project; ask one of its owners for it"
    refused = reader.request("POST", "runs", json={"project": project["name"]})
    assert (refused.status_code, refused.json()["message"]) == (403, needs_write)
    for path in (f"runs/{run['run_id']}/cancel", f"runs/{run['run_id']}/rerun", f"jobs/{job_id}/cancel"):
        body: dict[str, Any] = {"json": {}} if path.endswith("rerun") and path.startswith("runs") else {}
        assert reader.request("POST", path, **body).json()["message"] == needs_write
        assert stranger.request("POST", path, **body).status_code == 404


CACHED = """
name: CI
on: [push]
jobs:
  show: {cache: {key: k, paths: kept}, command: 'cat kept || echo cached > kept'}
"""


def test_caches_of_a_project_are_visible_to_its_members(service: Service) -> None:
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": CACHED})
    owner = new_user(service)
    project = create(owner, source)
    writer, reader = (new_user(service, role, project) for role in ("write", "read"))
    over(owner, start(owner, project))
    ended = over(writer, start(writer, project))
    assert "cached\n" in writer.log({"job_id": node(ended, "show")["job_id"]}).decode()
    (cache,) = reader.get("caches", project=project["name"])["caches"]
    assert (cache["project_id"], cache["key"]) == (project["project_id"], "k")
    # They are nobody's own.
    assert owner.get("caches")["caches"] == []
    stranger = new_user(service)
    assert stranger.request("GET", "caches", params={"project": project["name"]}).status_code == 404
    path = f"caches/{cache['cache_id']}"
    for client, status in ((stranger, 404), (reader, 403), (writer, 204)):
        assert client.request("DELETE", path).status_code == status
    assert reader.get("caches", project=project["name"])["caches"] == []


def test_runs_are_numbered_within_their_project(service: Service, source: Repository) -> None:
    owner = new_user(service)
    projects = [create(owner, source), create(owner, source)]
    writer = new_user(service, "write", projects[0])
    numbers = [start(client, projects[0])["number"] for client in (owner, writer, owner)]
    assert numbers == [1, 2, 3]
    assert start(owner, projects[1])["number"] == 1
    own = owner.request("POST", "runs", json={"git_url": f"file://{source.path}"}).json()
    assert (own["number"], own["project_id"]) == (1, None)


def test_removed_member_sees_nothing(service: Service, source: Repository) -> None:
    owner = new_user(service)
    project = create(owner, source)
    writer = new_user(service, "write", project)
    run = over(writer, start(writer, project))
    (writer_id,) = {
        item["user_id"]
        for item in owner.get(f"projects/{project['project_id']}")["members"]
        if item["role"] == "write"
    }
    path = f"projects/{project['project_id']}/members/{writer_id}"
    assert owner.request("DELETE", path).status_code == 204
    assert owner.request("DELETE", path).status_code == 404
    assert writer.request("GET", f"runs/{run['run_id']}").status_code == 404
    assert writer.request("GET", f"jobs/{node(run, 'show')['job_id']}").status_code == 404
    assert writer.get("runs")["runs"] == []
    own_job = writer.submit()
    listed = writer.get("jobs")
    assert ([item["job_id"] for item in listed["jobs"]], listed["total"]) == ([own_job["job_id"]], 1)
    # What is repeated belongs to whoever repeats it.
    again = over(owner, owner.request("POST", f"runs/{run['run_id']}/rerun", json={}).json())
    owner_id = owner.get("users/me")["user_id"]
    assert again["user_id"] == owner.get(f"jobs/{node(again, 'show')['job_id']}")["user_id"] == owner_id
    with writer.request("GET", "events", stream=True, headers={"Last-Event-ID": "0"}) as events:
        own = writer.submit()
        content = b""
        for chunk in events.iter_content(None):
            content += chunk
            if own["job_id"].encode() in content:
                break
    assert run["run_id"].encode() not in content


def test_events_of_a_project_reach_its_members(service: Service, source: Repository) -> None:
    owner = new_user(service)
    project = create(owner, source)
    reader = new_user(service, "read", project)
    run = start(owner, project)
    with reader.request("GET", "events", stream=True, headers={"Last-Event-ID": "0"}) as events:
        content = b""
        for chunk in events.iter_content(None):
            content += chunk
            if node(run, "show")["job_id"].encode() in content and run["run_id"].encode() in content:
                break


def test_removed_member_stops_following_logs(service: Service) -> None:
    workflow = WORKFLOW.replace("show: {command: 'echo", "show: {command: 'sleep 60; echo")
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": workflow})
    owner = new_user(service)
    project = create(owner, source)
    reader = new_user(service, "read", project)
    (node,) = owner.get(f"runs/{start(owner, project)['run_id']}")["nodes"]
    owner.wait(node, "running")
    with reader.follow(node) as lines:
        user_id = reader.get("users/me")["user_id"]
        owner.request("DELETE", f"projects/{project['project_id']}/members/{user_id}").raise_for_status()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(lines)
    owner.cancel(node)


def test_internal_project_is_visible_to_all_users_and_changed_by_members(
    service: Service, source: Repository
) -> None:
    owner, stranger = new_user(service), new_user(service)
    project = create(owner, source)
    path = f"projects/{project['project_id']}"
    assert stranger.request("GET", path).status_code == 404
    run = start(owner, project)
    assert owner.request("PATCH", path, json={"visibility": "internal"}).status_code == 200
    view = stranger.get(path)
    assert (view["role"], view["members"]) == (None, [])
    assert stranger.get(f"runs/{run['run_id']}")["run_id"] == run["run_id"]
    assert stranger.request("POST", f"runs/{run['run_id']}/cancel").status_code == 403
    assert stranger.request("POST", "runs", json={"project": project["name"]}).status_code == 403


def test_a_project_is_renamed_and_removed_once_its_runs_are_over(
    idle_service: Service,
) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner = new_user(idle_service)
    project, other = create(owner, source), create(owner, source)
    path = f"projects/{project['project_id']}"
    response = owner.request("PATCH", path, json={"name": other["name"]})
    assert (response.status_code, response.json()["message"]) == (
        409,
        f"there is a project '{other['name']}' already; choose another name",
    )
    name = f"acme/{uuid.uuid4().hex}"
    assert owner.request("PATCH", path, json={"name": name}).json()["name"] == name
    run = start(owner, project | {"name": project["project_id"]})
    assert run["event"]["project"] == name
    refused = owner.request("DELETE", path)
    assert (refused.status_code, refused.json()["message"]) == (
        409,
        "the project has 1 unfinished runs; cancel them, or wait",
    )
    assert owner.request("POST", f"runs/{run['run_id']}/cancel").status_code == 200
    assert owner.request("DELETE", path).status_code == 204
    assert owner.request("GET", path).status_code == 404
    for client in (owner, idle_service.admin):
        assert client.request("GET", f"runs/{run['run_id']}").status_code == 404
    subject = project["project_id"]
    actions = [item["action"] for item in idle_service.admin.get("audit", subject=subject)["deeds"]]
    assert actions == ["project.delete", "project.change", "project.create"]


def test_last_owner_of_a_project_cannot_be_removed(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    name = f"owner-{uuid.uuid4()}"
    owner = idle_service.add_user(name)
    project = create(owner, source)
    path = f"projects/{project['project_id']}/members"
    owner_id = owner.get("users/me")["user_id"]
    demoted = owner.request("PUT", path, json={"username": name, "role": "read"})
    removed = owner.request("DELETE", f"{path}/{owner_id}")
    assert demoted.status_code == removed.status_code == 409
    assert "no owner left" in removed.json()["message"]


def test_invalid_project_is_refused_by_name(idle_service: Service) -> None:
    client = new_user(idle_service)
    for body, field in (
        ({"name": "a b", "git_url": "https://git.example/a.git"}, "name"),
        ({"name": "acme/", "git_url": "https://git.example/a.git"}, "name"),
        ({"name": str(uuid.uuid4()), "git_url": "https://git.example/a.git"}, "name"),
        ({"name": "acme/site", "git_url": "file:///etc"}, "git_url"),
        ({"name": "acme/site"}, "git_url"),
    ):
        response = client.request("POST", "projects", json=body)
        assert (response.status_code, response.json()["details"][0]["field"]) == (400, field), response.text


def test_the_credentials_of_a_repository_are_not_shown(idle_service: Service) -> None:
    client = new_user(idle_service)
    name = f"acme/{uuid.uuid4().hex}"
    url = f"https://ann:{uuid.uuid4().hex}@git.example/a.git"
    created = client.request("POST", "projects", json={"name": name, "git_url": url})
    assert created.json()["git_url"] == "https://[REDACTED]@git.example/a.git"
    password = url.split(":")[2].partition("@")[0]
    assert password not in created.text
    assert password.encode() not in Path(idle_service.data_dir, "reactorcide.db").read_bytes()


SETTINGS = {
    "forge": "gitea",
    "forge_url": "https://git.example",
    "default_branch": "next",
    "default_image": "alpine:3.20",
    "queue": "slow",
    "pull_requests": "all",
    "allowed_events": ["push"],
    "max_running": 3,
}


def test_owners_see_and_change_settings(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner = new_user(idle_service)
    project = create(owner, source, **SETTINGS)
    path = f"projects/{project['project_id']}"
    assert {name: project["settings"][name] for name in SETTINGS} == SETTINGS
    assert project["settings"]["webhook_url"] == f"/api/v1/hooks/{project['project_id']}"
    for client in (
        new_user(idle_service, "read", project),
        new_user(idle_service, "write", project),
    ):
        assert client.get(path)["settings"] is None
    assert idle_service.admin.get(path)["settings"] == project["settings"]
    # What is empty is the default again.
    empty = {name: [] if isinstance(value, list) else "" for name, value in SETTINGS.items()}
    reset = empty | {"forge": "none", "pull_requests": "trusted", "max_running": 0}
    changed = owner.request("PATCH", path, json=reset).json()["settings"]
    assert {name: changed[name] for name in SETTINGS} == dict.fromkeys(SETTINGS) | {
        "forge": "none",
        "pull_requests": "trusted",
    }
    for name, value in SETTINGS.items():
        assert owner.request("PATCH", path, json={name: value}).json()["settings"][name] == value
    for name, value in (
        ("forge_url", "https://me:secret@git.example"),
        ("forge_url", "ftp://git.example"),
        ("default_branch", "a..b"),
        ("default_image", "Not An Image"),
        ("queue", "a b"),
        ("allowed_events", ["pushed"]),
        ("max_running", -1),
        ("forge", "sourceforge"),
        ("token", "two words"),
    ):
        refused = owner.request("PATCH", path, json={name: value})
        assert refused.status_code == 400, (name, refused.text)
        assert refused.json()["details"][0]["field"].startswith(name), refused.text


@pytest.mark.parametrize(
    ("url", "forge"),
    [
        ("https://github.com/acme/site.git", "github"),
        ("git@gitlab.com:acme/site.git", "gitlab"),
        ("https://x:y@codeberg.org/acme/site", "gitea"),
        ("https://github.com.example/acme/site", "none"),
    ],
)
def test_forge_is_derived_from_the_repository_host(idle_service: Service, url: str, forge: str) -> None:
    body = {"name": f"acme/{uuid.uuid4().hex}", "git_url": url}
    created = new_user(idle_service).request("POST", "projects", json=body).json()
    assert created["settings"]["forge"] == forge


def test_stored_credentials_are_never_shown(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner, token = new_user(idle_service), f"token-{uuid.uuid4().hex}"
    project = create(owner, source, token=token)
    path = f"projects/{project['project_id']}"
    first = project["webhook_secret"]
    second = owner.request("POST", f"{path}/webhook-secret").json()["webhook_secret"]
    third = owner.request("POST", f"{path}/webhook-secret").json()["webhook_secret"]
    assert len({first, second, third}) == 3
    view = owner.get(path)
    kinds = sorted(item["kind"] for item in view["settings"]["credentials"])
    assert kinds == ["previous_webhook_secret", "token", "webhook_secret"]
    database = b"".join(file.read_bytes() for file in idle_service.data_dir.glob("reactorcide.db*"))
    for value in (first, second, third, token):
        assert value not in str(view)
        assert value.encode() not in database
    assert owner.request("DELETE", f"{path}/webhook-secret").status_code == 204
    assert owner.request("DELETE", f"{path}/webhook-secret").status_code == 204
    removed = owner.request("PATCH", path, json={"token": ""}).json()["settings"]["credentials"]
    assert [item["kind"] for item in removed] == ["webhook_secret"]


def test_token_is_removed_when_the_server_changes(idle_service: Service) -> None:
    owner = idle_service.admin
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})

    def has_token(**change: str) -> bool:
        answer = owner.request("PATCH", path, json=change)
        assert answer.status_code == 200, answer.text
        return "token" in {item["kind"] for item in answer.json()["settings"]["credentials"]}

    # Nobody listens on these ports, so that each check of a credential ends at once.
    path = f"projects/{create(owner, source, git_url='http://localhost:1/a', token='first')['project_id']}"
    assert has_token(git_url="http://ann:word@localhost:1/b")
    assert not has_token(git_url="http://localhost:2/b")
    assert has_token(token="second")
    assert not has_token(forge_url="http://localhost:3")
    assert has_token(git_url="http://localhost:4/b", token="third")


def test_project_defaults_apply_to_its_runs(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner = new_user(idle_service)
    source.git("branch", "next")
    project = create(owner, source, default_image="acme/own:1", queue="slow", default_branch="next")
    run = start(owner, project)
    assert (run["event"]["branch"], run["git_ref"]) == ("next", "next")
    job = owner.get(f"jobs/{node(run, 'show')['job_id']}")
    assert (job["runner_image"], job["queue_name"]) == ("acme/own:1", "slow")
    assert start(owner, project, ref="main")["event"]["branch"] == "main"


def test_a_disabled_project_starts_nothing(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner = new_user(idle_service)
    project = create(owner, source)
    path, run = f"projects/{project['project_id']}", start(owner, project)
    assert owner.request("PATCH", path, json={"disabled": True}).json()["disabled"] is True
    # What is under way goes on, and can be cancelled.
    assert owner.request("POST", f"runs/{run['run_id']}/cancel").json()["status"] == "cancelled"
    sentence = f"the project {project['name']} is disabled and starts nothing; its owners can enable it"
    for refused in (
        owner.request("POST", "runs", json={"project": project["name"]}),
        owner.request("POST", f"runs/{run['run_id']}/rerun", json={}),
    ):
        assert (refused.status_code, refused.json()["message"]) == (409, sentence)
    assert owner.request("PATCH", path, json={"disabled": False}).status_code == 200
    assert start(owner, project)["number"] == 2


def test_lists_of_large_runs_and_projects_have_a_bound(new_service: NewService) -> None:
    service = new_service()
    user_id = service.admin.get("users/me")["user_id"]
    url = f"https://example.com/{'é' * 4000}"
    project = Project(
        project_id="", name="", git_url=url, visibility=Visibility.PRIVATE, created_at_ms=1, updated_at_ms=1
    )
    large_run = runs.Run(
        run_id="",
        user_id=user_id,
        number=0,
        attempt=1,
        workflow_id="ci",
        workflow_name="CI",
        file="ci.yaml",
        event={"name": "push", "message": "\x01" * 4096},
        source=runs.RunSource(git_url=url),
        sha=None,
        status=runs.RunStatus.COMPLETED,
        created_at_ms=1,
        updated_at_ms=1,
        completed_at_ms=1,
    )
    database = Database(service.data_dir / "reactorcide.db")
    with closing(database):
        store = new_store(database)
        store.instance.open_vault()
        with store.transaction() as tx:
            for number in range(400):
                tx.projects.add(
                    replace(project, project_id=new_id(), name=f"acme/{number}"), url, owner_id=user_id
                )
            for _ in range(190):
                tx.runs.add(replace(large_run, run_id=new_id()), {})
    for what, limit, count in (("projects", 1000, 400), ("runs", 200, 190)):
        ids: list[str] = []
        cursor: dict[str, str] = {}
        pages = 0
        while pages == 0 or cursor:
            answer = service.admin.request("GET", what, params={"limit": limit} | cursor)
            assert (answer.status_code, len(answer.content) <= 8 << 20) == (200, True)
            page = answer.json()
            assert page["total"] == count
            ids += [item[f"{what.removesuffix('s')}_id"] for item in page[what]]
            cursor = {} if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
            pages += 1
        assert (pages, len(ids), len(set(ids))) == (2, count, count)


def test_removed_project_is_removed_with_everything_it_owns(service: Service) -> None:
    source = repository(service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": CACHED})
    owner = new_user(service)
    project, other = create(owner, source), create(owner, source)
    run, other_run = (over(owner, start(owner, item)) for item in (project, other))
    job_id = node(run, "show")["job_id"]
    (cache,) = owner.get("caches", project=project["name"])["caches"]
    path = f"projects/{project['project_id']}"
    secret = owner.request("PUT", f"{path}/secrets/pypi:token", json={"value": "correct horse"})
    assert secret.status_code == 200
    objects = [
        service.data_dir / "objects" / part for part in (f"jobs/{job_id}", f"caches/{cache['cache_id']}")
    ]
    wait_until(lambda: all(item.exists() for item in objects), 20, "they are stored")
    assert owner.request("DELETE", path).status_code == 204
    for removed_path in (f"runs/{run['run_id']}", f"jobs/{job_id}", f"jobs/{job_id}/logs"):
        assert service.admin.request("GET", removed_path).status_code == 404
    with closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            if "project_id" in columns:
                sql = f"SELECT COUNT(*) FROM {table} WHERE project_id = ?"  # noqa: S608  # names of its own
                assert database.execute(sql, (project["project_id"],)).fetchone() == (0,), table
    # The task of a job is closed after its end, and up to then its objects stay.
    wait_until(lambda: not any(item.exists() for item in objects), 30, "its objects are removed")
    assert owner.get(f"runs/{other_run['run_id']}")["status"] == "completed"


def test_project_job_limit_is_enforced(idle_service: Service) -> None:
    text = "name: CI\non: [push]\njobs:\n" + "".join(
        f"  {name}: {{command: 'true', checkout: false}}\n" for name in "abc"
    )
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": text})
    owner = new_user(idle_service)
    project = create(owner, source, max_running=2)
    first, second = start(owner, project), start(owner, project)
    statuses = [[item["status"] for item in run["nodes"]] for run in (first, second)]
    assert [["waiting" if status == "waiting" else "active" for status in run] for run in statuses] == [
        ["active", "active", "waiting"],
        ["waiting"] * 3,
    ]
    reason = "its project has as many jobs as may run at once (max_running)"
    assert {second["nodes"][0]["reason"], first["nodes"][2]["reason"]} == {reason}

    def active(run: Run) -> list[str]:
        nodes = owner.get(f"runs/{run['run_id']}")["nodes"]
        return [
            item["name"] for item in nodes if item["job_id"] and item["status"] in ("queued", "submitted")
        ]

    # The older run comes first, then the other one.
    assert owner.request("POST", f"jobs/{first['nodes'][0]['job_id']}/cancel").status_code == 200
    assert (active(first), active(second)) == (["b", "c"], [])
    assert owner.request("POST", f"runs/{first['run_id']}/cancel").status_code == 200
    assert (active(first), active(second)) == ([], ["a", "b"])
    # What is raised counts from now on.
    path = f"projects/{project['project_id']}"
    assert owner.request("PATCH", path, json={"max_running": 0}).status_code == 200
    wait_until(lambda: active(second) == ["a", "b", "c"], 30, "the third job is made")


def test_badge_shows_the_state_of_a_branch(service: Service) -> None:
    source = repository(
        service.source_root / uuid.uuid4().hex,
        {"workflows/ci.yaml": WORKFLOW, "workflows/lint.yaml": WORKFLOW.replace("CI", "Lint")},
    )
    owner = new_user(service)
    project = create(owner, source, visibility="public")

    def badge(**query: str) -> str:
        path = f"projects/{project['project_id']}/badge.svg"
        response = service.anonymous().request("GET", path, params=query)
        assert (response.status_code, response.headers["Content-Type"]) == (
            200,
            "image/svg+xml; charset=utf-8",
        )
        (state,) = re.findall("<title>build: (.*)</title>", response.text)
        return str(state)

    assert badge() == "no runs"
    over(owner, start(owner, project, workflow="ci"))
    assert badge() == badge(branch="main") == "passing"
    source.commit(".reactorcide/workflows/lint.yaml", WORKFLOW.replace("echo", "exit 1; echo"))
    over(owner, start(owner, project, workflow="lint"))
    over(owner, start(owner, project, workflow="ci"))
    assert badge() == "failing"
    source.commit(".reactorcide/workflows/lint.yaml", WORKFLOW)
    over(owner, start(owner, project, workflow="lint"))
    assert badge() == "passing"
    # Neither another branch nor a pull request is the branch.
    assert badge(branch='"><script>') == "no runs"


def test_a_project_whose_owner_is_removed_is_left_to_the_admins(idle_service: Service) -> None:
    source = repository(idle_service.source_root / uuid.uuid4().hex, {"workflows/ci.yaml": WORKFLOW})
    owner = new_user(idle_service)
    project = create(owner, source)
    reader = new_user(idle_service, "read", project)
    path = f"projects/{project['project_id']}"
    user_id = owner.get("users/me")["user_id"]
    assert idle_service.admin.request("DELETE", f"users/{user_id}").status_code == 204
    assert [member["role"] for member in reader.get(path)["members"]] == ["read"]
    assert reader.request("PATCH", path, json={"visibility": "public"}).status_code == 403
    name = reader.get("users/me")["username"]
    body = {"username": name, "role": "owner"}
    assert idle_service.admin.request("PUT", f"{path}/members", json=body).status_code == 200
    assert reader.request("PATCH", path, json={"visibility": "public"}).status_code == 200
