"""Idempotency keys: the job or run that a user's key has created, and the request."""

from typing import Any

import peewee

from reactorcide.domain.errors import KeyTaken
from reactorcide.domain.jobs import RequestKey
from reactorcide.store.connection import Connection
from reactorcide.store.models.accounts import IdempotencyRow
from reactorcide.store.sealed import SealedFields

_MAX_AGE_MS = 86_400_000


class RequestKeys:
    """Idempotency keys, which expire after a day. Thread-safe."""

    def __init__(self, db: Connection, sealed: SealedFields) -> None:
        self._db = db
        self._sealed = sealed

    def add(self, key: RequestKey, user_id: str, subject_id: str, *, now_ms: int) -> None:
        """Record a user's key for a job or run, in the transaction that adds it.

        Raises ``KeyTaken`` if the user has already used the key.
        """

        def work(db: Any) -> None:
            IdempotencyRow.delete().where(IdempotencyRow.created_at_ms < now_ms - _MAX_AGE_MS).execute(db)
            try:
                IdempotencyRow.insert(
                    user_id=user_id,
                    key=key.key,
                    body_mac=self._sealed.mac(key.body_sha256),
                    job_id=subject_id,
                    created_at_ms=now_ms,
                ).execute(db)
            except peewee.IntegrityError as exc:
                raise KeyTaken("something else was made with this Idempotency-Key") from exc

        self._db.write(work)

    def find(self, user_id: str, key: RequestKey, *, now_ms: int) -> tuple[str, bool] | None:
        """Return the id of the job or run of a user's key, and whether the request was the same."""
        with self._db.read() as db:
            for job_id, body_mac in (
                IdempotencyRow.select(IdempotencyRow.job_id, IdempotencyRow.body_mac)
                .where(
                    (IdempotencyRow.user_id == user_id)
                    & (IdempotencyRow.key == key.key)
                    & (IdempotencyRow.created_at_ms >= now_ms - _MAX_AGE_MS)
                )
                .tuples()
                .execute(db)
            ):
                return job_id, bytes(body_mac) == self._sealed.mac(key.body_sha256)
        return None
