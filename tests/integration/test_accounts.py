"""Who may do what."""

import stat
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reactorcide.domain.accounts import Role
from tests.support.client import Client
from tests.support.service import Service
from tests.support.waiting import wait_until


def test_a_user_sees_own_jobs_and_an_admin_all(idle_service: Service) -> None:
    one, two = idle_service.add_user("one"), idle_service.add_user("two")
    job = one.submit()
    assert [item["job_id"] for item in one.get("jobs")["jobs"]] == [job["job_id"]]
    assert (two.get("jobs")["jobs"], two.get("jobs")["total"]) == ([], 0)
    for admin in (idle_service.admin, idle_service.add_user("second-admin", Role.ADMIN)):
        assert admin.get("jobs")["jobs"][0] == job
        assert admin.job(job) == job
    assert idle_service.admin.cancel(job)["user_id"] == one.get("users/me")["user_id"]


def test_user_can_get_own_account(idle_service: Service) -> None:
    me = idle_service.add_user("somebody").get("users/me")
    assert me.keys() == {"user_id", "username", "email", "role", "is_active", "created_at"}
    assert (me["username"], me["email"], me["role"], me["is_active"]) == ("somebody", None, "user", True)
    assert idle_service.admin.get("users/me")["role"] == "admin"


def create_token(client: Client, **fields: Any) -> dict[str, Any]:
    """Make a token and return the answer."""
    response = client.request("POST", "tokens", json={"name": "new"} | fields)
    assert response.status_code == 201, response.text
    token: dict[str, Any] = response.json()
    return token


def test_a_token_is_shown_once_and_works(idle_service: Service) -> None:
    user = idle_service.add_user("tokens")
    created = create_token(user, name="for the build")
    assert created.keys() == {"token_id", "token", "name", "created_at", "expires_at", "scopes"}
    assert created["token"].startswith("rct_")
    assert created["expires_at"] is None
    assert idle_service.client(created["token"]).get("users/me") == user.get("users/me")
    listed = {token["token_id"]: token for token in user.get("tokens")["tokens"]}
    assert listed[created["token_id"]].pop("last_used_at") is not None
    assert listed[created["token_id"]] == {
        "token_id": created["token_id"],
        "name": "for the build",
        "created_at": created["created_at"],
        "expires_at": None,
        "is_active": True,
        "scopes": None,
    }
    assert created["token"] not in user.request("GET", "tokens").text
    assert created["token"].encode() not in (idle_service.data_dir / "reactorcide.db").read_bytes()
    assert created["token"] not in idle_service.log_text()


def test_revoked_token_is_refused(idle_service: Service) -> None:
    user = idle_service.add_user("revokes")
    created = create_token(user)
    holder = idle_service.client(created["token"])
    assert holder.request("GET", "jobs").status_code == 200
    assert user.request("DELETE", f"tokens/{created['token_id']}").status_code == 204
    assert holder.request("GET", "jobs").status_code == 401
    assert user.request("DELETE", f"tokens/{created['token_id']}").status_code == 404


def test_tokens_of_others_cannot_be_revoked(idle_service: Service) -> None:
    created = create_token(idle_service.admin)
    thief = idle_service.add_user("thief")
    assert thief.request("DELETE", f"tokens/{created['token_id']}").status_code == 404
    assert created["token_id"] not in thief.request("GET", "tokens").text
    assert idle_service.client(created["token"]).request("GET", "jobs").status_code == 200


def test_a_token_expires(idle_service: Service) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    created = create_token(idle_service.admin, expires_at=soon.isoformat())
    holder = idle_service.client(created["token"])
    assert holder.request("GET", "jobs").status_code == 200
    wait_until(lambda: holder.request("GET", "jobs").status_code == 401, 5, "the token has expired")
    assert datetime.now(UTC) >= soon
    assert "expired" in holder.request("GET", "jobs").json()["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * 256),
        ("name", 5),
        ("expires_at", "2001-01-01T00:00:00Z"),
        ("expires_at", "2101-01-01T00:00:00"),
        ("expires_at", "tomorrow"),
        ("expires_at", 4102444800),
        ("value", "x" * 32),
    ],
)
def test_a_bad_token_is_refused_by_name(idle: Client, field: str, value: Any) -> None:
    response = idle.request("POST", "tokens", json={"name": "n"} | {field: value})
    assert response.status_code == 400, response.text
    assert [item["field"] for item in response.json()["details"]] == [field]


def test_the_first_admins_token_is_for_the_owner_alone(idle_service: Service) -> None:
    path = idle_service.data_dir / "admin-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # It is printed to a terminal alone.
    assert path.read_text().strip() not in idle_service.log_text()


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/health"])
def test_health_reports_whether_the_token_is_valid(idle_service: Service, path: str) -> None:
    nobody = {"verified": False, "user_authenticated": False, "user_id": None}
    user_id = idle_service.admin.get("users/me")["user_id"]
    for client, expected in (
        (idle_service.anonymous(), nobody),
        (idle_service.client("wrong"), nobody),
        (idle_service.admin, {"verified": True, "user_authenticated": True, "user_id": user_id}),
    ):
        health = client.get(path)
        assert health.keys() == {"status", "version", "verification"}
        assert (health["status"], health["verification"]) == ("OK", expected)
