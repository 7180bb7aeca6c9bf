"""Hints between the services on one PostgreSQL database, by ``LISTEN`` and ``NOTIFY``."""

import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import psycopg

from reactorcide.domain.errors import ConfigurationError
from reactorcide.store.sessions import connect, name_of
from reactorcide.threads import start_thread

log = logging.getLogger("reactorcide.store")

_CHANNEL = "reactorcide"
_LOCKS = 0x7265_6163
"""The class of the advisory locks that running services hold, each by its number."""
_SETTINGS = (
    # The server notices within half a minute that this machine is gone, and gives up the lock.
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4; "
    "SET statement_timeout = '10s'; SET lock_timeout = '5s'"
)
_RUNNING = (
    "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
    "WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = %s "
    "AND datname = current_database()"
)
_MAX_PAYLOAD_BYTES = 7000
"""PostgreSQL takes 8000."""
_MAX_PENDING = 1000
_EVERY_S = 0.05
"""Hints of this time are sent together."""
_IDLE_S = 30.0
_RETRY_S = 1.0
_PATIENCE_S = 10.0


class HintLine:
    """Sends hints to the other services, and hears theirs. A hint is a short text, and may be lost.

    ``start`` once; ``stop`` any number of times. Holds a lock as long as it is connected, so that no two
    services have the same id, and all can see which ones run.
    """

    def __init__(self, url: str, heard: Callable[[str], None], *, patience_s: float = _PATIENCE_S) -> None:
        """``heard`` is called with each hint of another service, by the thread of this.

        ``patience_s`` is how long a start waits for another process with the id of this service to end.
        """
        self._patience_s = patience_s
        self._url = url
        self._heard = heard
        self._number = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        self._pending: dict[str, None] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._wake_in, self._wake_out = -1, -1

    def start(self, service_id: str) -> None:
        """Connect, and make sure that no other process has the id.

        Waits for one that was just killed. Raises ``ConfigurationError``.
        """
        self._number = self.number_of(service_id)
        try:
            self._connection = self._connected()
            is_locked = self._take_lock(self._connection)
            until = monotonic() + self._patience_s
            if not is_locked:
                log.warning("waiting: another process works with the id of this service, %s", service_id)
            while not is_locked and monotonic() < until:
                sleep(0.2)
                is_locked = self._take_lock(self._connection)
        except psycopg.Error as exc:
            raise ConfigurationError(f"the job database {name_of(self._url)} cannot be used: {exc}") from exc
        if not is_locked:
            self._connection.close()
            raise ConfigurationError(
                f"another service works on the job database {name_of(self._url)} with the id of this one, "
                f"{service_id}: its data directory was copied; remove the file service-id from one of the "
                "two, while no job of it runs"
            )
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = start_thread(self._loop, "hints")

    def stop(self, deadline_s: float) -> None:
        """Send what is pending, and disconnect."""
        self._stopping = True
        if self._thread is None:
            return
        self._wake()
        self._thread.join(deadline_s)
        if not self._thread.is_alive() and self._wake_in >= 0:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = self._wake_out = -1

    @staticmethod
    def number_of(service_id: str) -> int:
        """Return the number of the lock of a service, of 31 bits."""
        return int(service_id, 16) & 0x7FFF_FFFF

    def send(self, hint: str) -> None:
        """Have a hint sent soon; any thread."""
        with self._lock:
            is_first = not self._pending
            if len(self._pending) < _MAX_PENDING:
                self._pending[hint] = None
        if is_first:
            self._wake()

    def running(self) -> set[int]:
        """Return the numbers of the services that are connected. Raises ``ConfigurationError``."""
        try:
            with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                return {int(number) for (number,) in connection.execute(_RUNNING, (_LOCKS,)).fetchall()}
        except psycopg.Error as exc:
            raise ConfigurationError(f"the job database {name_of(self._url)} cannot be used: {exc}") from exc

    # --- the thread ----------------------------------------------------------------------------

    def _loop(self) -> None:
        problem = ""
        while not self._stopping:
            try:
                if self._connection is None:
                    self._connection = self._connected()
                    if not self._take_lock(self._connection):
                        log.error("another process works with the id of this service: stop one of the two")
                if problem:
                    log.info("hints between the services: works again")
                    problem = ""
                self._serve(self._connection)
            except (psycopg.Error, OSError) as exc:
                self._disconnect()
                if not self._stopping and str(exc) != problem:
                    problem = str(exc)
                    log.warning("no hints between the services, which look by themselves: %s", exc)
                if not self._stopping:
                    _wait(_RETRY_S, self._wake_out)
                    self._drain()
        self._disconnect()

    def _serve(self, connection: "psycopg.Connection[Any]") -> None:
        """Send and hear until the connection is lost, or this stops."""
        while True:
            is_ending = self._stopping
            self._send_pending(connection)
            self._receive(connection)
            if is_ending:
                return
            if not self._pending:
                _wait(_IDLE_S, connection.fileno(), self._wake_out)
            self._drain()
            if self._pending and not self._stopping:
                sleep(_EVERY_S)

    def _send_pending(self, connection: "psycopg.Connection[Any]") -> None:
        with self._lock:
            pending, self._pending = list(self._pending), {}
        payload: list[str] = []
        size_bytes = 0
        for hint in pending:
            size_bytes += len(hint.encode()) + 1
            if size_bytes > _MAX_PAYLOAD_BYTES:
                self._notify(connection, payload)
                payload, size_bytes = [], len(hint.encode()) + 1
            payload.append(hint)
        self._notify(connection, payload)

    @staticmethod
    def _notify(connection: "psycopg.Connection[Any]", payload: list[str]) -> None:
        if payload:
            connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, "\n".join(payload)))

    def _receive(self, connection: "psycopg.Connection[Any]") -> None:
        connection.pgconn.consume_input()
        while (notify := connection.pgconn.notifies()) is not None:
            self._hear(notify.be_pid, notify.extra.decode(errors="replace"))

    def _hear(self, process_id: int, payload: str) -> None:
        connection = self._connection
        if connection is not None and process_id != connection.pgconn.backend_pid:
            for hint in payload.split("\n"):
                self._heard(hint)

    def _connected(self) -> "psycopg.Connection[Any]":
        connection = connect(
            self._url, f"{_SETTINGS}; LISTEN {_CHANNEL}", application_name="reactorcide hints"
        )
        # For those that arrive while a statement runs.
        connection.add_notify_handler(lambda notify: self._hear(notify.pid, notify.payload))
        return connection

    def _take_lock(self, connection: "psycopg.Connection[Any]") -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCKS, self._number)).fetchone()
        return row is not None and bool(row[0])

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _wake(self) -> None:
        # A full pipe wakes, too; a closed one has nobody to wake.
        with suppress(OSError):
            os.write(self._wake_in, b"x")

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_out, 4096)


def _wait(seconds: float, *descriptors: int) -> None:
    """Wait until one of some descriptors can be read, or is broken, or for a time."""
    # Not ``select``, which knows none above 1023.
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(round(seconds * 1000))
