"""Users and tokens on a real database."""

import hashlib
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.accounts import AccountContext, tokens, users
from reactorcide.domain.accounts import Role, Scope
from reactorcide.domain.audit import operator
from reactorcide.domain.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthorized
from reactorcide.lib.clock import now_ms
from tests.support.store import AnyDatabase, chosen_database, new_store
from tests.support.waiting import wait_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AnyDatabase]:
    database = chosen_database(tmp_path / "accounts.db")
    yield database
    database.close()


@pytest.fixture
def context(database: AnyDatabase) -> AccountContext:
    return AccountContext(new_store(database))


def test_first_admin_is_created_once_and_its_token_file_is_private(
    context: AccountContext, tmp_path: Path
) -> None:
    path = tmp_path / "admin-token"
    path.write_text("left over")
    path.chmod(0o644)
    value = users.bootstrap(context, path)
    assert value is not None
    assert path.read_text() == f"{value}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    admin = tokens.authenticate(context, value)
    assert (admin.username, admin.role) == ("admin", Role.ADMIN)
    assert users.bootstrap(context, path) is None
    assert path.read_text() == f"{value}\n"


def test_only_the_hash_of_a_token_is_stored(context: AccountContext, database: AnyDatabase) -> None:
    _, value = tokens.create(context, users.create(context, "ann", by=operator()), "ci")
    assert value.startswith("rct_")
    assert len(bytes.fromhex(value.removeprefix("rct_"))) == 32
    database.close()
    files = b"".join(path.read_bytes() for path in database.path.parent.glob("accounts.db*"))
    assert value.encode() not in files
    assert hashlib.sha256(value.encode()).digest() in files


def test_a_token_of_any_form_works_if_it_is_long_enough(context: AccountContext) -> None:
    ann = users.create(context, "ann", by=operator())
    tokens.create(context, ann, "own", value="correct-horse-battery")
    assert tokens.authenticate(context, "correct-horse-battery").user_id == ann.user_id
    for bad in ("short", "fifteen-charact", "with a space in it", "control\x07character"):
        with pytest.raises(InvalidInput):
            tokens.create(context, ann, "bad", value=bad)
    with pytest.raises(Conflict):
        tokens.create(
            context, users.create(context, "bob", by=operator()), "same", value="correct-horse-battery"
        )


def test_a_revoked_an_expired_and_an_unknown_token_are_refused(context: AccountContext) -> None:
    ann, bob = users.create(context, "ann", by=operator()), users.create(context, "bob", by=operator())
    token, value = tokens.create(context, ann, "a")
    with pytest.raises(NotFound):
        tokens.revoke(context, bob, token.token_id)
    assert tokens.authenticate(context, value).user_id == ann.user_id
    tokens.revoke(context, ann, token.token_id)
    with pytest.raises(Unauthorized, match="not known"):
        tokens.authenticate(context, value)
    _, brief = tokens.create(context, ann, "b", expires_at_ms=now_ms() + 50)
    wait_until(lambda: tokens.of_user(context, ann)[0].expires_at_ms < now_ms(), 20, "the token to expire")  # type: ignore[operator]
    with pytest.raises(Unauthorized, match="expired"):
        tokens.authenticate(context, brief)
    with pytest.raises(InvalidInput):
        tokens.create(context, ann, "past", expires_at_ms=now_ms() - 1)


def test_number_of_tokens_per_user_is_limited(
    context: AccountContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactorcide.accounts.tokens._MAX_TOKENS", 3)
    _, value = tokens.create(context, users.create(context, "ann", by=operator()), "first")
    caller = tokens.authenticate(context, value)
    others = [tokens.create_own(context, caller, name)[0] for name in ("second", "third")]
    with pytest.raises(Forbidden, match="you have 3 tokens; revoke"):
        tokens.create_own(context, caller, "fourth")
    tokens.revoke(context, caller, others[0].token_id)
    tokens.create_own(context, caller, "fourth")


def test_user_names_of_the_service_are_reserved(context: AccountContext) -> None:
    with pytest.raises(InvalidInput, match="reactorcide is the name of the service itself"):
        users.create(context, "reactorcide", by=operator())


def test_a_disabled_user_is_refused(context: AccountContext) -> None:
    ann = users.create(context, "ann", by=operator())
    _, value = tokens.create(context, ann, "a")
    users.change(context, ann.user_id, is_active=False, by=operator())
    with pytest.raises(Unauthorized, match="disabled"):
        tokens.authenticate(context, value)
    users.change(context, ann.user_id, is_active=True, by=operator())
    assert tokens.authenticate(context, value).user_id == ann.user_id


def test_last_use_is_stored_but_not_on_every_request(
    context: AccountContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = users.create(context, "ann", by=operator())
    _, value = tokens.create(context, ann, "a")
    assert tokens.of_user(context, ann)[0].last_used_at_ms is None
    times = iter([1_000_000_000_000, 1_000_000_030_000, 1_000_000_070_000])
    monkeypatch.setattr(tokens, "now_ms", lambda: next(times))
    last_uses_ms = []
    for _ in range(3):
        tokens.authenticate(context, value)
        last_uses_ms.append(tokens.of_user(context, ann)[0].last_used_at_ms)
    assert last_uses_ms == [1_000_000_000_000, 1_000_000_000_000, 1_000_000_070_000]


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\n", "\x00"])
def test_a_bad_name_is_refused(context: AccountContext, name: str) -> None:
    with pytest.raises(InvalidInput):
        users.create(context, name, by=operator())


def test_duplicate_name_is_refused(context: AccountContext) -> None:
    users.create(context, "ann", by=operator())
    with pytest.raises(Conflict, match="ann"):
        users.create(context, "ann", by=operator())


def test_failed_write_of_the_last_use_does_not_refuse_the_token(
    context: AccountContext, database: AnyDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    ann = users.create(context, "ann", by=operator())
    token, value = tokens.create(context, ann, "a")
    with database.transaction() as tx:
        tx.execute("CREATE TRIGGER full BEFORE UPDATE ON token BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    assert tokens.authenticate(context, value).user_id == ann.user_id
    assert token.token_id in caplog.text
    assert "disk full" in caplog.text


def test_authentication_does_not_wait_for_a_running_write(
    context: AccountContext, database: AnyDatabase
) -> None:
    ann = users.create(context, "ann", by=operator())
    _, value = tokens.create(context, ann, "a")
    entered, done = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction():
            entered.set()
            done.wait(20)

    writer = threading.Thread(target=write)
    writer.start()
    entered.wait(20)
    assert tokens.authenticate(context, value).user_id == ann.user_id
    assert tokens.of_user(context, ann)[0].last_used_at_ms is None
    done.set()
    writer.join()
    tokens.authenticate(context, value)
    assert tokens.of_user(context, ann)[0].last_used_at_ms is not None


@pytest.mark.parametrize("email", ["", "x", "@", "a@", "@b", "a b@c", "a@b\n", "a@" + "b" * 300])
def test_a_bad_email_is_refused(context: AccountContext, email: str) -> None:
    with pytest.raises(InvalidInput, match="email"):
        users.create(context, "ann", email=email, by=operator())


def test_scopes_of_a_token_are_stored(context: AccountContext) -> None:
    root = users.create(context, "root", role=Role.ADMIN, by=operator())
    ann = users.create(context, "ann", by=operator())
    for user, scopes, expected in (
        (root, None, set(Scope)),
        (ann, None, {Scope.JOBS_READ, Scope.JOBS_WRITE}),
        (root, [Scope.JOBS_READ], {Scope.JOBS_READ}),
        (ann, [Scope.JOBS_READ, Scope.ADMIN], {Scope.JOBS_READ}),
    ):
        _, value = tokens.create(context, user, "t", scopes=scopes)
        caller = tokens.authenticate(context, value)
        assert caller.scopes == expected
        assert caller.is_admin == (Scope.ADMIN in expected)
    # What is not limited follows the role.
    _, value = tokens.create(context, ann, "t")
    users.change(context, ann.user_id, role=Role.ADMIN, by=operator())
    assert tokens.authenticate(context, value).is_admin
