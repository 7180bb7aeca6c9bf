"""Sessions of the web page and one-time links, on a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reactorcide.accounts import AccountContext, sessions, tokens, users
from reactorcide.domain.accounts import Caller, Scope
from reactorcide.domain.audit import operator
from reactorcide.domain.errors import Forbidden, Unauthorized
from reactorcide.lib import clock
from tests.support.store import AnyDatabase, chosen_database, new_store

_DAY_MS = 86_400_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[AnyDatabase]:
    database = chosen_database(tmp_path / "accounts.db")
    yield database
    database.close()


@pytest.fixture
def context(database: AnyDatabase) -> AccountContext:
    return AccountContext(new_store(database))


def caller(context: AccountContext, **about: object) -> Caller:
    user = users.create(context, "ann", by=operator())
    _, value = tokens.create(context, user, "ci", **about)  # type: ignore[arg-type]  # as the test says
    return tokens.authenticate(context, value)


def test_a_session_has_the_rights_of_its_token(context: AccountContext) -> None:
    ann = caller(context, scopes={Scope.JOBS_READ})
    session = sessions.open_session(context, ann)
    holder = sessions.authenticate(context, session)
    assert (holder.user_id, set(holder.scopes)) == (ann.user_id, {Scope.JOBS_READ})
    assert holder.token.token_id == ann.token.token_id


def test_only_the_hash_of_a_session_is_stored(context: AccountContext, database: AnyDatabase) -> None:
    ann = caller(context)
    values = [sessions.open_session(context, ann), sessions.create_link(context, ann)[0]]
    database.close()
    files = b"".join(path.read_bytes() for path in database.path.parent.glob("accounts.db*"))
    for value in values:
        assert value.encode() not in files
        assert tokens.sha256(value) in files


def test_sign_out_ends_this_session_only(context: AccountContext) -> None:
    ann = caller(context)
    first, second = sessions.open_session(context, ann), sessions.open_session(context, ann)
    sessions.close_session(context, ann, first)
    with pytest.raises(Unauthorized):
        sessions.authenticate(context, first)
    assert sessions.authenticate(context, second).user_id == ann.user_id


def test_disabling_the_user_ends_a_session_for_good(context: AccountContext) -> None:
    ann = caller(context)
    session, (link, _) = sessions.open_session(context, ann), sessions.create_link(context, ann)
    for is_active in (False, True):
        users.change(context, ann.user_id, is_active=is_active, by=operator())
        with pytest.raises(Unauthorized):
            sessions.authenticate(context, session)
        with pytest.raises(Forbidden):
            sessions.redeem_link(context, link)


def test_session_ends_when_its_token_or_user_is_removed(
    context: AccountContext, database: AnyDatabase
) -> None:
    ann = caller(context)
    session = sessions.open_session(context, ann)
    tokens.revoke(context, ann, ann.token.token_id)
    with pytest.raises(Unauthorized):
        sessions.authenticate(context, session)
    _, value = tokens.create(context, ann, "another")
    sessions.open_session(context, tokens.authenticate(context, value))
    users.remove(context, ann.user_id, by=operator())
    with database.read() as db:
        assert db.execute_sql("SELECT count(*) FROM session").fetchone() == (0,)


def test_session_expires_after_14_days_and_a_link_after_10_minutes(
    context: AccountContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = caller(context)
    session, (link, expires_at_ms) = sessions.open_session(context, ann), sessions.create_link(context, ann)
    start_ms = clock.now_ms()
    assert 0 < expires_at_ms - start_ms <= 600_000
    monkeypatch.setattr(sessions, "now_ms", lambda: start_ms + 600_001)
    with pytest.raises(Forbidden):
        sessions.redeem_link(context, link)
    monkeypatch.setattr(sessions, "now_ms", lambda: start_ms + 14 * _DAY_MS - 5000)
    assert sessions.authenticate(context, session).user_id == ann.user_id
    monkeypatch.setattr(sessions, "now_ms", lambda: start_ms + 14 * _DAY_MS + 1)
    with pytest.raises(Unauthorized):
        sessions.authenticate(context, session)


def test_sign_in_link_opens_one_session_and_is_not_a_session(context: AccountContext) -> None:
    ann = caller(context)
    link, _ = sessions.create_link(context, ann)
    with pytest.raises(Unauthorized):
        sessions.authenticate(context, link)
    session = sessions.redeem_link(context, link)
    assert sessions.authenticate(context, session).user_id == ann.user_id
    for value in (link, session):
        with pytest.raises(Forbidden):
            sessions.redeem_link(context, value)


def test_number_of_sessions_per_token_is_limited(context: AccountContext, database: AnyDatabase) -> None:
    ann = caller(context)
    values = [sessions.open_session(context, ann) for _ in range(103)]
    with database.read() as db:
        assert db.execute_sql("SELECT count(*) FROM session").fetchone() == (100,)
    assert sessions.authenticate(context, values[-1]).user_id == ann.user_id


def test_csrf_token_belongs_to_one_session_and_does_not_reveal_it() -> None:
    one, other = sessions.csrf_token("rcs_1"), sessions.csrf_token("rcs_2")
    assert one != other
    assert one not in (tokens.sha256("rcs_1").hex(), "rcs_1")
