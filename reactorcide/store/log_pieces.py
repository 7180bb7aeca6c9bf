"""Queries on growing logs: their pieces as rows, for all services on one database."""

from collections.abc import Iterator
from typing import Any

from reactorcide.domain.logs import GrowingLog, LogName
from reactorcide.store.connection import Connection

_NAMED = "job_id = ? AND attempt = ? AND name = ?"
_HEAD = f"SELECT writer, base_bytes, size_bytes FROM log_file WHERE {_NAMED}"  # noqa: S608  # text of ours only
_CREATE = (
    "INSERT INTO log_file (job_id, attempt, name, writer, base_bytes, size_bytes) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_TAKE = (
    f"UPDATE log_file SET writer = ? WHERE {_NAMED} "  # noqa: S608  # as above
    "RETURNING writer, base_bytes, size_bytes"
)
_TAKE_AGAIN = f"UPDATE log_file SET writer = ? WHERE {_NAMED} AND writer = ?"  # noqa: S608  # as above
# This locks the row, so that two writers come one after the other, and the second finds another size.
_GROW = (
    f"UPDATE log_file SET size_bytes = ? WHERE {_NAMED} AND writer = ? AND size_bytes = ? "  # noqa: S608  # as above
    "RETURNING size_bytes"
)
_CUT = (
    "UPDATE log_file SET size_bytes = ?, base_bytes = CASE WHEN base_bytes > ? THEN ? ELSE base_bytes END "  # noqa: S608  # as above
    f"WHERE {_NAMED} AND writer = ? AND size_bytes >= ? RETURNING size_bytes"
)
_INSERT = "INSERT INTO log_piece (job_id, attempt, name, start_at, data) VALUES (?, ?, ?, ?, ?)"
_REMOVE_FROM = f"DELETE FROM log_piece WHERE {_NAMED} AND start_at >= ?"  # noqa: S608  # as above
_LAST = f"SELECT start_at, data FROM log_piece WHERE {_NAMED} ORDER BY start_at DESC LIMIT 1"  # noqa: S608  # as above
_REPLACE = f"UPDATE log_piece SET data = ? WHERE {_NAMED} AND start_at = ?"  # noqa: S608  # as above
_SKIPPED = "CASE WHEN start_at < ? THEN ? - start_at ELSE 0 END"
_READ = (
    f"SELECT start_at + {_SKIPPED}, substr(data, CAST({_SKIPPED} AS INTEGER) + 1, ?) FROM log_piece "  # noqa: S608  # as above
    f"WHERE {_NAMED} AND start_at < ? AND start_at >= "
    f"COALESCE((SELECT MAX(start_at) FROM log_piece WHERE {_NAMED} AND start_at <= ?), 0) "
    "ORDER BY start_at LIMIT ?"
)
_READ_AT_ONCE = 8
_LISTED_AT_ONCE = 1000

MAX_PIECE_BYTES = 1 << 16


class LogPieces:
    """Growing logs. Thread-safe; each write is one transaction, durable when it returns, except ``add``.

    Whoever opens a file is its writer, and from then on no one else is: a write says who writes and where the
    file ends, and does nothing if that is not so. Pieces begin at ``base_bytes`` and have no gap.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def find(self, log: LogName) -> GrowingLog | None:
        """Return a file, if it exists here."""
        with self._db.read() as db:
            row = db.execute_sql(_HEAD, log).fetchone()
        return None if row is None else GrowingLog(*row)

    def open(self, log: LogName, writer: str, *, size_bytes: int | None) -> GrowingLog | None:
        """Make ``writer`` the one who writes a file, and return the file.

        A missing one is created, with the first ``size_bytes`` in the object under its key; with ``None`` it
        stays missing, and the result is ``None``.
        """

        def work(db: Any) -> GrowingLog | None:
            if size_bytes is not None:
                db.execute_sql(_CREATE, (*log, writer, size_bytes, size_bytes))
            row = db.execute_sql(_TAKE, (writer, *log)).fetchone()
            return None if row is None else GrowingLog(*row)

        return self._db.write_apart(work)

    def add(
        self, log: LogName, writer: str, end: int, data: bytes, *, merged_from: int, merged: bytes
    ) -> bool:
        """Append ``data`` to a file that ends at ``end``; returns whether the file was as described.

        It outlives this process, and a crash of the database server after ``sync``.
        ``merged`` are the file's last bytes, from ``merged_from`` on, which become one piece with ``data``.
        """
        text = merged + data
        pieces = [
            (*log, merged_from + start, text[start : start + MAX_PIECE_BYTES])
            for start in range(0, len(text), MAX_PIECE_BYTES)
        ]

        def work(db: Any) -> bool:
            if db.execute_sql(_GROW, (end + len(data), *log, writer, end)).fetchone() is None:
                return False
            if merged:
                db.execute_sql(_REMOVE_FROM, (*log, merged_from))
            for piece in pieces:
                db.execute_sql(_INSERT, piece)
            return True

        return self._db.write_apart(work, is_durable=False)

    def sync(self, log: LogName, writer: str) -> None:
        """Make durable what ``writer`` has appended."""
        self._db.write_apart(lambda db: db.execute_sql(_TAKE_AGAIN, (writer, *log, writer)))

    def cut_back(self, log: LogName, writer: str, size_bytes: int) -> bool:
        """Remove all but the first bytes; returns whether ``writer`` writes it and it was that long."""

        def work(db: Any) -> bool:
            values = (size_bytes, size_bytes, size_bytes, *log, writer, size_bytes)
            if db.execute_sql(_CUT, values).fetchone() is None:
                return False
            db.execute_sql(_REMOVE_FROM, (*log, size_bytes))
            last = db.execute_sql(_LAST, log).fetchone()
            if last is not None and last[0] + len(last[1]) > size_bytes:
                db.execute_sql(_REPLACE, (bytes(last[1])[: size_bytes - last[0]], *log, last[0]))
            return True

        return self._db.write_apart(work)

    def read(self, log: LogName, start: int, end: int) -> list[tuple[int, bytes]]:
        """Return the next few pieces of the bytes from ``start`` to ``end``, each with its offset."""
        skipped = (start, start)
        values = (
            *skipped,
            *skipped,
            min(end - start, MAX_PIECE_BYTES),
            *log,
            end,
            *log,
            start,
            _READ_AT_ONCE,
        )
        with self._db.read() as db:
            return [(at, bytes(data)[: end - at]) for at, data in db.execute_sql(_READ, values).fetchall()]

    def remove(self, log: LogName, writer: str, size_bytes: int) -> bool:
        """Remove a file, if ``writer`` writes it and it is that long; returns whether it was removed."""

        def work(db: Any) -> bool:
            sql = f"DELETE FROM log_file WHERE {_NAMED} AND writer = ? AND size_bytes = ? RETURNING attempt"  # noqa: S608  # text of ours only
            if db.execute_sql(sql, (*log, writer, size_bytes)).fetchone() is None:
                return False
            db.execute_sql(f"DELETE FROM log_piece WHERE {_NAMED}", log)  # noqa: S608  # as above
            return True

        return self._db.write_apart(work)

    def delete(self, job_id: str | None, attempt: int | None) -> None:
        """Remove the files of a job (``None``: of all) or of one of its attempts; safe to repeat."""
        where, values = _below(job_id, attempt)

        def work(db: Any) -> None:
            # In the order of the other writes, which lock the file first.
            for table in ("log_file", "log_piece"):
                db.execute_sql(f"DELETE FROM {table}{where}", values)  # noqa: S608  # names of ours only

        self._db.write_apart(work)

    def list(self, job_id: str | None, attempt: int | None) -> Iterator[tuple[LogName, int]]:
        """Yield the files of a job (``None``: of all) or of one of its attempts, with their sizes."""
        below, values = _below(job_id, attempt)
        follows = f"{' AND' if below else ' WHERE'} (job_id, attempt, name) > (?, ?, ?)"
        after: tuple[object, ...] = ()
        while True:
            sql = (
                f"SELECT job_id, attempt, name, size_bytes FROM log_file{below}{follows if after else ''} "  # noqa: S608  # names of ours only
                f"ORDER BY job_id, attempt, name LIMIT {_LISTED_AT_ONCE}"
            )
            with self._db.read() as db:
                rows = db.execute_sql(sql, (*values, *after)).fetchall()
            for row in rows:
                yield LogName(*row[:3]), row[3]
            if len(rows) < _LISTED_AT_ONCE:
                return
            after = tuple(rows[-1][:3])


def _below(job_id: str | None, attempt: int | None) -> tuple[str, tuple[object, ...]]:
    """Return the condition of the rows of a job or an attempt, and its values."""
    if job_id is None:
        return "", ()
    if attempt is None:
        return " WHERE job_id = ?", (job_id,)
    return " WHERE job_id = ? AND attempt = ?", (job_id, attempt)
