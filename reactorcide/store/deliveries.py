"""Deliveries: added once, worked on, listed and removed."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from reactorcide.domain.deliveries import Delivery, DeliveryStatus, Outcome, TagTold
from reactorcide.domain.errors import NotFound
from reactorcide.store.connection import Connection
from reactorcide.store.pages import marks, matching, newest_first

_COLUMNS = tuple(item.name for item in fields(Delivery))
_JSON = ("headers", "run_ids")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM delivery"  # noqa: S608  # names of ours only
_PROJECT = "SELECT 1 FROM project WHERE project_id = ?"
_INSERT = (
    f"INSERT INTO delivery ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608  # as above
    "ON CONFLICT DO NOTHING RETURNING delivery_id"
)
_REPEAT = (
    "UPDATE delivery SET status = 'waiting', outcome = NULL, due_at_ms = ?, tried_at_ms = NULL, "
    "is_repeated = ? WHERE delivery_id = ? AND status != 'waiting'"
)
_RETRY = (
    "UPDATE delivery SET outcome = ?, due_at_ms = ?, tried_at_ms = ? "
    "WHERE delivery_id = ? AND status = 'waiting'"
)
_SETTLE = (
    "UPDATE delivery SET status = ?, outcome = ?, run_ids = ?, due_at_ms = NULL, tag_key = ?, is_create = ?, "
    "twin_id = ? WHERE delivery_id = ? AND status = 'waiting'"
)
_TWIN = (
    "SELECT delivery_id FROM delivery WHERE project_id = ? AND tag_key = ? AND is_create != ? "
    "AND status = 'started' AND delivery_id NOT IN "
    "(SELECT twin_id FROM delivery WHERE project_id = ? AND tag_key = ? AND twin_id IS NOT NULL)"
)
_EXPIRE = "UPDATE delivery SET status = 'ignored', outcome = ?, due_at_ms = NULL WHERE status = 'waiting'"
_REMOVE_OLD = "DELETE FROM delivery WHERE created_at_ms < ? AND status != 'waiting' RETURNING delivery_id"


class Deliveries:
    """Deliveries. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(self, delivery: Delivery) -> tuple[Delivery, bool]:
        """Insert a delivery; returns it, or the stored one with the same id, and whether it is new.

        That one is processed again unless it waits or has started a run. Raises ``NotFound`` if its
        project is gone.
        """

        def work(db: Any) -> tuple[Delivery, bool]:
            project = db.execute_sql(_PROJECT, (delivery.project_id,)).fetchone()
            if project is None:
                raise NotFound("there is no such project any more")
            values = [_column(delivery, name) for name in _COLUMNS]
            if db.execute_sql(_INSERT, values).fetchone() is not None:
                return delivery, True
            sql = f"{_SELECT} WHERE project_id = ? AND forge_delivery_id = ?"
            key = (delivery.project_id, delivery.forge_delivery_id)
            earlier = _delivery(db.execute_sql(sql, key).fetchone())
            if not earlier.run_ids and earlier.status is not DeliveryStatus.WAITING and delivery.due_at_ms:
                db.execute_sql(_REPEAT, (delivery.due_at_ms, earlier.is_repeated, earlier.delivery_id))
                earlier = _delivery(db.execute_sql(sql, key).fetchone())
            return earlier, False

        return self._db.write(work)

    def repeat(self, delivery_id: str, *, now_ms: int) -> None:
        """Process a delivery again, also if it has started runs; a waiting one does not change."""
        self._db.write(lambda db: db.execute_sql(_REPEAT, (now_ms, True, delivery_id)))

    def retry(self, delivery: Delivery, reason: str, *, due_at_ms: int, tried_at_ms: int) -> None:
        """Postpone a waiting delivery."""
        values = (reason, due_at_ms, tried_at_ms, delivery.delivery_id)
        self._db.write(lambda db: db.execute_sql(_RETRY, values))

    def settle(self, delivery: Delivery, outcome: Outcome, twin_id: str | None = None) -> bool:
        """Store the outcome of a waiting delivery; returns whether it was still waiting.

        ``twin_id`` is the delivery that reported the same tag.
        """
        tag = outcome.tag
        values = (
            outcome.status,
            outcome.sentence,
            json.dumps([*delivery.run_ids, *outcome.run_ids]),
            None if tag is None else tag.key,
            None if tag is None else tag.is_create,
            twin_id,
            delivery.delivery_id,
        )
        return self._db.write(lambda db: bool(db.execute_sql(_SETTLE, values).rowcount))

    def twin(self, delivery: Delivery, tag: TagTold) -> str | None:
        """Return the delivery that has started the runs of the same tag, reported by the other kind of event.

        Each delivery matches one other, because a deleted tag can be created again.
        """
        values = (delivery.project_id, tag.key, tag.is_create, delivery.project_id, tag.key)

        def work(db: Any) -> str | None:
            row = db.execute_sql(_TWIN, values).fetchone()
            return None if row is None else str(row[0])

        return self._db.write(work)

    def due(
        self, *, now_ms: int, is_retry: bool, besides: Sequence[str], besides_users: Sequence[str]
    ) -> Delivery | None:
        """Return the new delivery, or retry, that has waited longest.

        Except those of the given projects, and of projects that the given users have created.
        """
        of_users = f"SELECT project_id FROM project WHERE created_by IN ({marks(besides_users)})"  # noqa: S608  # as above
        sql = (
            f"{_SELECT} WHERE due_at_ms <= ? AND project_id NOT IN ({marks(besides)}) "  # as above
            f"AND project_id NOT IN ({of_users}) "
            f"AND tried_at_ms IS {'NOT ' if is_retry else ''}NULL "
            "ORDER BY due_at_ms, delivery_id LIMIT 1"
        )
        with self._db.read() as db:
            row = db.execute_sql(sql, (now_ms, *besides, *besides_users)).fetchone()
        return None if row is None else _delivery(row)

    def get(self, project_id: str, delivery_id: str) -> Delivery:
        """Return a delivery of a project; raises ``NotFound``."""
        with self._db.read() as db:
            sql = f"{_SELECT} WHERE delivery_id = ? AND project_id = ?"
            row = db.execute_sql(sql, (delivery_id, project_id)).fetchone()
        if row is None:
            raise NotFound(f"there is no delivery {delivery_id} of the project")
        return _delivery(row)

    def page(
        self,
        project_id: str,
        *,
        status: DeliveryStatus | None,
        limit: int,
        after: tuple[int, str] | None,
    ) -> tuple[list[Delivery], int]:
        """Return a page of a project's deliveries, newest first, and how many there are in all.

        ``after`` is (created_at_ms, delivery_id) of the last one of the page before.
        """
        where = ["project_id = ?"]
        values: list[object] = [project_id]
        if status is not None:
            where.append("status = ?")
            values.append(status)
        query = newest_first(_SELECT, where, values, "delivery_id", limit=limit, after=after)
        with self._db.read() as db:
            (total,) = db.execute_sql(matching("SELECT COUNT(*) FROM delivery", where), values).fetchone()
            return [_delivery(row) for row in db.execute_sql(*query)], total

    def expire_waiting(self, reason: str) -> None:
        """Ignore all waiting deliveries."""
        self._db.write(lambda db: db.execute_sql(_EXPIRE, (reason,)))

    def remove_old(self, *, before_ms: int) -> list[str]:
        """Remove older deliveries that are not waiting; returns the ids."""

        def work(db: Any) -> list[str]:
            return [delivery_id for (delivery_id,) in db.execute_sql(_REMOVE_OLD, (before_ms,)).fetchall()]

        return self._db.write(work)

    def ids(self, project_id: str | None = None) -> set[str]:
        """Return the ids of all deliveries, or of those of a project."""
        where = [] if project_id is None else ["project_id = ?"]
        values = [] if project_id is None else [project_id]
        with self._db.read() as db:
            rows = db.execute_sql(matching("SELECT delivery_id FROM delivery", where), values)
            return {delivery_id for (delivery_id,) in rows}


def _column(delivery: Delivery, name: str) -> object:
    value = getattr(delivery, name)
    return json.dumps(value) if name in _JSON else value


def _delivery(row: Sequence[Any]) -> Delivery:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Delivery(
        **values
        | {
            "headers": json.loads(values["headers"]),
            "run_ids": tuple(json.loads(values["run_ids"])),
            "status": DeliveryStatus(values["status"]),
            "is_repeated": bool(values["is_repeated"]),
        }
    )
