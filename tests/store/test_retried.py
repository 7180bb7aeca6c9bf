"""Transactions that PostgreSQL aborts, and databases whose operator has chosen another isolation."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactorcide.domain.accounts import Role, User
from reactorcide.domain.errors import Conflict, StoreError
from reactorcide.store.postgresql import PostgreSQLDatabase
from tests.store import test_postgresql
from tests.support.postgresql import PostgreSQL, cluster
from tests.support.store import new_store

INSERT = "INSERT INTO webhook_cursor (name, event_id) VALUES ('{}', 0)"
ADD = "UPDATE webhook_cursor SET event_id = event_id + 1 WHERE name = '{}'"
REFUSE = """
    CREATE SEQUENCE refusals;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('refusals') <= {} THEN
            RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refused BEFORE UPDATE ON webhook_cursor FOR EACH ROW EXECUTE FUNCTION refuse()
    """


@pytest.fixture
def url() -> Iterator[str]:
    """A database that no other test gets."""
    database = cluster().database(Path("/nowhere"))
    database._is_given_back = True
    database.close()
    yield database.url
    cluster().execute(f"DROP DATABASE {name_of(database.url)} WITH (FORCE)")


@pytest.fixture
def database(url: str) -> Iterator[PostgreSQLDatabase]:
    opened = PostgreSQLDatabase(url)
    opened.write(lambda db: [db.execute_sql(INSERT.format(name)) for name in ("a", "b")])
    yield opened
    opened.close()


def name_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def counts(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT name, event_id FROM webhook_cursor").fetchall())


def test_a_write_in_a_deadlock_is_done_once(database: PostgreSQLDatabase, url: str) -> None:
    has_a, tries = threading.Event(), []

    def work(db: Any) -> None:
        tries.append(1)
        db.execute_sql(ADD.format("a"))
        has_a.set()
        db.execute_sql(ADD.format("b"))

    with psycopg.connect(url) as stranger:
        # So that it is the other one that notices, and is aborted.
        stranger.execute("SET deadlock_timeout = '1h'")
        stranger.execute(ADD.format("b"))
        writer = threading.Thread(target=lambda: database.write(work))
        writer.start()
        assert has_a.wait(20)
        stranger.execute(ADD.format("a"))
    writer.join(20)
    assert len(tries) == 2
    assert counts(url) == {"a": 2, "b": 2}


def test_a_write_that_cannot_be_serialized_is_tried_again(database: PostgreSQLDatabase, url: str) -> None:
    cluster().execute(REFUSE.format(2), name_of(url))
    tries = []

    def work(db: Any) -> str:
        tries.append(1)
        db.execute_sql(INSERT.format("c"))
        db.execute_sql(ADD.format("a"))
        return "done"

    assert database.write(work) == "done"
    assert len(tries) == 3
    assert counts(url) == {"a": 1, "b": 0, "c": 0}


def test_a_write_that_is_always_refused_fails_as_a_whole(database: PostgreSQLDatabase, url: str) -> None:
    cluster().execute(REFUSE.format(1000), name_of(url))

    def work(db: Any) -> None:
        db.execute_sql(INSERT.format("c"))
        db.execute_sql(ADD.format("a"))

    with pytest.raises(StoreError, match="could not serialize access"):
        database.write(work)
    assert counts(url) == {"a": 0, "b": 0}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_guard_sees_what_was_committed_while_it_waited(url: str, level: str, tmp_path: Path) -> None:
    cluster().execute(f"ALTER DATABASE {name_of(url)} SET default_transaction_isolation = '{level}'")
    databases = [PostgreSQL(url, tmp_path / "jobs.db") for _ in range(2)]
    for database in databases:
        database._is_given_back = True
    store, other = map(new_store, databases)
    store.instance.id("instance")
    try:
        for name in ("ann", "bob"):
            store.accounts.add_user(
                User(
                    user_id=name, username=name, email=None, role=Role.ADMIN, is_active=True, created_at_ms=1
                )
            )
        with store.transaction() as tx:
            tx.accounts.remove_user("ann")
            waiting = test_postgresql.TestOneWriter.waiting(
                databases[0], lambda: other.accounts.remove_user("bob")
            )
            results = waiting.__enter__()
        waiting.__exit__(None, None, None)
        assert isinstance(results[0], Conflict), results
        assert [item.username for item in store.accounts.users()] == ["bob"]
    finally:
        for database in databases:
            database.close()
