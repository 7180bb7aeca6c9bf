"""Connections to a PostgreSQL server: opened when needed, used by one thread at a time, bounded."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import peewee
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import NumericLoader

from reactorcide.domain.errors import ConfigurationError, StoreError

_CONNECT_TIMEOUT_S = 5
_WAIT_S = 5.0
"""How long a thread waits for a connection that others use."""
_SETTINGS = (
    "SET lock_timeout = '5s'; SET statement_timeout = '60s'; "
    # The writers' lock is not held for long by a process that has stopped in a transaction.
    "SET idle_in_transaction_session_timeout = '15s'; SET timezone = 'UTC'; "
    # With another one a writer that has waited for its lock sees what was there before.
    "SET default_transaction_isolation = 'read committed'; "
    # A server that loses commits in a crash is told not to, and one that waits for replicas stays so.
    "SELECT set_config('synchronous_commit', 'on', FALSE) WHERE current_setting('synchronous_commit') = 'off'"
)
_ERRORS = (
    "IntegrityError",
    "ProgrammingError",
    "DataError",
    "NotSupportedError",
    "InternalError",
    "OperationalError",
    "InterfaceError",
)


class Lost(peewee.OperationalError):
    """The connection was lost in a transaction, of which nothing was written."""


class _Number(NumericLoader):
    """Sums are whole numbers here, but PostgreSQL's sums of large ones are of its type numeric."""

    def load(self, data: Any) -> Any:
        number = super().load(data)
        return int(number) if number == number.to_integral_value() else float(number)


def _without_nul(value: object) -> object:
    """Return a value; in a text, NUL, the one character that PostgreSQL does not have, becomes U+FFFD."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


class Session:
    """One connection. For one thread at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection = self._connect()
        self.is_in_transaction = False

    @property
    def is_broken(self) -> bool:
        """Whether the connection was lost."""
        return self._connection.closed

    @property
    def server_version(self) -> int:
        """The server's version, as 150004 for 15.4."""
        return self._connection.info.server_version

    def begin(self, sql: str) -> int:
        """Begin a transaction by some statements, and return the last one's number."""
        cursor = self.run(sql)
        self.is_in_transaction = True
        while cursor.nextset():
            pass
        return int(cursor.fetchone()[0])

    def end(self, how: str) -> None:
        """End the transaction by ``COMMIT`` or ``ROLLBACK``.

        Raises ``Lost`` if the connection was lost before the answer, and ``OperationalError`` if the
        transaction had failed already, so that it cannot be committed.
        """
        try:
            cursor = self.run(how)
        finally:
            self.is_in_transaction = False
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.close()
        if cursor.statusmessage != how:
            raise peewee.OperationalError("the transaction had failed, so that nothing of it was written")

    def run(self, sql: str, values: Sequence[object] | None = None) -> Any:
        """Run a statement and return its cursor, with all rows. Without values it may be several.

        Outside of a transaction it is run once more if the connection was lost. Raises peewee's errors.
        """
        if values:
            values = [_without_nul(value) for value in values]
        try:
            return self._connection.execute(sql, values)
        except psycopg.Error as exc:
            if not self._connection.closed:
                raise _peewee_error(exc) from exc
            if self.is_in_transaction:
                raise Lost(_sentence(exc)) from exc
        except UnicodeEncodeError as exc:
            raise peewee.DataError(f"a text has half a character, which cannot be stored: {exc}") from exc
        self._connection = self._connect()
        try:
            return self._connection.execute(sql, values)
        except psycopg.Error as exc:
            raise _peewee_error(exc) from exc

    def close(self) -> None:
        """Close the connection; safe to repeat."""
        with suppress(psycopg.Error):
            self._connection.close()

    def _connect(self) -> "psycopg.Connection[Any]":
        try:
            # For statements with numbered placeholders: others are parsed, long ones each time.
            connection = connect(self._url, _SETTINGS, cursor_factory=psycopg.RawCursor)
        except psycopg.Error as exc:
            raise _peewee_error(exc) from exc
        connection.adapters.register_loader("numeric", _Number)
        return connection


class Sessions:
    """The connections of a process to one database. Thread-safe."""

    def __init__(self, url: str, *, max_connections: int) -> None:
        self._url = url
        self._max = max_connections
        self._changed = threading.Condition()
        self._idle: list[Session] = []
        self._open = 0
        self._local = threading.local()
        self.name = name_of(url)

    @property
    def current(self) -> Session | None:
        """The connection that the calling thread uses; ``None`` if it uses none."""
        session: Session | None = getattr(self._local, "session", None)
        return session

    @contextmanager
    def use(self) -> Iterator[Session]:
        """Let the calling thread use a connection during the body: the one that it uses, if it does.

        Raises ``StoreError`` if none is free for five seconds, and peewee's errors if none can be opened.
        """
        session = self.current
        if session is not None:
            yield session
            return
        with self.use_another() as session:
            self._local.session = session
            try:
                yield session
            finally:
                self._local.session = None

    @contextmanager
    def use_another(self) -> Iterator[Session]:
        """Give the body a connection beside the one that the thread uses."""
        session = self._take()
        try:
            yield session
        finally:
            self._give_back(session)

    def _take(self) -> Session:
        until = monotonic() + _WAIT_S
        with self._changed:
            while not self._idle and self._open >= self._max:
                if not self._changed.wait(until - monotonic()):
                    raise StoreError(
                        f"all {self._max} connections to the job database {self.name} are in use; try again"
                    )
            if self._idle:
                return self._idle.pop()
            self._open += 1
        try:
            return Session(self._url)
        except BaseException:
            self._forget()
            raise

    def _give_back(self, session: Session) -> None:
        if session.is_broken or session.is_in_transaction:
            session.close()
            self._forget()
            return
        with self._changed:
            self._idle.append(session)
            self._changed.notify()

    def _forget(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close the connections that no thread uses; safe to repeat."""
        with self._changed:
            idle, self._idle = self._idle, []
            self._open -= len(idle)
        for session in idle:
            session.close()


def connect(
    url: str,
    settings: str,
    *,
    application_name: str = "reactorcide",
    cursor_factory: "type[psycopg.Cursor[Any]]" = psycopg.Cursor,
) -> "psycopg.Connection[Any]":
    """Return a connection on which the statements ``settings`` were run, and a lost server is noticed soon.

    Raises ``psycopg.Error``.
    """
    connection = psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=_CONNECT_TIMEOUT_S,
        application_name=application_name,
        client_encoding="utf8",
        cursor_factory=cursor_factory,
        keepalives_idle=15,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
    )
    try:
        connection.execute(settings)
    except BaseException:
        connection.close()
        raise
    return connection


def name_of(url: str) -> str:
    """Return host, port and database of a URL, without user and password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its message repeats a part of the URL, which may be the password.
        raise ConfigurationError(
            "the address of the job database is not valid; give --database one like "
            "postgresql://USER@HOST/DATABASE, with % and two digits for special characters"
        ) from None
    host = parts.get("host") or "localhost"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{host}{port}/{parts.get('dbname') or parts.get('user') or ''}"


def _peewee_error(exc: psycopg.Error) -> peewee.PeeweeException:
    name = next((name for name in _ERRORS if isinstance(exc, getattr(psycopg, name))), "DatabaseError")
    error: peewee.PeeweeException = getattr(peewee, name)(_sentence(exc))
    error.__cause__ = exc
    return error


def _sentence(exc: psycopg.Error) -> str:
    """Return the message of an error, without the values of rows."""
    return exc.diag.message_primary or " ".join(str(exc).split()) or type(exc).__name__
