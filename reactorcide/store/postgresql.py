"""The job database on PostgreSQL: the one place that knows its SQL, its driver and its errors."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from time import monotonic, sleep
from typing import Any, TypeVar

import peewee
import psycopg
from peewee import PeeweeException, PostgresqlDatabase

from reactorcide.domain.errors import ConfigurationError, StoreError
from reactorcide.lib.locks import FairLock
from reactorcide.lib.transactions import GroupCommit, OutcomeUnknownError
from reactorcide.store import schema
from reactorcide.store.connection import MIGRATIONS_DIR, JobDatabase, OpenTransaction, translated
from reactorcide.store.models import ALL_MODELS
from reactorcide.store.models.service import InstanceRow
from reactorcide.store.sessions import Lost, Session, Sessions

_WRITER = 0x5265_6163_746F_7263
"""Key of the advisory lock that each transaction holds: one at a time writes, over all services."""
_BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock({_WRITER}); SELECT pg_current_xact_id()"
# Others that migrate are waited for.
_BEGIN_MIGRATION = _BEGIN.replace(
    "BEGIN; ", "BEGIN; SET LOCAL lock_timeout = '15min'; SET LOCAL statement_timeout = '15min'; "
)
_BEGIN_APART = "BEGIN; SELECT pg_current_xact_id()"
_BEGIN_UNSYNCED = "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_current_xact_id()"
_TRY = f"SELECT pg_try_advisory_xact_lock({_WRITER})"
_TRIES = 3
_DISTURBED = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
"""Ends of a transaction at which PostgreSQL asks to try all of it again."""
_PAUSE_S = 0.1
"""How long a transaction that others ended leaves them alone; twice that before the last try."""
_ASK_FOR_S = 5.0
"""How long the outcome of a commit whose answer was lost is asked for."""
_OLDEST = 130000
_SCHEMA_REST = (
    "CREATE TABLE schema_migration (id BIGSERIAL PRIMARY KEY, "
    'name TEXT COLLATE "C" NOT NULL, applied TEXT NOT NULL)',
    "CREATE UNIQUE INDEX schema_migration_name ON schema_migration (name)",
    """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit is only ever added to'; END $$
    """,
    "CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit "
    "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
    "CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit "
    "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()",
)

T = TypeVar("T")


class PostgreSQLDatabase(JobDatabase):
    """A database of a PostgreSQL server, and connections to it: as many as are in use at once, bounded.

    A transaction is durable when ``write`` returns. Writers of this process share transactions, as on SQLite;
    those of other processes wait for the advisory lock, up to 5 s. A connection that was lost is opened anew:
    what was read or written on it is tried again, unless it was committed.
    """

    def __init__(self, url: str, *, max_connections: int = 20) -> None:
        self._sessions = Sessions(url, max_connections=max_connections)
        self.name = self._sessions.name
        """The server and the database, without user and password."""
        self._write_lock = FairLock()
        super().__init__(_Peewee(self._sessions))
        self.open_transaction = OpenTransaction(self._peewee, self._is_in_transaction)
        self._group = _Group(self._write_lock, self._peewee.execute_sql, self._begin)

    # --- reads and writes ----------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[Any]:
        """Run the body's queries on one connection. Raises ``StoreError`` if the database cannot answer."""
        with super().read() as db, self._sessions.use():
            yield db

    @contextmanager
    def transaction(self) -> Iterator[OpenTransaction]:
        """Run the body as one transaction that is durable when this returns. Raises ``StoreError``."""
        self._refuse_nesting()
        with self._write_lock, translated(), _told(), self._begin():
            yield self.open_transaction

    def write(self, work: Callable[[Any], T]) -> T:
        """Run ``work`` as one transaction that is durable when this returns; returns its result.

        ``work`` may run on another thread, and several times. Raises as ``transaction``.
        """
        self._refuse_nesting()
        with translated():
            return self._group.run_transaction(lambda: work(self._peewee))

    def write_if_free(self, sql: str, values: Sequence[object]) -> bool:
        """Run one statement as a transaction; returns ``False`` if another writer is active."""
        if not self._write_lock.enter_if_free():
            return False
        try:
            with translated(), self._sessions.use() as session:
                session.run("BEGIN")
                try:
                    (is_free,) = session.run(_TRY).fetchone()
                    if is_free:
                        self._peewee.execute_sql(sql, values)
                finally:
                    # Nobody waits for it, so that a lost answer does not matter.
                    session.end("COMMIT")
                return bool(is_free)
        finally:
            self._write_lock.__exit__()

    def write_apart(self, work: Callable[[Any], T], *, is_durable: bool = True) -> T:
        """Run ``work`` as one transaction without the writers' lock; see ``Connection.write_apart``."""
        self._refuse_nesting()

        def once() -> T:
            with self._begin(_BEGIN_APART if is_durable else _BEGIN_UNSYNCED):
                return work(self._peewee)

        with translated():
            # What was written before it without being durable may be gone with the connection.
            return _until_undisturbed(once, unless_lost=True)

    @contextmanager
    def _begin(self, begin: str = _BEGIN) -> Iterator[object]:
        """Run the body as one transaction, which has ended when this returns."""
        with self._sessions.use() as session:
            transaction_id = session.begin(begin)
            try:
                yield self._peewee.execute_sql
            except BaseException:
                with suppress(PeeweeException):
                    session.end("ROLLBACK")
                raise
            try:
                session.end("COMMIT")
            except Lost as exc:
                self._end_lost(transaction_id, exc)

    def _end_lost(self, transaction_id: int, lost: Lost) -> None:
        """Return if a transaction was committed whose answer was lost, and raise ``Lost`` if it was not.

        Raises ``OutcomeUnknownError`` if the server cannot be asked.
        """
        until = monotonic() + _ASK_FOR_S
        while True:
            status = None
            with suppress(PeeweeException, StoreError), self._sessions.use_another() as session:
                (status,) = session.run(f"SELECT pg_xact_status('{transaction_id:d}'::xid8)").fetchone()
            if status == "committed":
                return
            if status == "aborted":
                raise lost
            if monotonic() > until:
                raise OutcomeUnknownError(
                    f"the connection to the job database {self.name} was lost during a commit, and whether "
                    "it was written is not known: look before you repeat the request"
                ) from lost
            sleep(0.05)

    def _refuse_nesting(self) -> None:
        if self._is_in_transaction():
            raise RuntimeError("a transaction is open on this thread: write on its tx, not on the store")

    def _is_in_transaction(self) -> bool:
        session = self._sessions.current
        return session is not None and session.is_in_transaction

    # --- the schema ----------------------------------------------------------------------------

    def migrate(self) -> list[str]:
        """Create the schema, or apply the missing migrations, and return their names; safe to repeat.

        All of it is one transaction, and others that start meanwhile wait. Raises ``ConfigurationError``.
        """
        try:
            with self._sessions.use() as session:
                self._check_server(session)
            with self._begin(_BEGIN_MIGRATION):
                self._peewee.execute_sql("SET LOCAL statement_timeout = 0")
                return self._migrate()
        except (PeeweeException, StoreError) as exc:
            raise ConfigurationError(
                f"the job database {self.name} cannot be used: {exc}; check --database, that the server runs "
                "and lets this user in, and that the database exists"
            ) from exc

    def _check_server(self, session: Session) -> None:
        if session.server_version < _OLDEST:
            raise ConfigurationError(
                f"the job database {self.name} is on a PostgreSQL older than 13; upgrade the server"
            )
        (encoding,) = session.run("SHOW server_encoding").fetchone()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"the database {self.name} has the encoding {encoding}; create one with "
                "createdb --encoding UTF8 --template template0"
            )

    def _migrate(self) -> list[str]:
        execute = self._peewee.execute_sql
        (history,) = execute(f"SELECT to_regclass('{schema.HISTORY}')").fetchone()
        if history is None:
            return self._create()
        applied = {name for (name,) in execute(f"SELECT name FROM {schema.HISTORY}")}  # noqa: S608  # a name of ours
        missing, unknown = schema.missing(applied)
        if unknown:
            raise ConfigurationError(
                f"the job database {self.name} was written by a newer version of Reactorcide (it has "
                f"{unknown[-1]}); run that version or a later one"
            )
        if missing:
            # Imported late: hardly any start needs them.
            from playhouse.migrate import PostgresqlMigrator
            from playhouse.migrations import Migration

            migrator = PostgresqlMigrator(self._peewee)
            for entry in Migration.load_directory(str(MIGRATIONS_DIR)):
                if entry.name in missing:
                    entry.load().up(migrator, self._peewee)
                    schema.record(self._peewee, [entry.name])
        return missing

    def _create(self) -> list[str]:
        """Create all tables as they are after the last migration."""
        names, _ = schema.missing(set())
        for statement in (*schema.statements(self._peewee), *_SCHEMA_REST):
            self._peewee.execute_sql(_in_postgresql(statement))
        schema.record(self._peewee, names)
        return names

    # --- the rest ------------------------------------------------------------------------------

    def continue_numbers(self, last: Mapping[tuple[str, str], int]) -> None:
        """Number further rows from after these on, by table and column; part of the open transaction."""
        for (table, column), number in last.items():
            if number:
                sequence = f"pg_get_serial_sequence('\"{table}\"', '{column}')"
                self.open_transaction.execute(f"SELECT setval({sequence}, {number:d})")

    def shrink(self) -> None:
        """Remove overwritten and deleted data from the tables. Raises as ``write``."""
        with translated(), self._sessions.use() as session:
            for model in ALL_MODELS:
                session.run(f'VACUUM "{model._meta.table_name}"')

    def check(self) -> None:
        """Raise ``StoreError`` unless the database takes a write (rolled back at once)."""
        with translated(), suppress(_RolledBack), self._write_lock, self._begin():
            # Before its first start a service has no tables here.
            (table,) = self._peewee.execute_sql("SELECT to_regclass('instance')").fetchone()
            if table is not None:
                InstanceRow.update(instance_id=InstanceRow.instance_id).execute(self._peewee)
            raise _RolledBack

    def close(self) -> None:
        """Close all connections; safe to repeat. No query may be running."""
        self._sessions.close()


class _RolledBack(Exception):
    """Ends a transaction that is only tried."""


class _Group(GroupCommit):
    """Group commit whose transactions are tried again where PostgreSQL asks for that."""

    def _alone(self, work: Callable[[], T]) -> T:
        return _until_undisturbed(lambda: super(_Group, self)._alone(work))


def _until_undisturbed(transaction: Callable[[], T], *, unless_lost: bool = False) -> T:
    """Return what a whole transaction does; it is repeated if others ended it, or its connection was lost."""
    for number in range(1, _TRIES):
        try:
            return transaction()
        except peewee.OperationalError as exc:
            is_lost = isinstance(exc, Lost) and not unless_lost
            if not is_lost and not isinstance(exc.__cause__, _DISTURBED):
                raise
        # Begun at once, it takes the row from the one that has just got it, and both are in each other's way.
        sleep(_PAUSE_S * number)
    with _told():
        return transaction()


@contextmanager
def _told() -> Iterator[None]:
    """Say of a transaction that was ended for the sake of others what to do."""
    try:
        yield
    except peewee.OperationalError as exc:
        if not isinstance(exc.__cause__, _DISTURBED):
            raise
        raise peewee.OperationalError(
            f"{exc}, by what others write at the same time; nothing was written: try again"
        ) from exc


class _Peewee(PostgresqlDatabase):
    """What peewee's queries are built for and run on: the connection that the calling thread uses."""

    param = "?"
    field_types = PostgresqlDatabase.field_types | {
        "AUTO": "BIGSERIAL",
        "INT": "BIGINT",
        # In the order of code points, as in SQLite, whatever the language of the database.
        "TEXT": 'TEXT COLLATE "C"',
        "FLOAT": "DOUBLE PRECISION",
    }
    index_value_literals = True

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        super().__init__("", autoconnect=False)

    def init(self, database: Any, *args: Any, **kwargs: Any) -> None:
        """Take no driver: the connections are not peewee's."""
        peewee.Database.init(self, database, **kwargs)

    def execute_sql(self, sql: str, params: Sequence[object] | None = None) -> Any:
        """Run a statement of the words that both engines know."""
        with self._sessions.use() as session:
            return session.run(translate(sql), params or ())

    @contextmanager
    def atomic(  # type: ignore[override]  # a context is all that migrations need
        self, *_: object, **__: object
    ) -> Iterator[None]:
        """Run the body as part of the open transaction."""
        yield

    def close(self) -> bool:
        """The connections are closed by their owner."""
        return False

    def is_closed(self) -> bool:
        """There is a connection whenever one is needed."""
        return False


_PARTS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\?|\bINDEXED BY \w+|\bIN \(\)")


@lru_cache(maxsize=2048)
def translate(sql: str) -> str:
    """Return a statement in PostgreSQL's words, with its numbered placeholders."""
    numbers = count(1)

    def translated_part(match: re.Match[str]) -> str:
        part = match.group()
        if part == "?":
            return f"${next(numbers)}"
        if part.startswith("INDEXED"):
            return ""
        if part == "IN ()":
            return "IN (SELECT NULL WHERE FALSE)"
        return part

    return _PARTS.sub(translated_part, sql)


def _in_postgresql(statement: str) -> str:
    """Return a statement of the schema without what only SQLite knows."""
    return (
        statement.replace(" WITHOUT ROWID", "")
        .replace("BOOLEAN NOT NULL DEFAULT 0", "BOOLEAN NOT NULL DEFAULT FALSE")
        .replace("BOOLEAN NOT NULL DEFAULT 1", "BOOLEAN NOT NULL DEFAULT TRUE")
    )
