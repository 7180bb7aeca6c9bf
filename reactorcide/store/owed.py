"""Tables of what is owed to other hosts: what is due, and what became of it."""

from typing import Any

from reactorcide.lib.records import record

MAX_WAIT_MS = 24 * 3_600_000
"""Nothing waits longer than this for its next attempt. What seems to was written by a wrong clock."""
IS_DUE = "(next_at_ms <= ? OR next_at_ms > ?)"


@record
class OwedTable:
    """A table of things that are sent one after the other for each owner.

    Its rows have ``owed_since_ms`` and ``next_at_ms`` (null where nothing is owed), ``version``, ``failures``
    and ``problem``. A change of a row gives it another version, so that nothing is recorded of what it was
    before. All calls are part of a transaction.
    """

    name: str
    key: str
    """The column with a row's id."""
    owner: str
    """The column with the id of the owner."""

    def sent(self, db: Any, key: str, version: int, **columns: object) -> None:
        """Record that a row was sent, with what else that says; of another version it is still owed."""
        sql = (
            f"UPDATE {self.name} SET {''.join(f'{name} = ?, ' for name in columns)}"  # noqa: S608  # names of ours only
            "failures = 0, problem = NULL, "
            "owed_since_ms = CASE version WHEN ? THEN NULL ELSE owed_since_ms END, "
            f"next_at_ms = CASE version WHEN ? THEN NULL ELSE next_at_ms END WHERE {self.key} = ?"
        )
        db.execute_sql(sql, (*columns.values(), version, version, key))

    def failed(self, db: Any, key: str, version: int, problem: str, *, next_at_ms: int) -> None:
        """Record that a row could not be sent, and when it is tried again."""
        sql = (
            f"UPDATE {self.name} SET failures = failures + 1, problem = ?, next_at_ms = ? "  # noqa: S608  # as above
            f"WHERE {self.key} = ? AND version = ?"
        )
        db.execute_sql(sql, (problem, next_at_ms, key, version))

    def give_up(self, db: Any, owner_id: str | None, problem: str, *, owed_up_to_ms: int) -> None:
        """Send no more what has been owed since then or longer, of an owner or of all."""
        sql = (
            f"UPDATE {self.name} SET owed_since_ms = NULL, next_at_ms = NULL, problem = ? "  # noqa: S608  # as above
            "WHERE next_at_ms IS NOT NULL AND owed_since_ms <= ?"
        )
        values: list[object] = [problem, owed_up_to_ms]
        if owner_id is not None:
            sql, values = f"{sql} AND {self.owner} = ?", [*values, owner_id]
        db.execute_sql(sql, values)

    def send_again(self, db: Any, owner_id: str, *, now_ms: int) -> None:
        """Have all that is owed of an owner sent now, also what is being sent just now."""
        sql = (
            f"UPDATE {self.name} SET version = version + 1, next_at_ms = ? "  # noqa: S608  # as above
            f"WHERE {self.owner} = ? AND next_at_ms IS NOT NULL"
        )
        db.execute_sql(sql, (now_ms, owner_id))

    def next_at(self) -> str:
        """Return the query for when the next row of an owner is to be sent."""
        return f"SELECT MIN(next_at_ms) FROM {self.name} WHERE {self.owner} = ? AND next_at_ms IS NOT NULL"  # noqa: S608  # as above

    def count(self, db: Any) -> int:
        """Return how many rows are owed."""
        sql = f"SELECT COUNT(*) FROM {self.name} WHERE next_at_ms IS NOT NULL"  # noqa: S608  # as above
        (count,) = db.execute_sql(sql).fetchone()
        return int(count)


def due(now_ms: int) -> tuple[int, int]:
    """Return the values of ``IS_DUE``."""
    return now_ms, now_ms + MAX_WAIT_MS
