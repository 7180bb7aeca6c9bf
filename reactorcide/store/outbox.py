"""The outbox: commit statuses that are owed, and the lanes in which things are sent, each for itself."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from reactorcide.domain.forges import StatusState
from reactorcide.domain.statuses import OwedStatus, StatusRecord
from reactorcide.lib.ids import new_id
from reactorcide.lib.records import record
from reactorcide.store.connection import Connection
from reactorcide.store.owed import IS_DUE, OwedTable, due
from reactorcide.store.pages import marks, newest_first
from reactorcide.store.sealed import SealedFields

STATUSES = "status"
"""The lanes of commit statuses, one for each project."""
WEBHOOKS = "webhook"
"""The lanes of messages, one for each webhook."""
STATUS_TABLE = OwedTable("commit_status", "status_id", "project_id")
MESSAGE_TABLE = OwedTable("webhook_message", "message_id", "webhook_id")
_TABLES = {STATUSES: STATUS_TABLE, WEBHOOKS: MESSAGE_TABLE}
"""What is sent in the lanes of each kind."""

_COLUMNS = tuple(item.name for item in fields(StatusRecord))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM commit_status"  # noqa: S608  # names of ours only
_OWE = (
    "INSERT INTO commit_status (project_id, sha, context, state, description, run_id, turn, "
    "status_id, created_at_ms, owed_since_ms, next_at_ms, version, failures) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0) "
    "ON CONFLICT (project_id, sha, context) DO UPDATE SET state = excluded.state, "
    "description = excluded.description, run_id = excluded.run_id, turn = excluded.turn, "
    "owed_since_ms = excluded.owed_since_ms, next_at_ms = excluded.next_at_ms, "
    "version = commit_status.version + 1, failures = 0, problem = NULL "
    "WHERE excluded.turn >= commit_status.turn AND NOT (excluded.state = commit_status.state "
    "AND excluded.description = commit_status.description AND excluded.run_id = commit_status.run_id) "
    "RETURNING status_id"
)
MAY_ARRIVE_FOR_MS = 60_000
"""How long after the last answer was due a request may still arrive."""
_SEND_ONCE_MORE = (
    "UPDATE commit_status SET next_at_ms = unanswered_at_ms + ?, owed_since_ms = ? "
    "WHERE status_id = ? AND next_at_ms IS NULL AND unanswered_at_ms > ? AND unanswered_at_ms <= ?"
)
_TAKES_STATUSES = (
    "SELECT 1 FROM project JOIN project_credential USING (project_id) "
    "WHERE project_id = ? AND forge <> 'none' AND kind = 'token'"
)
_REMOVE_OLD = (
    "DELETE FROM commit_status WHERE next_at_ms IS NULL "
    "AND (created_at_ms < ? OR project_id NOT IN (SELECT project_id FROM project))"
)

_WAKE = (
    "INSERT INTO outbox_lane (kind, owner_id, next_at_ms, is_paused, failures, resumed) "
    "VALUES (?, ?, ?, FALSE, 0, 0) "
    "ON CONFLICT (kind, owner_id) DO UPDATE SET next_at_ms = CASE WHEN outbox_lane.is_paused "
    "THEN outbox_lane.next_at_ms ELSE excluded.next_at_ms END"
)
_PAUSE = (
    "UPDATE outbox_lane SET is_paused = TRUE, next_at_ms = ?, failures = ?, problem = ? "
    "WHERE kind = ? AND owner_id = ? AND resumed = ?"
)
_WORKS = (
    "UPDATE outbox_lane SET is_paused = FALSE, failures = 0, problem = NULL WHERE kind = ? AND owner_id = ?"
)
_REST = "UPDATE outbox_lane SET is_paused = FALSE, next_at_ms = ({owed}) WHERE kind = ? AND owner_id = ?"
_CREATOR = (
    "COALESCE((SELECT user_id FROM webhook WHERE webhook_id = owner_id), "
    "(SELECT created_by FROM project WHERE project_id = owner_id), '')"
)
_REMOVE_EMPTY_LANES = (
    "DELETE FROM outbox_lane WHERE next_at_ms IS NULL AND (problem IS NULL OR sealed IS NOT NULL)"
)


@record
class Lane:
    """What is sent one after the other: the statuses of a project, for example."""

    kind: str
    owner_id: str
    failures: int = 0
    """How often in a row nothing could be sent."""
    problem: str | None = None
    """Why, or why the last thing that was tried could not be sent."""
    resumed: int = 0
    """Counts how often it was told to go on at once."""
    user_id: str = ""
    """Who has created the webhook or the project; empty if that was removed."""


class Outbox:
    """What is to be sent. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    # --- commit statuses -----------------------------------------------------------------------

    def takes_statuses(self, project_id: str) -> bool:
        """Return whether a project has a forge, and a token to tell it commit statuses."""
        with self._db.read() as db:
            return db.execute_sql(_TAKES_STATUSES, (project_id,)).fetchone() is not None

    def owe_status(self, status: OwedStatus, *, now_ms: int) -> bool:
        """Have a status sent in place of the one of that commit and context, and return whether it differs.

        That of an older run changes nothing.
        """

        def work(db: Any) -> bool:
            values = [getattr(status, item.name) for item in fields(OwedStatus)]
            row = db.execute_sql(_OWE, [*values, new_id(), now_ms, now_ms, now_ms]).fetchone()
            if row is None:
                return False
            wake(db, STATUSES, status.project_id, now_ms)
            return True

        return self._db.write(work)

    def next_status(self, project_id: str, *, now_ms: int) -> StatusRecord | None:
        """Return the status of a project that has been due for longest; ``None`` if none is."""
        sql = f"{_SELECT} WHERE project_id = ? AND {IS_DUE} ORDER BY next_at_ms LIMIT 1"
        with self._db.read() as db:
            row = db.execute_sql(sql, (project_id, *due(now_ms))).fetchone()
        return None if row is None else _record(row)

    def status_sent(self, status: StatusRecord, *, now_ms: int) -> None:
        """Record that a status was sent; one that was changed meanwhile is still to be sent.

        After a request that was not answered it is sent once more when that can arrive no more: it may have
        had another state, and the last one to arrive counts.
        """
        sent = {"sent_state": status.state, "sent_description": status.description, "sent_at_ms": now_ms}

        def work(db: Any) -> None:
            STATUS_TABLE.sent(db, status.status_id, status.version, **sent)
            values = (MAY_ARRIVE_FOR_MS, now_ms, status.status_id, now_ms - MAY_ARRIVE_FOR_MS, now_ms)
            db.execute_sql(_SEND_ONCE_MORE, values)

        self._db.write(work)

    def status_unanswered(self, status: StatusRecord, *, now_ms: int) -> None:
        """Record that a request with a status was not answered, so that it may arrive late."""
        sql = "UPDATE commit_status SET unanswered_at_ms = ? WHERE status_id = ?"
        self._db.write(lambda db: db.execute_sql(sql, (now_ms, status.status_id)))

    def status_failed(self, status: StatusRecord, problem: str, *, next_at_ms: int) -> None:
        """Record that a status could not be sent, and when it is tried again."""
        key, version = status.status_id, status.version
        self._db.write(lambda db: STATUS_TABLE.failed(db, key, version, problem, next_at_ms=next_at_ms))

    def give_up_statuses(self, project_id: str | None, problem: str, *, owed_up_to_ms: int) -> None:
        """Send no more what has been owed since then or longer, of a project or of all."""
        self._db.write(lambda db: STATUS_TABLE.give_up(db, project_id, problem, owed_up_to_ms=owed_up_to_ms))

    def statuses(
        self, project_id: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[StatusRecord]:
        """Return a page of the statuses of a project, newest first.

        ``after`` is (created_at_ms, status_id) of the last one of the page before.
        """
        query = newest_first(_SELECT, ["project_id = ?"], [project_id], "status_id", limit=limit, after=after)
        with self._db.read() as db:
            return [_record(row) for row in db.execute_sql(*query)]

    def close_project(self, project_id: str, destination: str, description: str, *, now_ms: int) -> None:
        """Have what is owed for a project that is removed sent as ``error``, by ``destination``.

        What is only to be sent once more stays as it is.

        That is a text with all that sending takes, which is stored encrypted.
        """

        def work(db: Any) -> None:
            sql = (
                "UPDATE commit_status SET state = ?, description = ?, version = version + 1, next_at_ms = ? "
                "WHERE project_id = ? AND next_at_ms IS NOT NULL AND (COALESCE(sent_state, '') <> state "
                "OR COALESCE(sent_description, '') <> description)"
            )
            db.execute_sql(sql, (StatusState.ERROR, description, now_ms, project_id))
            sealed = self._sealed.seal_text(destination, owner_of(STATUSES, project_id))
            sql = "UPDATE outbox_lane SET sealed = ? WHERE kind = ? AND owner_id = ?"
            db.execute_sql(sql, (sealed, STATUSES, project_id))

        self._db.write(work)

    # --- lanes ---------------------------------------------------------------------------------

    def due_lane(
        self,
        *,
        now_ms: int,
        has_failed: bool,
        besides: Sequence[str] = (),
        besides_users: Sequence[str] = (),
        owner_id: str | None = None,
    ) -> Lane | None:
        """Return the lane that has waited longest, except those of the given owners and users.

        ``has_failed`` selects the lanes whose last attempt failed, or the others; ``owner_id`` the one lane.
        """
        only, of_owner = ("", ()) if owner_id is None else ("AND owner_id = ? ", (owner_id,))
        sql = (
            "SELECT kind, owner_id, failures, problem, resumed, user_id FROM "  # noqa: S608  # our own text
            f"(SELECT outbox_lane.*, {_CREATOR} AS user_id FROM outbox_lane) AS lane "
            f"WHERE {IS_DUE} AND failures {'>' if has_failed else '='} 0 "
            f"AND owner_id NOT IN ({marks(besides)}) AND user_id NOT IN ({marks(besides_users)}) "
            f"{only}ORDER BY next_at_ms LIMIT 1"
        )
        with self._db.read() as db:
            row = db.execute_sql(sql, (*due(now_ms), *besides, *besides_users, *of_owner)).fetchone()
        return None if row is None else Lane(*row)

    def pause(self, lane: Lane, *, until_ms: int) -> None:
        """Send nothing in a lane until then, and record what is wrong with it.

        One that was resumed since ``lane`` was read goes on: what failed may have been what was changed.
        """
        values = (until_ms, lane.failures, lane.problem, lane.kind, lane.owner_id, lane.resumed)
        self._db.write(lambda db: db.execute_sql(_PAUSE, values))

    def resume(self, kind: str, owner_id: str, *, now_ms: int) -> None:
        """Let a lane go on at once, whatever has failed before, with all that it has to send."""

        def work(db: Any) -> None:
            _TABLES[kind].send_again(db, owner_id, now_ms=now_ms)
            sql = (
                "UPDATE outbox_lane SET is_paused = FALSE, failures = 0, problem = NULL, next_at_ms = ?, "
                "resumed = resumed + 1 "
                "WHERE kind = ? AND owner_id = ?"
            )
            db.execute_sql(sql, (now_ms, kind, owner_id))

        self._db.write(work)

    def works(self, lane: Lane) -> None:
        """Record that something was sent in a lane in which it had failed."""
        self._db.write(lambda db: db.execute_sql(_WORKS, (lane.kind, lane.owner_id)))

    def save_problem(self, lane: Lane) -> None:
        """Record why something in a lane could not be sent, while the rest is tried."""
        sql = "UPDATE outbox_lane SET problem = ? WHERE kind = ? AND owner_id = ?"
        self._db.write(lambda db: db.execute_sql(sql, (lane.problem, lane.kind, lane.owner_id)))

    def rest(self, lane: Lane) -> None:
        """Let a lane wait for the next thing that it has to send, if there is one."""

        def work(db: Any) -> None:
            db.execute_sql(
                _REST.format(owed=_TABLES[lane.kind].next_at()), (lane.owner_id, lane.kind, lane.owner_id)
            )
            db.execute_sql(_REMOVE_EMPTY_LANES)

        self._db.write(work)

    def queue_up(self, lane: Lane, *, now_ms: int) -> None:
        """Let other lanes go first."""
        sql = "UPDATE outbox_lane SET next_at_ms = ? WHERE kind = ? AND owner_id = ?"
        self._db.write(lambda db: db.execute_sql(sql, (now_ms, lane.kind, lane.owner_id)))

    def problem(self, kind: str, owner_id: str) -> str | None:
        """Return why nothing can be sent in a lane, or could not be last; ``None`` if all is well."""
        sql = "SELECT problem FROM outbox_lane WHERE kind = ? AND owner_id = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (kind, owner_id)).fetchone()
        return None if row is None else row[0]

    def destination(self, lane: Lane) -> str | None:
        """Return the text of ``close_project`` for the lane of a project that was removed."""
        sql = "SELECT sealed FROM outbox_lane WHERE kind = ? AND owner_id = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (lane.kind, lane.owner_id)).fetchone()
        if row is None or row[0] is None:
            return None
        return self._sealed.open_text(bytes(row[0]), owner_of(lane.kind, lane.owner_id))

    # --- all -----------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return how many things are owed, by kind."""
        with self._db.read() as db:
            return {kind: table.count(db) for kind, table in _TABLES.items()}

    def remove_old(self, *, before_ms: int) -> None:
        """Remove what was first owed before then and is owed no more, and what removed projects have left."""

        def work(db: Any) -> None:
            db.execute_sql(_REMOVE_OLD, (before_ms,))
            sql = "DELETE FROM webhook_message WHERE next_at_ms IS NULL AND created_at_ms < ?"
            db.execute_sql(sql, (before_ms,))

        self._db.write(work)


def owner_of(kind: str, owner_id: str) -> str:
    """Return whom the sealed destination of a lane belongs to."""
    return f"outbox {kind} {owner_id}"


def wake(db: Any, kind: str, owner_id: str, now_ms: int) -> None:
    """Have a lane looked at now, unless it is paused, in the transaction that owes something."""
    db.execute_sql(_WAKE, (kind, owner_id, now_ms))


def _record(row: Sequence[Any]) -> StatusRecord:
    values = dict(zip(_COLUMNS, row, strict=True))
    sent = values["sent_state"]
    values |= {
        "state": StatusState(values["state"]),
        "sent_state": None if sent is None else StatusState(sent),
    }
    return StatusRecord(**values)
