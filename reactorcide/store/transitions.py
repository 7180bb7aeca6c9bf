"""Writing a job's status: guarded, with its event and its count in the same transaction. All writes use
this."""

from collections.abc import Collection, Mapping
from typing import Any, cast

from reactorcide.domain.jobs import JobStatus
from reactorcide.store import counts, events
from reactorcide.store.rows import COLUMN_LIST, COLUMNS, as_dict

_INSERT = f"INSERT INTO job ({COLUMN_LIST}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  # names of ours only


def insert(db: Any, row: dict[str, Any]) -> None:
    """Insert a job with its first event, and count it; ``row`` has every column."""
    db.execute_sql(_INSERT, [row[name] for name in COLUMNS])
    events.insert(db, row, None)
    counts.added(db, row)


def move(
    db: Any,
    job_id: str,
    target: JobStatus,
    now_ms: int,
    only_from: Collection[JobStatus],
    changes: Mapping[str, object],
    *,
    attempt: int | None = None,
    task_id: str | None = None,
) -> dict[str, Any] | None:
    """Move a job to ``target`` and return its row as it is then.

    ``changes`` are further columns. If the job's status is not in ``only_from``, or its ``attempt`` or
    ``task_id`` differs, nothing is written and ``None`` returned. Repeating the same status with the same
    error writes no event.
    """
    # The same status is an event only with another reason, so compare with the previous row.
    before = _error(db, job_id) if target in only_from else None
    assignments = "".join(f", {name} = ?" for name in changes)
    guard = ", ".join("?" * len(only_from))
    sql = (
        f"UPDATE job SET previous_status = status, status = ?, updated_at_ms = ?{assignments}"  # noqa: S608  # names of ours only
        f" WHERE job_id = ? AND status IN ({guard})"
    )
    values: tuple[object, ...] = (target, now_ms, *changes.values(), job_id, *sorted(only_from))
    if attempt is not None:
        sql, values = f"{sql} AND attempt = ?", (*values, attempt)
    if task_id is not None:
        sql, values = f"{sql} AND corndogs_task_id = ?", (*values, task_id)
    moved = db.execute_sql(f"{sql} RETURNING {COLUMN_LIST}", values).fetchone()
    if moved is None:
        return None
    row = as_dict(moved)
    status_from = JobStatus(row["previous_status"])
    if status_from is not target or row["error"] != before:
        events.insert(db, row, status_from)
    if status_from is not target and not row["deleted"]:
        counts.moved(db, row | {"status": status_from}, row)
    return row


def _error(db: Any, job_id: str) -> str | None:
    row = db.execute_sql("SELECT error FROM job WHERE job_id = ?", (job_id,)).fetchone()
    return None if row is None else cast(str | None, row[0])
