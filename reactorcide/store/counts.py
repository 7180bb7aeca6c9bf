"""Counts of jobs, updated in the transactions that change jobs, so that no list and no scrape has to count.

Deleted jobs are not counted. A property test compares the counts with the jobs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_KEY = ("user_id", "queue_name", "status", "source_type", "pinned")
_COLUMNS = (*_KEY, "name")
RETURNING = f"RETURNING {', '.join(_COLUMNS)}"
"""RETURNING clause of statements that delete or purge a job, for ``deleted`` or ``purged``."""

_KEY_LIST = ", ".join(_KEY)
_PARAMETERS = ", ".join("?" * len(_KEY))
_ADD = (
    f"INSERT INTO job_count ({_KEY_LIST}, jobs) VALUES ({_PARAMETERS}, ?) "  # noqa: S608  # names of ours only
    f"ON CONFLICT ({_KEY_LIST}) DO UPDATE SET jobs = job_count.jobs + excluded.jobs"
)
_MOVE = _ADD.replace(f"({_PARAMETERS}, ?)", f"({_PARAMETERS}, ?), ({_PARAMETERS}, ?)")
_ADD_NAME = (
    "INSERT INTO job_name_count (name, user_id, jobs) VALUES (?, ?, ?) "
    "ON CONFLICT (name, user_id) DO UPDATE SET jobs = job_name_count.jobs + excluded.jobs"
)
_REMOVE_EMPTY = "DELETE FROM job_count WHERE user_id = ? AND queue_name = ? AND jobs = 0"
_REMOVE_EMPTY_NAME = "DELETE FROM job_name_count WHERE name = ? AND user_id = ? AND jobs = 0"


def added(db: Any, job: Mapping[str, Any]) -> None:
    """Count a new job."""
    _add(db, job, 1)


def deleted(db: Any, row: Sequence[Any]) -> None:
    """Subtract a job that was just deleted."""
    _add(db, dict(zip(_COLUMNS, row, strict=True)), -1)


def _add(db: Any, job: Mapping[str, Any], jobs: int) -> None:
    db.execute_sql(_ADD, (*_key(job), jobs))
    db.execute_sql(_ADD_NAME, (job["name"], job["user_id"], jobs))


def moved(db: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Move a job's count from its old values to its new ones."""
    db.execute_sql(_MOVE, (*_key(before), -1, *_key(after), 1))


def purged(db: Any, row: Sequence[Any]) -> None:
    """Remove the zero counts of a purged job, so that unique job names do not fill the table for ever."""
    job = dict(zip(_COLUMNS, row, strict=True))
    db.execute_sql(_REMOVE_EMPTY, (job["user_id"], job["queue_name"]))
    db.execute_sql(_REMOVE_EMPTY_NAME, (job["name"], job["user_id"]))


def _key(job: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(job[name] for name in _KEY)
