"""Schedules of projects, which of them are due, and the results of their due times."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from peewee import IntegrityError

from reactorcide.domain.errors import Conflict, NotFound
from reactorcide.domain.schedules import MAX_OCCURRENCES, Occurrence, Schedule, WhenRunning
from reactorcide.store.connection import Connection
from reactorcide.store.pages import marks

_COLUMNS = tuple(item.name for item in fields(Schedule))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM schedule"  # noqa: S608  # names of ours only
_INSERT = f"INSERT INTO schedule ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  # as above
_UPDATE = f"UPDATE schedule SET {', '.join(f'{name} = ?' for name in _COLUMNS[2:])} WHERE schedule_id = ?"  # noqa: S608  # as above
_DUE = f"{_SELECT} WHERE enabled AND (next_due_at_ms <= ? OR next_due_at_ms IS NULL OR reckoned_at_ms > ?)"
_RECKON = (
    "UPDATE schedule SET next_due_at_ms = ?, reckoned_at_ms = ? "
    "WHERE schedule_id = ? AND enabled AND COALESCE(next_due_at_ms, -1) = COALESCE(?, -1) RETURNING 1"
)
_ADD_OCCURRENCE = (
    "INSERT INTO schedule_occurrence (schedule_id, due_at_ms, at_ms, outcome, run_ids) "
    "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1"
)
_FORGET_OLD = (
    "DELETE FROM schedule_occurrence WHERE schedule_id = ? AND due_at_ms < (SELECT due_at_ms "
    "FROM schedule_occurrence WHERE schedule_id = ? ORDER BY due_at_ms DESC LIMIT 1 OFFSET ?)"
)
_OCCURRENCES = (
    "SELECT schedule_id, due_at_ms, at_ms, outcome, run_ids FROM schedule_occurrence "
    "WHERE schedule_id = ? ORDER BY due_at_ms DESC"
)


class Schedules:
    """Schedules. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(self, schedule: Schedule) -> None:
        """Insert a schedule; raises ``Conflict`` if the project has one of that name."""
        self._write_named(lambda db: db.execute_sql(_INSERT, _row(schedule)), schedule.name)

    def save(self, schedule: Schedule) -> None:
        """Write all fields of a schedule; raises ``Conflict`` if the name is taken."""
        values = (*_row(schedule)[2:], schedule.schedule_id)
        self._write_named(lambda db: db.execute_sql(_UPDATE, values), schedule.name)

    def _write_named(self, work: Any, name: str) -> None:
        try:
            self._db.write(work)
        except IntegrityError as exc:
            raise Conflict(f"the project has a schedule {name!r} already; choose another name") from exc

    def get(self, project_id: str, schedule_id: str) -> Schedule:
        """Return a schedule of a project; raises ``NotFound``."""
        sql = f"{_SELECT} WHERE project_id = ? AND schedule_id = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id, schedule_id)).fetchone()
        if row is None:
            raise NotFound(f"there is no schedule {schedule_id} in the project")
        return _schedule(row)

    def of(self, project_id: str) -> list[Schedule]:
        """Return the schedules of a project by name."""
        with self._db.read() as db:
            rows = db.execute_sql(f"{_SELECT} WHERE project_id = ? ORDER BY name", (project_id,)).fetchall()
        return [_schedule(row) for row in rows]

    def remove(self, schedule_id: str) -> None:
        """Remove a schedule; safe to repeat. Its runs stay."""

        def work(db: Any) -> None:
            for table in ("schedule", "schedule_occurrence"):
                db.execute_sql(f"DELETE FROM {table} WHERE schedule_id = ?", (schedule_id,))  # noqa: S608  # as above

        self._db.write(work)

    def due(self, *, now_ms: int) -> list[Schedule]:
        """Return the schedules that are due, or whose next due time has to be computed again, oldest first.

        It has to be computed again if the clock was set back since.
        """
        with self._db.read() as db:
            rows = db.execute_sql(f"{_DUE} ORDER BY next_due_at_ms", (now_ms, now_ms)).fetchall()
        return [_schedule(row) for row in rows]

    def reckon(self, schedule: Schedule, next_due_at_ms: int | None, *, now_ms: int) -> bool:
        """Write the next due time; returns whether it was unchanged since ``schedule`` was read."""
        values = (next_due_at_ms, now_ms, schedule.schedule_id, schedule.next_due_at_ms)
        return self._db.write(lambda db: db.execute_sql(_RECKON, values).fetchone() is not None)

    def reckon_all(self) -> None:
        """Let all schedules compute their next due time from now."""
        self._db.write(lambda db: db.execute_sql("UPDATE schedule SET next_due_at_ms = NULL"))

    def decide(self, occurrence: Occurrence) -> bool:
        """Record the result of a due time; returns whether no result was recorded before."""
        schedule_id = occurrence.schedule_id
        values = (
            schedule_id,
            occurrence.due_at_ms,
            occurrence.at_ms,
            occurrence.outcome,
            json.dumps(list(occurrence.run_ids)),
        )

        def work(db: Any) -> bool:
            if db.execute_sql(_ADD_OCCURRENCE, values).fetchone() is None:
                return False
            db.execute_sql(_FORGET_OLD, (schedule_id, schedule_id, MAX_OCCURRENCES - 1))
            return True

        return self._db.write(work)

    def occurrences(self, schedule_id: str) -> list[Occurrence]:
        """Return the results of the last due times of a schedule, newest first."""
        with self._db.read() as db:
            rows = db.execute_sql(_OCCURRENCES, (schedule_id,)).fetchall()
        return [Occurrence(**_occurrence(row)) for row in rows]

    def open_run(self, schedule_id: str) -> int | None:
        """Return the number of an unfinished run of the schedule; ``None`` if there is none."""
        run_ids = [run_id for item in self.occurrences(schedule_id) for run_id in item.run_ids]
        sql = f"SELECT MIN(number) FROM run WHERE run_id IN ({marks(run_ids)}) AND completed_at_ms IS NULL"  # noqa: S608  # as above
        with self._db.read() as db:
            (number,) = db.execute_sql(sql, run_ids).fetchone()
        return None if number is None else int(number)


def remove_of_project(db: Any, project_id: str) -> None:
    """Remove the schedules of a project, in the transaction that removes the project."""
    of_project = "SELECT schedule_id FROM schedule WHERE project_id = ?"
    db.execute_sql(f"DELETE FROM schedule_occurrence WHERE schedule_id IN ({of_project})", (project_id,))  # noqa: S608  # as above
    db.execute_sql("DELETE FROM schedule WHERE project_id = ?", (project_id,))


def _row(schedule: Schedule) -> list[Any]:
    values = {name: getattr(schedule, name) for name in _COLUMNS}
    return list((values | {"variables": json.dumps(dict(schedule.variables))}).values())


def _schedule(row: Sequence[Any]) -> Schedule:
    values = dict(zip(_COLUMNS, row, strict=True))
    converted = {
        "variables": json.loads(values["variables"]),
        "enabled": bool(values["enabled"]),
        "when_running": WhenRunning(values["when_running"]),
    }
    return Schedule(**values | converted)


def _occurrence(row: Sequence[Any]) -> dict[str, Any]:
    schedule_id, due_at_ms, at_ms, outcome, run_ids = row
    return {
        "schedule_id": schedule_id,
        "due_at_ms": due_at_ms,
        "at_ms": at_ms,
        "outcome": outcome,
        "run_ids": tuple(json.loads(run_ids)),
    }
