"""Queries on uploaded sources and who may use them."""

from dataclasses import asdict, fields

from peewee import fn

from reactorcide.domain.audit import Deed
from reactorcide.domain.jobs import ACTIVE
from reactorcide.domain.sources import Source
from reactorcide.store import audit
from reactorcide.store.database import Database
from reactorcide.store.models import JobRow, SourceOwnerRow, SourceRow

_FIELDS = tuple(getattr(SourceRow, item.name) for item in fields(Source))


class SourceStore:
    """Uploaded sources in the database. Thread-safe; every method is one transaction, durable on return.

    All methods raise ``StoreError`` where the database does not do its work.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, source: Source, user_id: str, *, now_ms: int, deed: Deed | None = None) -> bool:
        """Let ``user_id``, who has uploaded a source, use it; tells whether its ``object_key`` is now in use.

        It is not where the same bytes are kept under another key. ``deed`` is for the audit, unless
        ``user_id`` had uploaded them before.
        """
        with self._database.write() as db:
            is_new = (
                not SourceRow.update(last_used_at_ms=now_ms)
                .where(SourceRow.source_id == source.source_id)
                .execute(db)
            )
            if is_new:
                SourceRow.insert(**asdict(source), last_used_at_ms=now_ms).execute(db)
            key = SourceOwnerRow.source_id == source.source_id, SourceOwnerRow.user_id == user_id
            if not SourceOwnerRow.update(last_used_at_ms=now_ms).where(*key).execute(db):
                SourceOwnerRow.insert(
                    source_id=source.source_id, user_id=user_id, last_used_at_ms=now_ms
                ).execute(db)
                if deed is not None:
                    audit.record(db, deed)
            return is_new

    def touch(self, source_id: str, user_id: str | None, *, now_ms: int) -> bool:
        """Stamp a source as used just now; ``False`` where ``user_id`` (``None``: anybody) has none such."""
        with self._database.write() as db:
            if user_id is not None and not SourceOwnerRow.update(last_used_at_ms=now_ms).where(
                SourceOwnerRow.source_id == source_id, SourceOwnerRow.user_id == user_id
            ).execute(db):
                return False
            return bool(
                SourceRow.update(last_used_at_ms=now_ms).where(SourceRow.source_id == source_id).execute(db)
            )

    def get(self, source_id: str, user_id: str | None = None) -> Source | None:
        """Return a source, only if ``user_id``, where that is given, has uploaded it."""
        where = SourceRow.source_id == source_id
        if user_id is not None:
            where &= SourceRow.source_id.in_(
                SourceOwnerRow.select(SourceOwnerRow.source_id).where(SourceOwnerRow.user_id == user_id)
            )
        with self._database.read() as db:
            for row in SourceRow.select(*_FIELDS).where(where).dicts().execute(db):
                return Source(**row)
        return None

    def remove_unused(self, *, before_ms: int) -> list[Source]:
        """Remove and return what was last used before then and no job needs that has not ended.

        Who has not used theirs since then has it no more, also where somebody else goes on using the same.
        """
        needed = JobRow.select(JobRow.source_id).where(
            JobRow.status.in_(list(ACTIVE)) & JobRow.source_id.is_null(False)
        )
        where = (SourceRow.last_used_at_ms < before_ms) & SourceRow.source_id.not_in(needed)
        with self._database.write() as db:
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

    def object_keys(self) -> set[str]:
        """Return the object keys of all sources."""
        with self._database.read() as db:
            return {key for (key,) in SourceRow.select(SourceRow.object_key).tuples().execute(db)}
