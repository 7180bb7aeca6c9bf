"""The audit: who did what to what, from where."""

import io
import sqlite3
import tarfile
import uuid
from contextlib import closing
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.service import Service

UNKNOWN = "019aa552-9c09-77ac-b544-929902c7203d"


@pytest.fixture
def user(idle_service: Service) -> Client:
    return idle_service.add_user(f"user-{uuid.uuid4()}")


def deeds(service: Service, **query: Any) -> list[dict[str, Any]]:
    """Return what the audit has, the first deed first."""
    newest_first: list[dict[str, Any]] = service.admin.get("audit", limit=1000, **query)["deeds"]
    return newest_first[::-1]


def test_every_change_is_audited_with_user_and_address(idle_service: Service, user: Client) -> None:
    me = user.get("users/me")["user_id"]
    (own,) = user.get("tokens")["tokens"]

    def done(method: str, path: str, **options: Any) -> Any:
        request_id = f"deed-{uuid.uuid4()}"
        headers = {"X-Request-ID": request_id, **options.pop("headers", {})}
        response = user.request(method, path, headers=headers, **options)
        assert response.status_code < 300, response.text
        expected.append(request_id)
        return response.json() if response.content else None

    expected: list[str] = []
    job = done("POST", "jobs", json={"name": "n", "job_command": "true", "source_type": "copy"})
    rerun = done("POST", f"jobs/{job['job_id']}/rerun")
    done("PUT", f"jobs/{job['job_id']}/pin")
    # What is so already is no deed.
    user.request("PUT", f"jobs/{job['job_id']}/pin")
    done("DELETE", f"jobs/{job['job_id']}/pin")
    done("PUT", f"jobs/{job['job_id']}/cancel")
    done("DELETE", f"jobs/{rerun['job_id']}")
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w:gz").close()
    upload = {"data": packed.getvalue(), "headers": {"Content-Type": "application/gzip"}}
    source = done("POST", "sources", **upload)
    user.request("POST", "sources", **upload)
    token = done("POST", "tokens", json={"name": "n"})
    done("DELETE", f"tokens/{token['token_id']}")

    recorded = deeds(idle_service, user_id=me)
    assert [(deed["action"], deed["subject"]) for deed in recorded] == [
        ("job.submit", job["job_id"]),
        ("job.rerun", rerun["job_id"]),
        ("job.pin", job["job_id"]),
        ("job.unpin", job["job_id"]),
        ("job.cancel", job["job_id"]),
        ("job.cancel", rerun["job_id"]),
        ("job.delete", rerun["job_id"]),
        ("source.upload", source["source_id"]),
        ("token.create", token["token_id"]),
        ("token.revoke", token["token_id"]),
    ]
    # One request, two deeds.
    expected.insert(5, expected[5])
    assert [deed["request_id"] for deed in recorded] == expected
    assert {(deed["token_id"], deed["address"]) for deed in recorded} == {(own["token_id"], "127.0.0.1")}
    assert all(
        deed.keys() == {"at", "user_id", "token_id", "address", "request_id", "action", "subject"}
        for deed in recorded
    )


def test_changes_of_users_by_admins_are_audited(idle_service: Service) -> None:
    admin = idle_service.admin
    name = f"user-{uuid.uuid4()}"
    user = admin.request("POST", "users", json={"username": name}).json()
    path = f"users/{user['user_id']}"
    admin.request("PATCH", path, json={"role": "admin", "is_active": False})
    # What is so already is no deed.
    admin.request("PATCH", path, json={"is_active": False})
    admin.request("PATCH", path, json={"role": "user", "is_active": True})
    admin.request("DELETE", path)
    by_admin = deeds(idle_service, subject=user["user_id"])
    assert [deed["action"] for deed in by_admin] == [
        "user.create",
        "user.make_admin",
        "user.disable",
        "user.make_user",
        "user.enable",
        "user.remove",
    ]
    assert {deed["user_id"] for deed in by_admin} == {admin.get("users/me")["user_id"]}

    invitation = admin.request("POST", "invitations", json={}).json()
    body = {"invitation": invitation["invitation"], "username": name}
    joined = idle_service.anonymous().request("POST", "register", json=body).json()
    (invited,) = deeds(idle_service, subject=invitation["invitation_id"])
    (registered,) = deeds(idle_service, subject=joined["user"]["user_id"])
    assert (invited["action"], registered["action"]) == ("invitation.create", "user.register")
    assert (registered["user_id"], registered["token_id"]) == (joined["user"]["user_id"], joined["token_id"])
    assert registered["address"] == "127.0.0.1"


def test_refused_changes_are_not_audited(idle_service: Service, user: Client) -> None:
    job = idle_service.admin.submit()
    before = idle_service.admin.get("audit")["total"]
    for method, path in (
        ("PUT", f"jobs/{job['job_id']}/cancel"),
        ("DELETE", f"jobs/{job['job_id']}"),
        ("DELETE", f"tokens/{UNKNOWN}"),
        ("POST", "jobs"),
        ("GET", "jobs"),
    ):
        user.request(method, path)
    idle_service.admin.request("DELETE", f"users/{UNKNOWN}")
    assert idle_service.admin.get("audit")["total"] == before
    for _ in range(2):
        idle_service.admin.cancel(job)
    assert idle_service.admin.get("audit")["total"] == before + 1


def test_the_audit_is_listed_by_filter_and_by_page(idle_service: Service, user: Client) -> None:
    jobs = [user.submit()["job_id"] for _ in range(5)]
    user.request("PUT", f"jobs/{jobs[0]}/cancel")
    me = user.get("users/me")["user_id"]
    assert [deed["subject"] for deed in deeds(idle_service, user_id=me, action="job.submit")] == jobs
    assert len(deeds(idle_service, subject=jobs[0])) == 2
    assert deeds(idle_service, user_id="nobody") == []
    subjects, cursor = [], None
    while True:
        page = idle_service.admin.get("audit", user_id=me, limit=2, **({"cursor": cursor} if cursor else {}))
        assert (page["total"], page["limit"]) == (6, 2)
        subjects += [deed["subject"] for deed in page["deeds"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        # What comes meanwhile shifts nothing.
        idle_service.admin.submit()
    assert subjects == [jobs[0], *reversed(jobs)]
    for name, value in (
        ("limit", 0),
        ("cursor", "x"),
        ("cursor", "9" * 50),
        ("action", "job.steal"),
        ("x", 1),
    ):
        bad = idle_service.admin.request("GET", "audit", params={name: value})
        assert (bad.status_code, bad.json()["details"][0]["field"]) == (400, name)


def test_the_audit_holds_no_secret_and_cannot_be_changed(idle_service: Service, user: Client) -> None:
    user.submit("echo a-secret-command", job_env_vars={"PASSWORD": "a-secret-value"})
    token = user.request("POST", "tokens", json={"name": "n"}).json()
    path = idle_service.data_dir / "reactorcide.db"
    with closing(sqlite3.connect(path)) as connection:
        text = str(connection.execute("SELECT * FROM audit").fetchall())
        assert token["token_id"] in text
        for secret in ("a-secret", token["token"], token["token"].removeprefix("rct_")):
            assert secret not in text
        for statement in (
            "UPDATE audit SET user_id = 'somebody else'",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE audit_id = 1",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
                connection.execute(statement)
