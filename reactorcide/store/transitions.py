"""The one way to write a job's status: guarded, with its event in the same transaction."""

from collections.abc import Collection, Mapping
from typing import Any

from reactorcide.domain.jobs import JobStatus
from reactorcide.store import events
from reactorcide.store.rows import COLUMN_LIST, COLUMNS, as_dict

_INSERT = f"INSERT INTO job ({COLUMN_LIST}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  # names of ours only
_SELECT = "SELECT status, error FROM job WHERE job_id = ?"


def insert(db: Any, row: dict[str, Any]) -> None:
    """Insert a job with its first event; ``row`` has every column."""
    db.execute_sql(_INSERT, [row[name] for name in COLUMNS])
    events.insert(db, row, None)


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

    ``changes`` are further columns. Where the job is in no status of ``only_from``, or is not at that
    ``attempt`` or under that ``task_id``, nothing is written and ``None`` returned. The same status with the
    same error again is no event.
    """
    before = db.execute_sql(_SELECT, (job_id,)).fetchone()
    if before is None or before[0] not in only_from:
        return None
    status, error = JobStatus(before[0]), before[1]
    assignments = "".join(f", {name} = ?" for name in changes)
    # Guarded by the status that was read, so that the event is true whoever else writes.
    sql = (
        f"UPDATE job SET status = ?, updated_at_ms = ?{assignments}"  # noqa: S608  # names of ours only
        " WHERE job_id = ? AND status = ?"
    )
    values: tuple[object, ...] = (target, now_ms, *changes.values(), job_id, status)
    if attempt is not None:
        sql, values = f"{sql} AND attempt = ?", (*values, attempt)
    if task_id is not None:
        sql, values = f"{sql} AND corndogs_task_id = ?", (*values, task_id)
    moved = db.execute_sql(f"{sql} RETURNING {COLUMN_LIST}", values).fetchone()
    if moved is None:
        return None
    row = as_dict(moved)
    if status is not target or row["error"] != error:
        events.insert(db, row, status)
    return row
