"""How many bad tokens each network has sent, for all services on one database."""

from typing import Any

from reactorcide.lib.bucket import refilled, spent
from reactorcide.store.connection import Connection

_CREATE = "INSERT INTO bad_token (network, remaining, at_ms) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
# This locks the row, so that two failures are counted one after the other.
_LOCK = "UPDATE bad_token SET network = network WHERE network = ? RETURNING remaining, at_ms"
_SAVE = "UPDATE bad_token SET remaining = ?, at_ms = ? WHERE network = ?"
_MINUTE_MS = 60_000


class BadTokens:
    """Token buckets of networks. Thread-safe; each write is one transaction, which waits for no other's.

    A crash of the database server may lose the last ones.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def count(self, network: str, per_minute: int, *, now_ms: int) -> float:
        """Count a failure, and return how many were allowed just before it: less than 1 is too few."""

        def work(db: Any) -> float:
            db.execute_sql(_CREATE, (network, float(per_minute), now_ms))
            stored, at_ms = db.execute_sql(_LOCK, (network,)).fetchone() or (per_minute, now_ms)
            # The other services have clocks of their own.
            passed_s = max(0, now_ms - at_ms) / 1000
            remaining = refilled(stored, passed_s, per_minute=per_minute)
            db.execute_sql(_SAVE, (spent(remaining), max(now_ms, at_ms), network))
            return remaining

        return self._db.write_apart(work, is_durable=False)

    def forget_old(self, *, now_ms: int) -> None:
        """Remove the networks whose last failure is so long ago that all of them are allowed again."""
        sql, before_ms = "DELETE FROM bad_token WHERE at_ms < ?", now_ms - _MINUTE_MS
        self._db.write_apart(lambda db: db.execute_sql(sql, (before_ms,)), is_durable=False)
