"""Webhooks and their messages, and which workflows fail at the moment."""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from reactorcide.domain.errors import NotFound
from reactorcide.domain.runs import Run
from reactorcide.domain.webhooks import Webhook, WebhookEvent, WebhookMessage
from reactorcide.store.connection import Connection
from reactorcide.store.outbox import MESSAGE_TABLE, WEBHOOKS, wake
from reactorcide.store.owed import IS_DUE, due
from reactorcide.store.pages import newest_first
from reactorcide.store.sealed import SealedFields

_COLUMNS = tuple(item.name for item in fields(Webhook))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM webhook"  # noqa: S608  # names of ours only
_MESSAGE_COLUMNS = tuple(item.name for item in fields(WebhookMessage))
_MESSAGES = f"SELECT {', '.join(_MESSAGE_COLUMNS)} FROM webhook_message"  # noqa: S608  # as above
_INSERT_MESSAGE = (
    f"INSERT INTO webhook_message ({', '.join(_MESSAGE_COLUMNS)}) "  # noqa: S608  # as above
    f"VALUES ({', '.join('?' * len(_MESSAGE_COLUMNS))})"
)
_SET_CURSOR = (
    "INSERT INTO webhook_cursor (name, event_id) VALUES ('events', ?) "
    "ON CONFLICT (name) DO UPDATE SET event_id = excluded.event_id"
)
_TRIM = (
    "UPDATE webhook_message SET owed_since_ms = NULL, next_at_ms = NULL, problem = ? WHERE webhook_id = ? "
    "AND message_id IN (SELECT message_id FROM webhook_message WHERE webhook_id = ? "
    "AND next_at_ms IS NOT NULL ORDER BY created_at_ms, message_id LIMIT ?)"
)
_FAILING = "project_id = ? AND workflow_id = ? AND branch = ? AND event_name = ?"
_SET_FAILING = (
    "INSERT INTO failing_workflow (project_id, workflow_id, branch, event_name, turn) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (project_id, workflow_id, branch, event_name) DO UPDATE SET turn = excluded.turn "
    "WHERE excluded.turn >= failing_workflow.turn"
)
PREVIOUS_SIGNS_FOR_MS = 24 * 3_600_000
"""How long the secret before a renewal signs, too."""
MAX_OWED = 10_000
"""Messages of one webhook that wait to be sent; the oldest ones beyond are given up."""


class Webhooks:
    """Webhooks. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(self, webhook: Webhook, secret: str) -> None:
        """Insert a webhook, which is told of what happens from now on."""
        sealed = self._sealed.seal_text(secret, owner_of(webhook.webhook_id))
        sql = f"INSERT INTO webhook ({', '.join(_COLUMNS)}, sealed) VALUES ({'?, ' * len(_COLUMNS)}?)"  # noqa: S608  # as above

        def work(db: Any) -> None:
            (count,) = db.execute_sql("SELECT COUNT(*) FROM webhook").fetchone()
            if count == 0:
                # Before, nobody looked at what has happened.
                (last,) = db.execute_sql("SELECT COALESCE(MAX(id), 0) FROM job_event").fetchone()
                db.execute_sql(_SET_CURSOR, (last,))
            db.execute_sql(sql, (*_row(webhook), sealed))

        self._db.write(work)

    def save(self, webhook: Webhook) -> None:
        """Write the address, the events and the projects of a webhook, and whether it is disabled."""
        row = dict(zip(_COLUMNS, _row(webhook), strict=True))
        values = (row["url"], row["events"], row["project_ids"], row["disabled_at_ms"], webhook.webhook_id)
        sql = (
            "UPDATE webhook SET url = ?, events = ?, project_ids = ?, disabled_at_ms = ? WHERE webhook_id = ?"
        )
        self._db.write(lambda db: db.execute_sql(sql, values))

    def disable(self, webhook: Webhook, *, now_ms: int) -> bool:
        """Tell a webhook nothing more; returns whether it has the same address still."""
        sql = (
            "UPDATE webhook SET disabled_at_ms = COALESCE(disabled_at_ms, ?) WHERE webhook_id = ? AND url = ?"
        )
        values = (now_ms, webhook.webhook_id, webhook.url)
        return self._db.write(lambda db: bool(db.execute_sql(sql, values).rowcount))

    def delete(self, webhook_id: str) -> None:
        """Remove a webhook with its messages."""

        def work(db: Any) -> None:
            for table in ("webhook", "webhook_message"):
                db.execute_sql(f"DELETE FROM {table} WHERE webhook_id = ?", (webhook_id,))  # noqa: S608  # as above
            sql = "DELETE FROM outbox_lane WHERE kind = ? AND owner_id = ?"
            db.execute_sql(sql, (WEBHOOKS, webhook_id))

        self._db.write(work)

    def find(self, webhook_id: str) -> Webhook | None:
        """Return a webhook; ``None`` if there is none."""
        with self._db.read() as db:
            row = db.execute_sql(f"{_SELECT} WHERE webhook_id = ?", (webhook_id,)).fetchone()
        return None if row is None else _webhook(row)

    def of_user(self, user_id: str | None) -> list[Webhook]:
        """Return the webhooks of a user, or (``None``) all, newest first."""
        where, values = ("", ()) if user_id is None else (" WHERE user_id = ?", (user_id,))
        with self._db.read() as db:
            rows = db.execute_sql(f"{_SELECT}{where} ORDER BY created_at_ms DESC, webhook_id DESC", values)
            return [_webhook(row) for row in rows]

    def renew_secret(self, webhook_id: str, secret: str, *, now_ms: int) -> None:
        """Give a webhook another secret, and keep the one before."""
        sealed = self._sealed.seal_text(secret, owner_of(webhook_id))
        sql = (
            "UPDATE webhook SET previous_sealed = sealed, sealed = ?, renewed_at_ms = ? WHERE webhook_id = ?"
        )
        self._db.write(lambda db: db.execute_sql(sql, (sealed, now_ms, webhook_id)))

    def secrets(self, webhook_id: str, *, now_ms: int) -> list[str]:
        """Return the secret of a webhook, and after it the one before for as long as that signs, too.

        Raises ``NotFound``.
        """
        sql = "SELECT sealed, previous_sealed, renewed_at_ms FROM webhook WHERE webhook_id = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (webhook_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no webhook {webhook_id}")
        sealed, previous, renewed_at_ms = row
        both = [sealed]
        # By a clock that was put back, too, it comes to an end.
        if previous is not None and abs(now_ms - renewed_at_ms) < PREVIOUS_SIGNS_FOR_MS:
            both.append(previous)
        return [self._sealed.open_text(bytes(data), owner_of(webhook_id)) for data in both]

    # --- messages ------------------------------------------------------------------------------

    def cursor(self) -> int:
        """Return the id of the last status change that webhooks were told of."""
        with self._db.read() as db:
            row = db.execute_sql("SELECT event_id FROM webhook_cursor WHERE name = 'events'").fetchone()
        return 0 if row is None else int(row[0])

    def set_cursor(self, event_id: int) -> None:
        """Record up to which status change webhooks were told."""
        self._db.write(lambda db: db.execute_sql(_SET_CURSOR, (event_id,)))

    def owe(self, message: WebhookMessage) -> None:
        """Have a message sent."""

        def work(db: Any) -> None:
            db.execute_sql(_INSERT_MESSAGE, [getattr(message, name) for name in _MESSAGE_COLUMNS])
            wake(db, WEBHOOKS, message.webhook_id, message.created_at_ms)

        self._db.write(work)

    def trim(self, webhook_id: str) -> None:
        """Give up the oldest messages of a webhook that are beyond the bound."""
        count = "SELECT COUNT(*) FROM webhook_message WHERE webhook_id = ? AND next_at_ms IS NOT NULL"

        def work(db: Any) -> None:
            (owed,) = db.execute_sql(count, (webhook_id,)).fetchone()
            if owed > MAX_OWED:
                values = ("too many later ones were waiting", webhook_id, webhook_id, owed - MAX_OWED)
                db.execute_sql(_TRIM, values)

        self._db.write(work)

    def next_message(self, webhook_id: str, *, now_ms: int) -> WebhookMessage | None:
        """Return the message of a webhook that has been due for longest; ``None`` if none is."""
        sql = f"{_MESSAGES} WHERE webhook_id = ? AND {IS_DUE} ORDER BY next_at_ms, message_id LIMIT 1"
        with self._db.read() as db:
            row = db.execute_sql(sql, (webhook_id, *due(now_ms))).fetchone()
        return None if row is None else _message(row)

    def message_sent(self, message: WebhookMessage, *, now_ms: int) -> None:
        """Record that a message has arrived."""
        key, version = message.message_id, message.version
        self._db.write(lambda db: MESSAGE_TABLE.sent(db, key, version, sent_at_ms=now_ms))

    def message_failed(self, message: WebhookMessage, problem: str, *, next_at_ms: int) -> None:
        """Record that a message did not arrive, and when it is sent again."""
        key, version = message.message_id, message.version
        self._db.write(lambda db: MESSAGE_TABLE.failed(db, key, version, problem, next_at_ms=next_at_ms))

    def give_up(self, webhook_id: str | None, problem: str, *, owed_up_to_ms: int) -> None:
        """Send no more what has been owed since then or longer, to a webhook or to all."""
        self._db.write(lambda db: MESSAGE_TABLE.give_up(db, webhook_id, problem, owed_up_to_ms=owed_up_to_ms))

    def redeliver(self, webhook_id: str, message_id: str, *, now_ms: int) -> WebhookMessage | None:
        """Have a message sent (again), and return it; ``None`` if there is none."""
        sql = (
            "UPDATE webhook_message SET version = version + 1, failures = 0, "  # noqa: S608  # as above
            "owed_since_ms = ?, next_at_ms = ? "
            f"WHERE webhook_id = ? AND message_id = ? RETURNING {', '.join(_MESSAGE_COLUMNS)}"
        )

        def work(db: Any) -> WebhookMessage | None:
            row = db.execute_sql(sql, (now_ms, now_ms, webhook_id, message_id)).fetchone()
            if row is None:
                return None
            wake(db, WEBHOOKS, webhook_id, now_ms)
            return _message(row)

        return self._db.write(work)

    def messages(
        self, webhook_id: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[WebhookMessage]:
        """Return a page of the messages of a webhook, newest first."""
        query = newest_first(
            _MESSAGES, ["webhook_id = ?"], [webhook_id], "message_id", limit=limit, after=after
        )
        with self._db.read() as db:
            return [_message(row) for row in db.execute_sql(*query)]

    # --- failure and recovery ------------------------------------------------------------------

    def set_failing(self, run: Run) -> None:
        """Record that the newest run of a workflow, for a branch and a kind of event, has failed."""
        self._db.write(lambda db: db.execute_sql(_SET_FAILING, (*_failing_key(run), run.turn)))

    def set_works(self, run: Run) -> bool:
        """Record that it has completed; returns whether it had failed before."""
        sql = f"DELETE FROM failing_workflow WHERE {_FAILING} AND turn <= ? RETURNING turn"  # noqa: S608  # our own text
        return self._db.write(
            lambda db: db.execute_sql(sql, (*_failing_key(run), run.turn)).fetchone() is not None
        )


def owner_of(webhook_id: str) -> str:
    """Return whom the sealed secret of a webhook belongs to."""
    return f"webhook {webhook_id}"


def _failing_key(run: Run) -> tuple[str, ...]:
    event = run.event
    return (run.project_id or "", run.workflow_id, event.get("branch", ""), event.get("name", ""))


def _row(webhook: Webhook) -> list[object]:
    values = {name: getattr(webhook, name) for name in _COLUMNS}
    values["events"] = json.dumps(webhook.events)
    values["project_ids"] = None if webhook.project_ids is None else json.dumps(webhook.project_ids)
    return [*values.values()]


def _webhook(row: Sequence[Any]) -> Webhook:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["events"] = tuple(map(WebhookEvent, json.loads(values["events"])))
    if values["project_ids"] is not None:
        values["project_ids"] = tuple(json.loads(values["project_ids"]))
    return Webhook(**values)


def _message(row: Sequence[Any]) -> WebhookMessage:
    return WebhookMessage(**dict(zip(_MESSAGE_COLUMNS, row, strict=True)))
