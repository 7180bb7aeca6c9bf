"""PostgreSQL: the schema is SQLite's, one transaction at a time writes, a lost connection loses nothing."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from peewee import ProgrammingError

from reactorcide.domain.accounts import Role, User
from reactorcide.domain.errors import ConfigurationError, Conflict, StoreError
from reactorcide.domain.jobs import JobFilter, JobStatus
from reactorcide.store import Store
from reactorcide.store.database import Database
from reactorcide.store.postgresql import PostgreSQLDatabase, translate
from tests.store.test_jobs import add
from tests.support.postgresql import PostgreSQL, cluster
from tests.support.store import new_store
from tests.support.waiting import wait_until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgreSQL]:
    database = cluster().database(tmp_path / "jobs.db")
    yield database
    database.close()


@pytest.fixture
def other(database: PostgreSQL) -> Iterator[Store]:
    """The store of another service on the same database."""
    opened = PostgreSQL(database.url, database.path)
    opened._is_given_back = True
    store = new_store(opened)
    try:
        store.instance.id("instance")
        store.instance.open_vault()
        yield store
    finally:
        opened.close()


def opened(database: PostgreSQL) -> Store:
    """Return the store of a service."""
    store = new_store(database)
    store.instance.open_vault()
    return store


def user(name: str) -> User:
    return User(user_id=name, username=name, email=None, role=Role.ADMIN, is_active=True, created_at_ms=1)


class TestSchema:
    def test_it_has_the_tables_columns_and_indexes_of_sqlite(
        self, database: PostgreSQL, tmp_path: Path
    ) -> None:
        file = Database(tmp_path / "x.db")
        file.migrate()
        file.close()
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            tables = [
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                if name != "sqlite_sequence"
            ]
            columns = {
                (table, name, bool(needed) or bool(key))
                for table in tables
                for _, name, _, needed, _, key in connection.execute(f"PRAGMA table_info({table})")
            }
            indexes = {
                (table, index, bool(unique))
                for table in tables
                for _, index, unique, origin, _ in connection.execute(f"PRAGMA index_list({table})")
                if origin == "c"
            }
        with database.read() as db:
            assert columns == set(
                db.execute_sql(
                    "SELECT table_name, column_name, is_nullable = 'NO' FROM information_schema.columns "
                    "WHERE table_schema = 'public'"
                )
            )
            assert indexes == set(
                db.execute_sql(
                    "SELECT t.relname, i.relname, indisunique FROM pg_index "
                    "JOIN pg_class t ON t.oid = indrelid JOIN pg_class i ON i.oid = indexrelid "
                    "JOIN pg_namespace n ON n.oid = t.relnamespace "
                    "WHERE n.nspname = 'public' AND NOT indisprimary"
                )
            )

    def test_it_is_created_once_by_services_that_start_together(self, tmp_path: Path) -> None:
        url = cluster().new_url()
        databases = [PostgreSQLDatabase(url) for _ in range(3)]
        with ThreadPoolExecutor() as pool:
            applied = list(pool.map(PostgreSQLDatabase.migrate, databases))
        assert sorted(map(bool, applied)) == [False, False, True]
        for database in databases:
            database.close()

    def test_a_database_of_a_newer_version_is_refused(self) -> None:
        database = PostgreSQLDatabase(cluster().new_url())
        database.migrate()
        with database.transaction() as tx:
            tx.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', '')")
        with pytest.raises(ConfigurationError, match="newer version"):
            database.migrate()
        database.close()

    def test_a_later_migration_is_applied(self, database: PostgreSQL) -> None:
        with database.transaction() as tx:
            tx.execute("DELETE FROM schema_migration WHERE name = '0035_objects_url'")
            tx.execute("ALTER TABLE instance DROP COLUMN objects_url")
        assert database.migrate() == ["0035_objects_url"]
        assert database.migrate() == []
        assert new_store(database).instance.objects_url() is None

    def test_audit_entries_are_not_changed(self, database: PostgreSQL) -> None:
        with database.transaction() as tx:
            tx.execute("INSERT INTO audit (at_ms, user_id, action, subject) VALUES (1, 'a', 'b', 'c')")
        for sql in ("UPDATE audit SET at_ms = 2", "DELETE FROM audit"):
            with pytest.raises(StoreError, match="only ever added to"), database.transaction() as tx:
                tx.execute(sql)


class TestRefusals:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("postgresql://ann:s3cret@127.0.0.1:1/db", "127.0.0.1:1/db"),
            ("postgresql://ann:s3cret@/none?host={directory}", 'role "ann" does not exist'),
            ("postgresql://reactorcide:s3cret@/none?host={directory}", 'database "none" does not exist'),
            ("postgresql://ann:s3%cret@/none", "not valid"),
        ],
    )
    def test_wrong_address_is_named_without_its_password(self, url: str, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem) as caught:
            PostgreSQLDatabase(url.format(directory=cluster().directory)).migrate()
        error: BaseException | None = caught.value
        while error is not None:
            assert "s3cret" not in f"{error} {error!r}"
            assert "s3%cret" not in f"{error} {error!r}"
            error = error.__cause__

    def test_texts_with_nul_are_stored_without_it(self, database: PostgreSQL) -> None:
        with database.transaction() as tx:
            assert tx.execute("SELECT ?", ("a\0b",)).fetchone() == ("a\N{REPLACEMENT CHARACTER}b",)

    def test_half_a_character_is_an_error_of_the_store(self, database: PostgreSQL) -> None:
        with pytest.raises(StoreError, match="half a character"), database.transaction() as tx:
            tx.execute("SELECT ?", ("\ud800",))

    def test_texts_are_in_the_order_of_code_points(self, database: PostgreSQL) -> None:
        names = ["a", "B", "é", "Z", "_", "\U0001f600", "\uffff"]
        with database.transaction() as tx:
            for name in names:
                tx.execute("INSERT INTO webhook_cursor (name, event_id) VALUES (?, 1)", (name,))
            assert [
                name for (name,) in tx.execute("SELECT name FROM webhook_cursor ORDER BY name")
            ] == sorted(names)

    def test_connections_are_bounded(self, tmp_path: Path) -> None:
        database = PostgreSQLDatabase(cluster().new_url(), max_connections=3)

        def ask(_: int) -> int:
            with database.read() as db:
                return int(db.execute_sql("SELECT pg_backend_pid(), pg_sleep(0.01)").fetchone()[0])

        with ThreadPoolExecutor(12) as pool:
            assert len(set(pool.map(ask, range(60)))) == 3
        database.close()


@pytest.mark.parametrize(
    ("sql", "translated"),
    [
        (
            "SELECT '?', \"a?b\" FROM t WHERE a = ? AND b LIKE 'x%' AND c = ?",
            "SELECT '?', \"a?b\" FROM t WHERE a = $1 AND b LIKE 'x%' AND c = $2",
        ),
        (
            "SELECT a % 2 FROM t INDEXED BY t_a WHERE a IN ()",
            "SELECT a % 2 FROM t  WHERE a IN (SELECT NULL WHERE FALSE)",
        ),
    ],
)
def test_statements_are_translated(sql: str, translated: str) -> None:
    assert translate(sql) == translated


class TestOneWriter:
    """What a transaction has read stays true until its end, whoever else writes."""

    @staticmethod
    @contextmanager
    def waiting(database: PostgreSQL, work: Any) -> Iterator[list[Any]]:
        """Call ``work`` on another thread when the body begins, which is where it waits for the body."""
        results: list[Any] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as exc:
                results.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: database.waiting_writers() == 1, 20, "the other one waits")
        yield results
        thread.join(20)

    @pytest.fixture(params=["read committed", "repeatable read", "serializable"])
    def default_isolation(self, database: PostgreSQL, request: pytest.FixtureRequest) -> Iterator[None]:
        """What the operator has chosen for this database."""
        name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
        cluster().execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{request.param}'")
        yield
        cluster().execute(f"ALTER DATABASE {name} RESET default_transaction_isolation")

    @pytest.mark.usefixtures("default_isolation")
    def test_last_admin_stays(self, database: PostgreSQL, other: Store) -> None:
        store = opened(database)
        ann, bob = user("ann"), user("bob")
        for one in (ann, bob):
            store.accounts.add_user(one)
        with store.transaction() as tx:
            tx.accounts.remove_user("ann")
            context = self.waiting(database, lambda: other.accounts.remove_user("bob"))
            results = context.__enter__()
        context.__exit__(None, None, None)
        assert isinstance(results[0], Conflict)
        assert [item.username for item in store.accounts.users()] == ["bob"]

    def test_a_job_that_another_needs_now_is_not_removed(self, database: PostgreSQL, other: Store) -> None:
        store = opened(database)
        job = add(store)
        store.jobs.transition(
            job.job_id, JobStatus.CANCELLED, now_ms=2, only_from={JobStatus.SUBMITTED}, completed_at_ms=2
        )
        with store.transaction() as tx:
            tx.jobs.pin(job.job_id, True)
            context = self.waiting(database, lambda: other.retention.delete(job.job_id, now_ms=3))
            results = context.__enter__()
        context.__exit__(None, None, None)
        assert results == [False]

    def test_an_event_with_a_lower_number_is_never_committed_later(
        self, database: PostgreSQL, other: Store
    ) -> None:
        store = opened(database)
        with store.transaction() as tx:
            writer: Any = tx
            first = add(writer)
            context = self.waiting(database, lambda: add(other))
            context.__enter__()
            # Neither is seen: who reads on from the last number that it has seen would lose the other.
            assert other.events.after(0, None) == []
        context.__exit__(None, None, None)
        events = store.events.after(0, None)
        assert [event.event_id for event in events] == sorted(event.event_id for event in events)
        assert getattr(events[0], "job_id", None) == first.job_id
        assert len(events) == 2

    def test_a_write_that_waits_too_long_fails_and_says_so(self, database: PostgreSQL, other: Store) -> None:
        with database.transaction(), pytest.raises(StoreError, match="lock timeout"):
            other.tasks.submit_interrupted()

    def test_a_token_s_use_is_not_recorded_while_another_writes(
        self, database: PostgreSQL, other: Store
    ) -> None:
        sql = "UPDATE instance SET objects_url = ?"
        with database.transaction():
            assert other._database.write_if_free(sql, ("x",)) is False
        assert other._database.write_if_free(sql, ("x",)) is True


class TestLostConnection:
    def cut(self, database: PostgreSQL) -> None:
        """End all connections of a database, as a restart of the server does."""
        name = psycopg.conninfo.conninfo_to_dict(database.url)["dbname"]
        cluster().execute(
            f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608  # a name of ours
        )

    def test_it_is_opened_again(self, database: PostgreSQL) -> None:
        store = new_store(database)
        for _ in range(2):
            assert store.lists.page(JobFilter(), limit=1) == ([], 0)
            self.cut(database)
            store.instance.id("instance")
            self.cut(database)
        database.check()

    def test_transaction_that_was_cut_has_written_nothing(self, database: PostgreSQL) -> None:
        store = new_store(database)

        def write() -> None:
            with store.transaction() as tx:
                tx.accounts.add_user(user("ann"))
                self.cut(database)
                tx.accounts.add_user(user("bob"))

        with pytest.raises(StoreError, match="terminat"):
            write()
        assert store.accounts.users() == []

    def test_a_single_write_is_tried_again(self, database: PostgreSQL) -> None:
        tries = []

        def work(db: Any) -> None:
            db.execute_sql("INSERT INTO webhook_cursor (name, event_id) VALUES ('x', 1)")
            tries.append(1)
            if len(tries) == 1:
                self.cut(database)

        database.write(work)
        assert len(tries) == 2
        with database.read() as db:
            assert db.execute_sql("SELECT COUNT(*) FROM webhook_cursor").fetchone() == (1,)

    @pytest.mark.parametrize("is_delivered", [True, False])
    def test_the_outcome_of_a_commit_without_an_answer_is_asked_for(
        self, database: PostgreSQL, is_delivered: bool
    ) -> None:
        with Cutting(is_delivered=is_delivered) as proxy:
            cut = PostgreSQLDatabase(proxy.url(database.url))
            tries = []

            def work(db: Any) -> None:
                tries.append(1)
                db.execute_sql("INSERT INTO webhook_cursor (name, event_id) VALUES ('x', 1)")

            cut.write(work)
            # It was tried again only where it was not committed.
            assert len(tries) == (1 if is_delivered else 2)
            assert proxy.cuts == 1
            cut.close()
        with database.read() as db:
            assert db.execute_sql("SELECT COUNT(*) FROM webhook_cursor").fetchone() == (1,)

    def test_values_that_exist_are_an_integrity_error(self, database: PostgreSQL) -> None:
        store = new_store(database)
        store.accounts.add_user(user("ann"))
        with pytest.raises(Conflict, match="there is a user"):
            store.accounts.add_user(user("ann"))
        # In a group, each is told of its own.
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(store.accounts.add_user, user(f"u{number // 2}")) for number in range(16)]
        assert sum(isinstance(future.exception(), Conflict) for future in futures) == 8

    def test_failed_transaction_cannot_seem_to_be_committed(self, database: PostgreSQL) -> None:
        def work(db: Any) -> None:
            with pytest.raises(ProgrammingError):
                db.execute_sql("SELECT nothing")

        with pytest.raises(StoreError, match="had failed"):
            database.write(work)


class Cutting:
    """A proxy in front of the server that cuts the first connection with a commit: after it, or before."""

    def __init__(self, *, is_delivered: bool) -> None:
        self.cuts = 0
        self._is_delivered = is_delivered
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Cutting":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def url(self, url: str) -> str:
        host, port = self._listener.getsockname()
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        return f"postgresql://reactorcide@{host}:{port}/{name}?sslmode=disable&gssencmode=disable"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(cluster().directory / ".s.PGSQL.5432"))
            is_cut = threading.Event()
            for source, target, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._copy, args=(source, target, is_client, is_cut), daemon=True
                ).start()

    def _copy(
        self, source: socket.socket, target: socket.socket, is_client: bool, is_cut: threading.Event
    ) -> None:
        with source, target:
            while data := self._received(source):
                if is_client and b"COMMIT" in data and not self.cuts:
                    self.cuts += 1
                    is_cut.set()
                    if not self._is_delivered:
                        break
                elif not is_client and is_cut.is_set():
                    # The answer, which is on its way no longer.
                    break
                try:
                    target.sendall(data)
                except OSError:
                    break
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    @staticmethod
    def _received(source: socket.socket) -> bytes:
        try:
            return source.recv(65536)
        except OSError:
            return b""
