"""Transactions that PostgreSQL ends for the sake of others: written once, or not at all, with a sentence."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reactorcide.domain.errors import StoreError
from reactorcide.store.postgresql import PostgreSQLDatabase
from tests.support.postgresql import PostgreSQL, cluster
from tests.support.store import opened_again
from tests.support.waiting import wait_until

ROWS = ("a", "b")
WAYS = ("write", "write_apart")
SENTENCE = (
    "the job database could not be written: could not serialize access, by what others write at the same "
    "time; nothing was written: try again"
)
_ADD = "UPDATE webhook_cursor SET event_id = event_id + 1 WHERE name = ?"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgreSQL]:
    """A database of its own, because tests add triggers to it; two rows of it count."""
    url = cluster().new_url()
    with closing(PostgreSQL(url, tmp_path / "x.db")) as database:
        database._is_given_back = True
        database.migrate()
        with database.transaction() as tx:
            for name in ROWS:
                tx.execute("INSERT INTO webhook_cursor (name, event_id) VALUES (?, 0)", (name,))
        yield database


def counts(database: PostgreSQL) -> list[int]:
    with database.read() as db:
        return [count for (count,) in db.execute_sql("SELECT event_id FROM webhook_cursor ORDER BY name")]


def disturb(database: PostgreSQL, code: str, times: int) -> Callable[[], int]:
    """Have so many of the next changes of a row end with a code; returns a count of the changes tried."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            # A sequence goes on when its transaction is undone.
            f"""
            CREATE SEQUENCE tried;
            CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('tried') <= {times} THEN
                RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '{code}';
              END IF;
              RETURN NEW;
            END $$;
            CREATE TRIGGER disturb BEFORE UPDATE ON webhook_cursor FOR EACH ROW EXECUTE FUNCTION disturb()
            """
        )

    def tried() -> int:
        with psycopg.connect(database.url) as connection:
            (row,) = connection.execute("SELECT last_value FROM tried").fetchall()
            return int(row[0])

    return tried


def add_to(*names: str) -> Callable[[Any], str]:
    def work(db: Any) -> str:
        for name in names:
            db.execute_sql(_ADD, (name,))
        return "done"

    return work


@pytest.mark.parametrize("way", WAYS)
def test_a_deadlock_with_another_connection_is_tried_again(database: PostgreSQL, way: str) -> None:
    tries = []
    with psycopg.connect(database.url) as other:
        # The service's transaction is the one that PostgreSQL looks at, and so ends.
        other.execute("SET deadlock_timeout = '1h'")
        other.execute(_ADD.replace("?", "'b'"))

        def work(db: Any) -> None:
            tries.append(1)
            db.execute_sql(_ADD, ("a",))
            db.execute_sql(_ADD, ("b",))

        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(getattr(database, way), work)
            waiting = (
                "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{}'"
            )
            waiting = waiting.format(other.info.dbname)
            wait_until(
                lambda: cluster().execute(waiting) == [(1,)], 20, "the service waits for the other one"
            )
            other.execute(_ADD.replace("?", "'a'"))
            other.commit()
            written.result(20)
    assert len(tries) == 2
    assert counts(database) == [2, 2]


def test_two_services_in_each_others_way_both_write_once(database: PostgreSQL) -> None:
    barrier = threading.Barrier(2)
    tries: list[str] = []

    def work_on(first: str, second: str) -> Callable[[Any], None]:
        def work(db: Any) -> None:
            is_first = first not in tries
            tries.append(first)
            db.execute_sql(_ADD, (first,))
            if is_first:
                barrier.wait(20)
            db.execute_sql(_ADD, (second,))

        return work

    with closing(opened_again(database)) as other, ThreadPoolExecutor(2) as pool:
        assert isinstance(other, PostgreSQLDatabase)
        written = [
            pool.submit(database.write_apart, work_on("a", "b")),
            pool.submit(other.write_apart, work_on("b", "a")),
        ]
        for one in written:
            one.result(20)
    assert len(tries) > 2
    assert counts(database) == [2, 2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_succeeds_in_the_end_is_written_once(database: PostgreSQL, way: str, code: str) -> None:
    tried = disturb(database, code, 2)
    assert getattr(database, way)(add_to("a", "b")) == "done"
    assert tried() == 4
    assert counts(database) == [1, 1]


@pytest.mark.parametrize("way", WAYS)
def test_what_never_succeeds_is_told_of_and_leaves_nothing(database: PostgreSQL, way: str) -> None:
    with database.transaction() as tx:
        tx.execute("INSERT INTO webhook_cursor (name, event_id) VALUES ('c', 0)")
    tried = disturb(database, "40001", 1000)

    def work(db: Any) -> None:
        db.execute_sql("DELETE FROM webhook_cursor WHERE name = 'c'")
        db.execute_sql(_ADD, ("a",))

    with pytest.raises(StoreError) as caught:
        getattr(database, way)(work)
    assert str(caught.value) == SENTENCE
    assert tried() == 3
    assert counts(database) == [0, 0, 0]
    # The connection is none the worse, and the lock of the writers is free.
    with database.transaction() as tx:
        tx.execute("DELETE FROM webhook_cursor WHERE name = 'c'")


def test_a_transaction_that_others_end_is_told_of_at_once(database: PostgreSQL) -> None:
    tried = disturb(database, "40001", 1)

    def write() -> None:
        with database.transaction() as tx:
            tx.execute("DELETE FROM webhook_cursor WHERE name = 'b'")
            tx.execute(_ADD, ("a",))

    with pytest.raises(StoreError) as caught:
        write()
    # Its body is the caller's, who alone can repeat it.
    assert (str(caught.value), tried()) == (SENTENCE, 1)
    assert counts(database) == [0, 0]
    write()
    assert counts(database) == [1]


def test_of_writes_that_share_a_transaction_each_is_written_once(database: PostgreSQL) -> None:
    tried = disturb(database, "40001", 2)
    with ThreadPoolExecutor(12) as pool:
        with database.transaction():
            # They gather while this one writes.
            written = [pool.submit(database.write, add_to(name)) for name in ROWS * 6]
            wait_until(lambda: len(database._group._waiting) == 12, 20, "the others wait")
        for one in written:
            one.result(20)
    assert tried() == 14
    assert counts(database) == [6, 6]
