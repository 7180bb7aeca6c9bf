"""``reactorcide token`` and ``reactorcide user``, while a service runs and while none does."""

import re
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import requests

from reactorcide.lib.ids import new_id
from tests.cli.conftest import Program, Service


@pytest.fixture
def stopped(service: Service, lone: Program, tmp_path: Path) -> Program:
    """The program, for a data directory that no service is using."""
    with (
        closing(sqlite3.connect(service.data_dir / "reactorcide.db")) as source,
        closing(sqlite3.connect(_new_directory(tmp_path / "data") / "reactorcide.db")) as target,
    ):
        source.backup(target)
    return lone


def _new_directory(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _token_id(errors: str) -> str:
    match = re.match(r"token (\S+) of ", errors)
    assert match is not None, errors
    return match[1]


def test_token_works_at_once_and_stops_when_revoked(reactorcide: Program) -> None:
    created = reactorcide.fine("token", "create", "--name", "for a test")
    assert re.fullmatch(r"rct_[0-9a-f]{64}", created.text)
    holder = reactorcide.with_variables(REACTORCIDE_API_TOKEN=created.text)
    holder.fine("jobs", "list")
    token_id = _token_id(created.errors)
    assert reactorcide.fine("token", "revoke", token_id).text == f"{token_id} revoked"
    assert "not known" in holder.refused("jobs", "list")
    assert token_id in reactorcide.refused("token", "revoke", token_id)


def test_user_sees_own_jobs_only_and_nothing_once_disabled(reactorcide: Program) -> None:
    user_id = reactorcide.fine("user", "create", "ann", "--email", "ann@example.com").text
    value = reactorcide.fine("token", "create", "--user", "ann").text
    ann = reactorcide.with_variables(REACTORCIDE_API_TOKEN=value)
    of_admin = reactorcide.fine("submit", "admins", "--", "true").text
    of_ann = ann.fine("submit", "anns", "--", "true").text
    reactorcide("jobs", "cancel", of_admin, of_ann)
    assert [job["job_id"] for job in ann.fine("jobs", "list", "--json").json["jobs"]] == [of_ann]
    assert ann.fine("jobs", "show", of_ann, "--json").json["user_id"] == user_id
    ann.refused("jobs", "show", of_admin)

    assert reactorcide.fine("user", "disable", "ann").text == "ann disabled"
    assert "disabled" in ann.refused("jobs", "list")
    assert "disabled" in reactorcide.fine("token", "create", "--user", "ann").errors


def test_a_user_is_enabled_again_promoted_and_removed(reactorcide: Program) -> None:
    reactorcide.fine("user", "create", "cleo")
    value = reactorcide.fine("token", "create", "--user", "cleo").text
    cleo = reactorcide.with_variables(REACTORCIDE_API_TOKEN=value)
    of_admin = reactorcide.fine("submit", "admins", "--", "true").text
    reactorcide("jobs", "cancel", of_admin)
    reactorcide.fine("user", "disable", "cleo")
    assert reactorcide.fine("user", "enable", "cleo").text == "cleo enabled"
    cleo.refused("jobs", "show", of_admin)
    assert reactorcide.fine("user", "role", "cleo", "admin").text == "cleo is admin now"
    cleo.fine("jobs", "show", of_admin)
    job_id = cleo.fine("submit", "cleos", "--", "sleep 1000").text
    assert "unfinished" in reactorcide.refused("user", "remove", "cleo")
    cleo.fine("jobs", "cancel", job_id)
    assert reactorcide.fine("user", "remove", "cleo").text == "cleo removed"
    assert "not known" in cleo.refused("jobs", "list")
    assert "cleo" in reactorcide.refused("user", "remove", "cleo")
    reactorcide.fine("jobs", "show", job_id)


def test_token_can_have_fewer_scopes(reactorcide: Program) -> None:
    value = reactorcide.fine("token", "create", "--scope", "jobs:write").text
    holder = reactorcide.with_variables(REACTORCIDE_API_TOKEN=value)
    job_id = holder.fine("submit", "by CI", "--", "true").text
    assert "jobs:read" in holder.refused("jobs", "show", job_id)
    reactorcide("jobs", "cancel", job_id)
    assert re.search(r"jobs:write$", reactorcide.fine("token", "list").text, re.MULTILINE)


def test_invitation_creates_a_user(service: Service, reactorcide: Program) -> None:
    invitation = reactorcide.fine("user", "invite", "--email", "dan@example.com", "--expires-in", 1)
    assert re.fullmatch(r"rci_[0-9a-f]{64}", invitation.text)
    body = {"invitation": invitation.text, "username": "dan"}
    answer = requests.post(f"{service.url}/api/v1/register", json=body, timeout=20).json()
    assert answer["user"]["email"] == "dan@example.com"
    reactorcide.with_variables(REACTORCIDE_API_TOKEN=answer["token"]).fine("jobs", "list")


def test_commands_of_the_operator_are_audited(service: Service, reactorcide: Program) -> None:
    user_id = reactorcide.fine("user", "create", "emil").text
    token_id = _token_id(reactorcide.fine("token", "create", "--user", "emil").errors)
    reactorcide.fine("user", "disable", "emil")
    reactorcide.fine("token", "revoke", token_id)
    value = (service.data_dir / "admin-token").read_text().strip()
    answer = requests.get(
        f"{service.url}/api/v1/audit",
        params={"user_id": f"operator@{socket.gethostname()}", "limit": "4"},
        headers={"Authorization": f"Bearer {value}"},
        timeout=20,
    )
    assert [(deed["action"], deed["subject"], deed["address"]) for deed in answer.json()["deeds"]] == [
        ("token.revoke", token_id, None),
        ("user.disable", user_id, None),
        ("token.create", token_id, None),
        ("user.create", user_id, None),
    ]


def test_an_admin_sees_all(reactorcide: Program) -> None:
    reactorcide.fine("user", "create", "root", "--role", "admin")
    value = reactorcide.fine("token", "create", "--user", "root").text
    job_id = reactorcide.fine("submit", "somebody's", "--", "true").text
    reactorcide("jobs", "cancel", job_id)
    reactorcide.with_variables(REACTORCIDE_API_TOKEN=value).fine("jobs", "show", job_id)


def test_admin_commands_work_without_a_service(stopped: Program) -> None:
    stopped.fine("user", "create", "bob")
    value = "a value of one's own".replace(" ", "-")
    assert stopped.fine("token", "create", "--user", "bob", "--value", value, "--expires-in", 2).text == value
    assert "in use already" in stopped.refused("token", "create", "--value", value)
    assert "16 characters" in stopped.refused("token", "create", "--value", "short")
    assert "bob" in stopped.refused("user", "create", "bob")

    header, *rows = stopped.fine("user", "list").text.splitlines()
    assert header.split() == ["ID", "NAME", "ROLE", "STATE", "EMAIL", "CREATED"]
    assert ["bob", "user", "active"] in [row.split()[1:4] for row in rows]
    stopped.fine("user", "disable", "bob")
    rows = stopped.fine("user", "list").text.splitlines()
    assert ["bob", "user", "disabled"] in [row.split()[1:4] for row in rows]


def test_tokens_are_listed_without_their_values(stopped: Program) -> None:
    stopped.fine("user", "create", "bob")
    bobs = stopped.fine("token", "create", "--user", "bob", "--name", "bobs own", "--expires-in", 2)
    of_all = stopped.fine("token", "list").text
    of_bob = stopped.fine("token", "list", "--user", "bob").text
    assert "bootstrap" in of_all
    assert "bootstrap" not in of_bob
    for text in (of_all, of_bob):
        assert re.search(rf"{_token_id(bobs.errors)}  bob +bobs own +\d{{4}}-\S+Z  \d{{4}}-\S+Z  never", text)
        assert bobs.text not in text


def test_missing_user_or_token_is_a_clear_error(stopped: Program) -> None:
    assert "nobody" in stopped.refused("token", "create", "--user", "nobody")
    assert "nobody" in stopped.refused("token", "list", "--user", "nobody")
    assert "nobody" in stopped.refused("user", "disable", "nobody")
    unknown = new_id()
    assert unknown in stopped.refused("token", "revoke", unknown)


@pytest.mark.parametrize(
    "command", [("token", "create"), ("token", "list"), ("token", "revoke", "x"), ("user", "list"), ("gc",)]
)
def test_no_database_is_created_by_accident(lone: Program, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "--data-dir" in lone.refused(*command)
    assert list(tmp_path.iterdir()) == []
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert str(elsewhere) in lone.refused(*command, "--data-dir", elsewhere)
    assert list(elsewhere.iterdir()) == []


def test_file_that_is_not_a_database_is_a_clear_error(lone: Program, tmp_path: Path) -> None:
    shutil.copy(__file__, _new_directory(tmp_path / "data") / "reactorcide.db")
    assert "database" in lone.refused("user", "list")


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create", "--expires-in", "0"),
        ("token", "create", "--name", ""),
        ("user", "create", "x", "--role", "king"),
        ("user", "role", "x", "king"),
        ("user", "invite", "--expires-in", "0"),
        ("token", "create", "--scope", "all"),
        ("user", "create"),
        ("gc", "--keep-jobs", "-1"),
        ("gc", "--keep-bytes", "much"),
    ],
)
def test_wrong_usage_exits_with_2(lone: Program, arguments: tuple[str, ...]) -> None:
    assert lone(*arguments).code == 2
