"""The audit: written in the transaction that does what it records, read by admins, never changed."""

from typing import Any

from reactorcide.domain.audit import Action, Actor, AuditEntry, AuditFilter
from reactorcide.store.connection import Connection
from reactorcide.store.models.accounts import AuditRow

_INSERT = (
    "INSERT INTO audit (at_ms, user_id, token_id, address, request_id, action, subject)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class Audit:
    """Audit entries. Thread-safe."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(self, entry: AuditEntry) -> None:
        """Add an entry, in the transaction that does what it records."""
        by = entry.by
        values = (
            entry.at_ms,
            by.user_id,
            by.token_id,
            by.address,
            by.request_id,
            entry.action,
            entry.subject,
        )
        self._db.write(lambda db: db.execute_sql(_INSERT, values))

    def page(
        self, criteria: AuditFilter, *, limit: int, before: int | None = None
    ) -> tuple[list[tuple[int, AuditEntry]], int]:
        """Return a page of entries with their numbers, newest first, and the number of matching entries.

        ``before`` is the number of the last one of the page before.
        """
        where = AuditRow.audit_id > 0
        if criteria.user_id is not None:
            where &= AuditRow.user_id == criteria.user_id
        if criteria.action is not None:
            where &= AuditRow.action == criteria.action
        if criteria.subject is not None:
            where &= AuditRow.subject == criteria.subject
        page = where if before is None else where & (AuditRow.audit_id < before)
        with self._db.read() as db:
            total = AuditRow.select().where(where).count(db)
            rows = AuditRow.select().where(page).order_by(AuditRow.audit_id.desc()).limit(limit)
            return [(row["audit_id"], _entry(row)) for row in rows.dicts().execute(db)], int(total)


def _entry(row: dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        at_ms=row["at_ms"],
        by=Actor(**{name: row[name] for name in ("user_id", "token_id", "address", "request_id")}),
        action=Action(row["action"]),
        subject=row["subject"],
    )
