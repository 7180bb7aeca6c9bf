"""The audit: written beside the deed, read by admins, never changed."""

from typing import Any

from reactorcide.domain.audit import Action, Actor, AuditFilter, Deed
from reactorcide.store.database import Database
from reactorcide.store.models import AuditRow

_INSERT = (
    "INSERT INTO audit (at_ms, user_id, token_id, address, request_id, action, subject)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)


def record(db: Any, deed: Deed) -> None:
    """Write down a deed, in the transaction that does it."""
    by = deed.by
    db.execute_sql(
        _INSERT,
        (deed.at_ms, by.user_id, by.token_id, by.address, by.request_id, deed.action, deed.subject),
    )


class AuditStore:
    """What was done, for reading. Thread-safe; raises ``StoreError`` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self, wanted: AuditFilter, *, limit: int, before: int | None = None
    ) -> tuple[list[tuple[int, Deed]], int]:
        """Return a page of deeds with their numbers, the latest first, and how many match in all.

        ``before`` is the number of the last one of the page before.
        """
        where = AuditRow.audit_id > 0
        if wanted.user_id is not None:
            where &= AuditRow.user_id == wanted.user_id
        if wanted.action is not None:
            where &= AuditRow.action == wanted.action
        if wanted.subject is not None:
            where &= AuditRow.subject == wanted.subject
        page = where if before is None else where & (AuditRow.audit_id < before)
        with self._database.read() as db:
            total = AuditRow.select().where(where).count(db)
            rows = AuditRow.select().where(page).order_by(AuditRow.audit_id.desc()).limit(limit)
            return [(row["audit_id"], _deed(row)) for row in rows.dicts().execute(db)], int(total)


def _deed(row: dict[str, Any]) -> Deed:
    return Deed(
        at_ms=row["at_ms"],
        by=Actor(**{name: row[name] for name in ("user_id", "token_id", "address", "request_id")}),
        action=Action(row["action"]),
        subject=row["subject"],
    )
