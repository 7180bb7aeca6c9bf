"""Users and tokens on a real database."""

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.accounts import AccountContext, tokens, users
from reactorcide.domain.accounts import Role
from reactorcide.domain.clock import now_ms
from reactorcide.domain.errors import Conflict, InvalidInput, NotFound, Unauthorized
from reactorcide.store.accounts import AccountStore
from reactorcide.store.database import Database
from tests.support.waiting import wait_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "accounts.db")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def context(database: Database) -> AccountContext:
    return AccountContext(AccountStore(database))


def test_the_first_admin_is_made_once_and_the_token_is_for_nobody_else(
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


def test_only_the_hash_of_a_token_is_stored(context: AccountContext, database: Database) -> None:
    _, value = tokens.create(context, users.create(context, "ann"), "ci")
    assert value.startswith("rct_")
    assert len(bytes.fromhex(value.removeprefix("rct_"))) == 32
    database.close()
    files = b"".join(path.read_bytes() for path in database.path.parent.glob("accounts.db*"))
    assert value.encode() not in files
    assert hashlib.sha256(value.encode()).digest() in files


def test_a_token_of_any_form_works_if_it_is_long_enough(context: AccountContext) -> None:
    ann = users.create(context, "ann")
    tokens.create(context, ann, "own", value="correct-horse-battery")
    assert tokens.authenticate(context, "correct-horse-battery") == ann
    for bad in ("short", "fifteen-charact", "with a space in it", "control\x07character"):
        with pytest.raises(InvalidInput):
            tokens.create(context, ann, "bad", value=bad)
    with pytest.raises(Conflict):
        tokens.create(context, users.create(context, "bob"), "same", value="correct-horse-battery")


def test_a_revoked_an_expired_and_an_unknown_token_are_refused(context: AccountContext) -> None:
    ann, bob = users.create(context, "ann"), users.create(context, "bob")
    token, value = tokens.create(context, ann, "a")
    with pytest.raises(NotFound):
        tokens.revoke(context, bob, token.token_id)
    assert tokens.authenticate(context, value) == ann
    tokens.revoke(context, ann, token.token_id)
    with pytest.raises(Unauthorized, match="not known"):
        tokens.authenticate(context, value)
    _, brief = tokens.create(context, ann, "b", expires_at_ms=now_ms() + 50)
    wait_until(lambda: tokens.of_user(context, ann)[0].expires_at_ms < now_ms(), 20, "the token to expire")  # type: ignore[operator]
    with pytest.raises(Unauthorized, match="expired"):
        tokens.authenticate(context, brief)
    with pytest.raises(InvalidInput):
        tokens.create(context, ann, "past", expires_at_ms=now_ms() - 1)


def test_a_disabled_user_is_refused(context: AccountContext) -> None:
    ann = users.create(context, "ann")
    _, value = tokens.create(context, ann, "a")
    context.store.set_user_active(ann.user_id, False)
    with pytest.raises(Unauthorized, match="disabled"):
        tokens.authenticate(context, value)
    context.store.set_user_active(ann.user_id, True)
    assert tokens.authenticate(context, value) == ann


def test_the_last_use_is_written_down_but_not_at_every_request(
    context: AccountContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = users.create(context, "ann")
    _, value = tokens.create(context, ann, "a")
    assert tokens.of_user(context, ann)[0].last_used_at_ms is None
    times = iter([1_000_000_000_000, 1_000_000_030_000, 1_000_000_070_000])
    monkeypatch.setattr(tokens, "now_ms", lambda: next(times))
    seen = []
    for _ in range(3):
        tokens.authenticate(context, value)
        seen.append(tokens.of_user(context, ann)[0].last_used_at_ms)
    assert seen == [1_000_000_000_000, 1_000_000_000_000, 1_000_000_070_000]


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\n", "\x00"])
def test_a_bad_name_is_refused(context: AccountContext, name: str) -> None:
    with pytest.raises(InvalidInput):
        users.create(context, name)


def test_a_name_is_taken_once(context: AccountContext) -> None:
    users.create(context, "ann")
    with pytest.raises(Conflict, match="ann"):
        users.create(context, "ann")
