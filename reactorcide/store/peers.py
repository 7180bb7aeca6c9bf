"""The services on this database, and whose turn is what."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from reactorcide.domain.peers import Peer
from reactorcide.store.connection import Connection

_COLUMNS = tuple(item.name for item in fields(Peer))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM peer"  # noqa: S608  # names of ours only
_INSERT = f"INSERT INTO peer ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  # as above
_BEAT = (
    "UPDATE peer SET beat = beat + 1, worker = ? WHERE service_id = ? AND session_id = ? RETURNING service_id"
)
_TAKE = (
    "INSERT INTO turn (kind, key, service_id) VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE "
    "SET service_id = excluded.service_id WHERE turn.service_id = excluded.service_id RETURNING 1"
)


class Peers:
    """Services on this database. Thread-safe; each write is one transaction, or part of the one this belongs
    to.

    What is frequent is written beside other transactions and is lost in a crash of the database server, which
    costs nothing: it ends the calls of all services, too.
    """

    def __init__(self, db: Connection) -> None:
        self._db = db

    def join(self, peer: Peer) -> None:
        """Add a service. What an earlier process of it has left, its turns too, is removed."""

        def work(db: Any) -> None:
            _remove(db, peer.service_id)
            db.execute_sql(_INSERT, [getattr(peer, name) for name in _COLUMNS])

        self._db.write(work)

    def beat(self, service_id: str, session_id: str, worker: str) -> bool:
        """Say that a service lives, and what its worker reports; returns whether it is still listed."""
        values = (worker, service_id, session_id)
        return self._db.write_apart(
            lambda db: db.execute_sql(_BEAT, values).fetchone() is not None, is_durable=False
        )

    def leave(self, service_id: str, session_id: str) -> None:
        """Remove a service that ends; safe to repeat."""

        def work(db: Any) -> None:
            sql = "DELETE FROM peer WHERE service_id = ? AND session_id = ? RETURNING service_id"
            if db.execute_sql(sql, (service_id, session_id)).fetchone() is not None:
                _remove(db, service_id)

        self._db.write(work)

    def remove_dead(self, peer: Peer) -> bool:
        """Remove a service with its turns, unless it has beaten since; returns whether it was removed."""

        def work(db: Any) -> bool:
            sql = "DELETE FROM peer WHERE service_id = ? AND session_id = ? AND beat = ? RETURNING service_id"
            if db.execute_sql(sql, (peer.service_id, peer.session_id, peer.beat)).fetchone() is None:
                return False
            _remove(db, peer.service_id)
            return True

        return self._db.write(work)

    def all(self) -> list[Peer]:
        """Return all services that are listed, also those that were killed a moment ago."""
        with self._db.read() as db:
            return [_peer(row) for row in db.execute_sql(_SELECT).fetchall()]

    # --- turns ---------------------------------------------------------------------------------

    def turns_of_others(self, kind: str, service_id: str) -> list[str]:
        """Return the keys of a kind whose turn another service has."""
        with self._db.read() as db:
            rows = db.execute_sql(
                "SELECT key FROM turn WHERE kind = ? AND service_id <> ?", (kind, service_id)
            ).fetchall()
        return [str(key) for (key,) in rows]

    def take_turn(self, kind: str, key: str, service_id: str) -> bool:
        """Give a turn to a service that has it already, or where nobody has it; returns whether it has it."""
        values = (kind, key, service_id)
        return self._db.write_apart(
            lambda db: db.execute_sql(_TAKE, values).fetchone() is not None, is_durable=False
        )

    def end_turn(self, kind: str, key: str, service_id: str) -> None:
        """End a service's turn; safe to repeat."""
        sql = "DELETE FROM turn WHERE kind = ? AND key = ? AND service_id = ?"
        self._db.write_apart(lambda db: db.execute_sql(sql, (kind, key, service_id)), is_durable=False)


def _remove(db: Any, service_id: str) -> None:
    for table in ("turn", "peer"):
        db.execute_sql(f"DELETE FROM {table} WHERE service_id = ?", (service_id,))  # noqa: S608  # names of ours only


def _peer(row: Sequence[Any]) -> Peer:
    return Peer(**dict(zip(_COLUMNS, row, strict=True)))
