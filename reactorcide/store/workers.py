"""Queries on workers on other machines."""

import json
from collections.abc import Sequence
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.errors import Conflict, NotFound
from reactorcide.domain.workers import RemoteWorker, WorkerSession
from reactorcide.store.connection import Connection

_COLUMNS = (
    "worker_id, name, queues, secret_sha256 IS NOT NULL, is_draining, created_at_ms, session_id, host, "
    "version, concurrency, served_queues, trouble, warm_containers, last_seen_at_ms, lost_after_s"
)
_INSERT = (
    "INSERT INTO worker (worker_id, name, queues, registration_sha256, registration_expires_at_ms, "
    "is_draining, created_at_ms, host, version, protocol, concurrency, served_queues, warm_containers, "
    "lost_after_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# A repetition with the same secret finds the row as it is.
_REGISTER = (
    "UPDATE worker SET secret_sha256 = ? WHERE registration_sha256 = ? "
    "AND ((secret_sha256 IS NULL AND registration_expires_at_ms > ?) OR secret_sha256 = ?) "
    "RETURNING worker_id"
)
_BEGIN_SESSION = (
    "UPDATE worker SET session_id = ?, host = ?, version = ?, protocol = ?, concurrency = ?, "
    "served_queues = ?, lost_after_s = ?, trouble = NULL, warm_containers = 0, last_seen_at_ms = ? "
    "WHERE worker_id = ? RETURNING worker_id"
)
_SEEN = (
    "UPDATE worker SET last_seen_at_ms = ?, trouble = ?, warm_containers = ? "
    "WHERE worker_id = ? AND session_id = ?"
)


class Workers:
    """Workers on other machines. Thread-safe; each write is one transaction, or part of the one this belongs
    to.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(
        self,
        worker_id: str,
        name: str,
        queues: Sequence[str],
        *,
        registration_sha256: bytes,
        expires_at_ms: int,
        now_ms: int,
    ) -> None:
        """Insert a worker that has not registered yet; raises ``Conflict`` if the name is taken."""
        values = (
            *(worker_id, name, json.dumps(list(queues)), registration_sha256, expires_at_ms, False, now_ms),
            *("", "", 0, 0, "[]", 0, 0.0),
        )
        try:
            self._db.write(lambda db: db.execute_sql(_INSERT, values))
        except IntegrityError as exc:
            raise Conflict(f"there is a worker {name!r} already") from exc

    def register(self, registration_sha256: bytes, secret_sha256: bytes, *, now_ms: int) -> str | None:
        """Store a worker's secret and return the worker's id; ``None`` if its registration is not valid.

        Succeeds once, and again with the same secret.
        """
        values = (secret_sha256, registration_sha256, now_ms, secret_sha256)
        row = self._db.write(lambda db: db.execute_sql(_REGISTER, values).fetchone())
        return None if row is None else str(row[0])

    def by_secret(self, secret_sha256: bytes) -> RemoteWorker | None:
        """Return the worker with a secret."""
        return self._one("secret_sha256 = ?", secret_sha256)

    def find(self, worker_id: str) -> RemoteWorker | None:
        """Return a worker, by its id or its name."""
        return self._one("worker_id = ? OR name = ?", worker_id, worker_id)

    def all(self) -> list[RemoteWorker]:
        """Return all workers, by name."""
        with self._db.read() as db:
            rows = db.execute_sql(f"SELECT {_COLUMNS} FROM worker ORDER BY name").fetchall()  # noqa: S608  # our own text
        return [_worker(row) for row in rows]

    def begin_session(self, worker_id: str, session: WorkerSession, *, now_ms: int) -> None:
        """Replace the session of a worker; raises ``NotFound``."""
        values = (
            *(session.session_id, session.host, session.version, session.protocol, session.concurrency),
            *(json.dumps(list(session.queues)), session.lost_after_s, now_ms, worker_id),
        )
        if self._db.write(lambda db: db.execute_sql(_BEGIN_SESSION, values).fetchone()) is None:
            raise _missing(worker_id)

    def seen(
        self, worker_id: str, session_id: str, *, trouble: str | None, warm_containers: int, now_ms: int
    ) -> None:
        """Record what a worker reports of itself."""
        values = (now_ms, trouble, warm_containers, worker_id, session_id)
        self._db.write(lambda db: db.execute_sql(_SEEN, values))

    def set_draining(self, worker_id: str, *, is_draining: bool) -> None:
        """Have a worker take no more jobs, or take them again; raises ``NotFound``."""
        sql, values = (
            "UPDATE worker SET is_draining = ? WHERE worker_id = ? RETURNING worker_id",
            (
                is_draining,
                worker_id,
            ),
        )
        if self._db.write(lambda db: db.execute_sql(sql, values).fetchone()) is None:
            raise _missing(worker_id)

    def remove(self, worker_id: str) -> None:
        """Remove a worker, whose secret is refused from then on; raises ``NotFound``."""
        sql = "DELETE FROM worker WHERE worker_id = ? RETURNING worker_id"
        if self._db.write(lambda db: db.execute_sql(sql, (worker_id,)).fetchone()) is None:
            raise _missing(worker_id)

    def _one(self, condition: str, *values: object) -> RemoteWorker | None:
        with self._db.read() as db:
            row = db.execute_sql(f"SELECT {_COLUMNS} FROM worker WHERE {condition}", values).fetchone()  # noqa: S608  # our own text
        return None if row is None else _worker(row)


def _worker(row: Sequence[Any]) -> RemoteWorker:
    return RemoteWorker(
        worker_id=row[0],
        name=row[1],
        queues=tuple(json.loads(row[2])),
        is_registered=bool(row[3]),
        is_draining=bool(row[4]),
        created_at_ms=row[5],
        session_id=row[6],
        host=row[7],
        version=row[8],
        concurrency=row[9],
        served_queues=tuple(json.loads(row[10])),
        trouble=row[11],
        warm_containers=row[12],
        last_seen_at_ms=row[13],
        lost_after_s=row[14],
    )


def _missing(worker_id: str) -> NotFound:
    return NotFound(f"there is no worker {worker_id}")
