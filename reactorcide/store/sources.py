"""Queries on uploaded sources and who may use them."""

from dataclasses import asdict, fields
from typing import Any

from peewee import fn

from reactorcide.domain.jobs import ACTIVE
from reactorcide.domain.sources import Source
from reactorcide.store.connection import Connection
from reactorcide.store.models.jobs import JobRow
from reactorcide.store.models.runs import RunRow
from reactorcide.store.models.service import SourceOwnerRow, SourceRow

_FIELDS = tuple(getattr(SourceRow, item.name) for item in fields(Source))


class Sources:
    """Uploaded sources. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def add(self, source: Source, *, now_ms: int) -> bool:
        """Record a source that was uploaded just now; returns whether its ``object_key`` is now in use.

        It is not if the same bytes are stored under another key.
        """

        def work(db: Any) -> bool:
            if self._touch(db, source.source_id, now_ms):
                return False
            SourceRow.insert(**asdict(source), last_used_at_ms=now_ms).execute(db)
            return True

        return self._db.write(work)

    def add_owner(self, source_id: str, user_id: str, *, now_ms: int) -> bool:
        """Let ``user_id``, who has uploaded a source, use it; returns whether they could not before."""

        def work(db: Any) -> bool:
            if self._touch_owner(db, source_id, user_id, now_ms):
                return False
            SourceOwnerRow.insert(source_id=source_id, user_id=user_id, last_used_at_ms=now_ms).execute(db)
            return True

        return self._db.write(work)

    def touch(self, source_id: str, user_id: str | None, *, now_ms: int) -> bool:
        """Record the use of a source; ``False`` if ``user_id`` (``None``: any user) has not uploaded it."""

        def work(db: Any) -> bool:
            if user_id is not None and not self._touch_owner(db, source_id, user_id, now_ms):
                return False
            return self._touch(db, source_id, now_ms)

        return self._db.write(work)

    def get(self, source_id: str, user_id: str | None = None) -> Source | None:
        """Return a source, if ``user_id`` (``None``: any user) has uploaded it."""
        where = SourceRow.source_id == source_id
        if user_id is not None:
            where &= SourceRow.source_id.in_(
                SourceOwnerRow.select(SourceOwnerRow.source_id).where(SourceOwnerRow.user_id == user_id)
            )
        with self._db.read() as db:
            for row in SourceRow.select(*_FIELDS).where(where).dicts().execute(db):
                return Source(**row)
        return None

    def remove_unused(self, *, before_ms: int) -> list[Source]:
        """Remove and return the sources last used before then that no unfinished job or run needs.

        A user who has not used a source since then loses it, even if another user still uses the same bytes.
        """
        needed = JobRow.select(JobRow.source_id).where(
            JobRow.status.in_(list(ACTIVE)) & JobRow.source_id.is_null(False)
        )
        needed_by_runs = RunRow.select(RunRow.source_id).where(
            RunRow.completed_at_ms.is_null() & RunRow.source_id.is_null(False)
        )
        where = (
            (SourceRow.last_used_at_ms < before_ms)
            & SourceRow.source_id.not_in(needed)
            & SourceRow.source_id.not_in(needed_by_runs)
        )

        def work(db: Any) -> list[Source]:
            removed = [Source(**row) for row in SourceRow.select(*_FIELDS).where(where).dicts().execute(db)]
            for source in removed:
                SourceRow.delete().where(SourceRow.source_id == source.source_id).execute(db)
                SourceOwnerRow.delete().where(SourceOwnerRow.source_id == source.source_id).execute(db)
            used = JobRow.select().where(
                (JobRow.source_id == SourceOwnerRow.source_id)
                & (JobRow.user_id == SourceOwnerRow.user_id)
                & JobRow.status.in_(list(ACTIVE))
            )
            SourceOwnerRow.delete().where(
                (SourceOwnerRow.last_used_at_ms < before_ms) & ~fn.EXISTS(used)
            ).execute(db)
            return removed

        return self._db.write(work)

    def object_keys(self) -> set[str]:
        """Return the object keys of all sources."""
        with self._db.read() as db:
            return {key for (key,) in SourceRow.select(SourceRow.object_key).tuples().execute(db)}

    @staticmethod
    def _touch(db: Any, source_id: str, now_ms: int) -> bool:
        query = SourceRow.update(last_used_at_ms=now_ms).where(SourceRow.source_id == source_id)
        return bool(query.execute(db))

    @staticmethod
    def _touch_owner(db: Any, source_id: str, user_id: str, now_ms: int) -> bool:
        query = SourceOwnerRow.update(last_used_at_ms=now_ms).where(
            (SourceOwnerRow.source_id == source_id) & (SourceOwnerRow.user_id == user_id)
        )
        return bool(query.execute(db))
