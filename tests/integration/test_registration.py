"""From an invitation to a user with a token; what admins may do with users."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from reactorcide.domain.accounts import Role
from tests.conftest import NewService
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until

UNKNOWN = "019aa552-9c09-77ac-b544-929902c7203d"


def invite(client: Client, **fields: Any) -> dict[str, Any]:
    response = client.request("POST", "invitations", json=fields)
    assert response.status_code == 201, response.text
    invitation: dict[str, Any] = response.json()
    return invitation


def register(service: Service, invitation: str, username: str, **fields: Any) -> requests.Response:
    body = {"invitation": invitation, "username": username} | fields
    return service.anonymous().request("POST", "register", json=body)


def change(client: Client, user: dict[str, Any], **fields: Any) -> requests.Response:
    return client.request("PATCH", f"users/{user['user_id']}", json=fields)


def test_invitation_creates_a_user_with_a_token(idle_service: Service) -> None:
    created = invite(idle_service.admin)
    assert created.keys() == {"invitation_id", "invitation", "role", "email", "created_at", "expires_at"}
    good_for = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert good_for == timedelta(days=7)
    response = register(idle_service, created["invitation"], "carla", email="carla@example.com")
    assert response.status_code == 201, response.text
    answer = response.json()
    client = idle_service.client(answer["token"])
    assert client.get("users/me") == answer["user"]
    assert (answer["user"]["username"], answer["user"]["email"]) == ("carla", "carla@example.com")
    assert answer["user"]["role"] == "user"
    assert client.submit()["user_id"] == answer["user"]["user_id"]
    assert [token["token_id"] for token in client.get("tokens")["tokens"]] == [answer["token_id"]]
    # Once.
    again = register(idle_service, created["invitation"], "somebody-else")
    assert (again.status_code, again.json()["error"]) == (403, "forbidden")


def test_invitation_sets_the_role(idle_service: Service) -> None:
    invitation = invite(idle_service.admin, role="admin", email="dora@example.com")
    answer = register(idle_service, invitation["invitation"], "dora").json()
    assert (answer["user"]["role"], answer["user"]["email"]) == ("admin", "dora@example.com")
    assert idle_service.client(answer["token"]).request("GET", "users").status_code == 200


def test_an_invitation_is_shown_once_and_only_its_hash_is_stored(idle_service: Service) -> None:
    invitation = invite(idle_service.admin)
    for path in idle_service.data_dir.glob("reactorcide.db*"):
        assert invitation["invitation"].encode() not in path.read_bytes()
        assert path.name != "reactorcide.db-wal" or invitation["invitation_id"].encode() in path.read_bytes()
    assert invitation["invitation"] not in idle_service.log_text()


def test_invitation_creates_one_user_under_concurrent_use(idle_service: Service) -> None:
    value = invite(idle_service.admin)["invitation"]
    statuses: list[int] = []
    ready = threading.Barrier(12)

    def try_it(number: int) -> None:
        ready.wait()
        statuses.append(register(idle_service, value, f"racer-{number}").status_code)

    threads = [threading.Thread(target=try_it, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [403] * 11
    names = [user["username"] for user in idle_service.admin.get("users")["users"]]
    assert sum(name.startswith("racer-") for name in names) == 1


def test_invitation_stays_valid_after_a_refused_name(idle_service: Service) -> None:
    value = invite(idle_service.admin)["invitation"]
    assert register(idle_service, value, "admin").status_code == 409
    bad = register(idle_service, value, "a b")
    assert (bad.status_code, bad.json()["details"][0]["field"]) == (400, "username")
    assert register(idle_service, value, "erna", email="nowhere").json()["details"][0]["field"] == "email"
    assert register(idle_service, value, "erna").status_code == 201


def test_an_invitation_expires(idle_service: Service) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    value = invite(idle_service.admin, expires_at=soon.isoformat())["invitation"]
    wait_until(lambda: datetime.now(UTC) > soon, 5, "the invitation has expired")
    assert register(idle_service, value, "late").status_code == 403
    past = idle_service.admin.request("POST", "invitations", json={"expires_at": "2001-01-01T00:00:00Z"})
    assert past.json()["details"][0]["field"] == "expires_at"


def test_invitation_of_a_former_admin_is_refused(idle_service: Service) -> None:
    """Nobody leaves a back door behind."""
    changes: list[dict[str, Any]] = [{"role": "user"}, {"is_active": False}]
    for number, fields in enumerate(changes):
        second = idle_service.add_user(f"second-{number}", Role.ADMIN)
        value = invite(second, role="admin")["invitation"]
        me = second.get("users/me")
        assert change(idle_service.admin, me, **fields).status_code == 200
        assert register(idle_service, value, f"friend-{number}").status_code == 403


def test_admins_create_and_list_users(idle_service: Service) -> None:
    admin = idle_service.admin
    response = admin.request("POST", "users", json={"username": "fritz", "email": "f@example.com"})
    assert response.status_code == 201
    fritz = response.json()
    assert (fritz["username"], fritz["role"], fritz["is_active"]) == ("fritz", "user", True)
    assert fritz in admin.get("users")["users"]
    assert admin.request("POST", "users", json={"username": "fritz"}).status_code == 409
    for field, value in (("username", "a b"), ("email", "x"), ("role", "king")):
        bad = admin.request("POST", "users", json={"username": "g"} | {field: value})
        assert (bad.status_code, bad.json()["details"][0]["field"]) == (400, field)


def test_role_changes_and_disabling_take_effect_at_once(idle_service: Service) -> None:
    user = idle_service.add_user("gustav")
    me = user.get("users/me")
    assert user.request("GET", "users").status_code == 403
    assert change(idle_service.admin, me, role="admin").json()["role"] == "admin"
    assert user.request("GET", "users").status_code == 200
    assert change(idle_service.admin, me, role="user", is_active=False).json()["is_active"] is False
    assert "disabled" in user.request("GET", "jobs").json()["message"]
    assert change(idle_service.admin, me, is_active=True).status_code == 200
    assert user.get("users/me") == me
    for body in ({}, {"role": "king"}, {"is_active": "no"}, {"username": "other"}):
        assert change(idle_service.admin, me, **body).status_code == 400


def test_jobs_of_a_removed_user_stay_for_admins(idle_service: Service) -> None:
    user = idle_service.add_user("hanna")
    me, job = user.get("users/me"), user.submit()
    refused = idle_service.admin.request("DELETE", f"users/{me['user_id']}")
    assert (refused.status_code, "1 unfinished" in refused.json()["message"]) == (409, True)
    assert user.get("users/me") == me
    user.cancel(job)
    assert idle_service.admin.request("DELETE", f"users/{me['user_id']}").status_code == 204
    assert user.request("GET", "jobs").status_code == 401
    assert idle_service.admin.job(job)["user_id"] == me["user_id"]
    assert me not in idle_service.admin.get("users")["users"]
    assert idle_service.admin.request("DELETE", f"users/{me['user_id']}").status_code == 404
    # Somebody of the same name is somebody else.
    namesake = idle_service.add_user("hanna")
    assert namesake.get("jobs")["total"] == 0
    assert namesake.request("GET", f"jobs/{job['job_id']}").status_code == 403


def test_last_admin_cannot_be_removed(new_service: NewService) -> None:
    service = new_service(concurrency=0)
    first = service.admin.get("users/me")
    second = service.add_user("second", Role.ADMIN)
    assert change(service.admin, first, role="user").status_code == 200
    me = second.get("users/me")
    for response in (
        change(second, me, role="user"),
        change(second, me, is_active=False),
        second.request("DELETE", f"users/{me['user_id']}"),
    ):
        assert (response.status_code, response.json()["error"]) == (409, "conflict")
        assert "last active admin" in response.json()["message"]
    # One that is disabled does not count; neither do two who go at the same time.
    assert change(second, first, role="admin").status_code == 200
    statuses: list[int] = []
    ready = threading.Barrier(2)

    def step_down(client: Client, user: dict[str, Any]) -> None:
        ready.wait()
        statuses.append(change(client, user, is_active=False).status_code)

    threads = [
        threading.Thread(target=step_down, args=pair) for pair in ((service.admin, first), (second, me))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]


def test_token_cannot_create_a_token_with_more_scopes(idle_service: Service) -> None:
    user = idle_service.add_user("ida")
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()

    def make(client: Client, **fields: Any) -> requests.Response:
        return client.request("POST", "tokens", json={"name": "n"} | fields)

    # A user has no admin's scope to give.
    refused = make(user, scopes=["admin"])
    assert (refused.status_code, "lacks admin" in refused.json()["message"]) == (403, True)
    for scopes in (["everything"], [], "jobs:read", ["jobs:read", 1]):
        assert make(user, scopes=scopes).status_code == 400
    limited = make(idle_service.admin, scopes=["jobs:read", "jobs:write"]).json()
    assert limited["scopes"] == ["jobs:read", "jobs:write"]
    holder = idle_service.client(limited["token"])
    assert "lacks admin" in make(holder, scopes=["jobs:read", "admin"]).json()["message"]
    # By default it has the scopes of the token that creates it.
    assert make(holder).json()["scopes"] == ["jobs:read", "jobs:write"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="milliseconds")
    brief = idle_service.client(make(user, expires_at=tomorrow).json()["token"])
    token = make(brief).json()
    assert datetime.fromisoformat(token["expires_at"]) == datetime.fromisoformat(tomorrow)
    assert "outlive" in make(brief, expires_at=later).json()["message"]


@pytest.mark.parametrize("path", ["users", "audit"])
def test_admin_rights_need_the_admin_scope(idle_service: Service, path: str) -> None:
    body = {"name": "n", "scopes": ["jobs:read"]}
    reader = idle_service.client(idle_service.admin.request("POST", "tokens", json=body).json()["token"])
    message = reader.request("GET", path).json()["message"]
    assert message == "this token lacks the scope admin; use one that has it"
    assert idle_service.admin.request("GET", path).status_code == 200
    assert idle_service.add_user(f"jo-{path}").request("GET", path).json()["message"] == (
        "only an admin may do this"
    )
