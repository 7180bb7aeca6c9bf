"""Queries on caches: looked up by key, stored once, and evicted for newer ones."""

import json
from collections.abc import Sequence
from typing import Any

from reactorcide.domain.caches import MAX_CACHES, Cache, ExpectedCache
from reactorcide.domain.errors import NotFound
from reactorcide.store.connection import Connection
from reactorcide.store.models.runs import CacheRow
from reactorcide.store.pages import newest_first

_COLUMNS = tuple(CacheRow._meta.columns)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM cache"  # noqa: S608  # names of ours only
_OF_BRANCH = "owner_id = ? AND repository = ? AND branch = ? AND paths = ?"
_INSERT = (
    f"INSERT INTO cache ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608  # as above
    "ON CONFLICT DO NOTHING RETURNING cache_id"
)
_LEAST_RECENTLY_USED = f"{_SELECT} WHERE owner_id = ? ORDER BY last_used_at_ms DESC, cache_id DESC"

_OF_NOBODY = (
    f"{_SELECT} WHERE owner_id NOT IN (SELECT user_id FROM user) "  # noqa: S608  # as above
    "AND owner_id NOT IN (SELECT project_id FROM project)"
)
_DELETE = "DELETE FROM cache WHERE cache_id = ?"


class Caches:
    """Caches. Thread-safe; each write is one transaction, or part of the one this belongs to."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    def find(
        self,
        owner_id: str,
        repository: str,
        branch: str,
        key: str,
        paths: Sequence[str],
        *,
        is_prefix: bool = False,
    ) -> Cache | None:
        """Return the cache of an owner, a repository, a branch, a key and paths.

        With ``is_prefix`` the newest cache whose key begins with ``key``.
        """
        condition = "substr(key, 1, ?) = ?" if is_prefix else "key = ?"
        keys: tuple[object, ...] = (len(key), key) if is_prefix else (key,)
        sql = (
            f"{_SELECT} WHERE {_OF_BRANCH} AND {condition} ORDER BY created_at_ms DESC, cache_id DESC LIMIT 1"
        )
        values = (owner_id, repository, branch, json.dumps(paths), *keys)
        with self._db.read() as db:
            row = db.execute_sql(sql, values).fetchone()
        return None if row is None else _cache(row)

    def add(self, cache: Cache, *, max_bytes: int) -> tuple[bool, list[Cache]]:
        """Record a cache unless there is one of its branch, key and paths; returns whether it was recorded.

        Also returns the caches of its owner that were evicted for it.
        """

        def work(db: Any) -> tuple[bool, list[Cache]]:
            if db.execute_sql(_INSERT, _row(cache)).fetchone() is None:
                return False, []
            return True, _trim(db, cache.owner_id, max_bytes)

        return self._db.write(work)

    def trim(self, *, max_bytes: int) -> list[Cache]:
        """Remove and return the least recently used caches of each owner above the limit.

        Those of an owner who was removed are among them.
        """

        def work(db: Any) -> list[Cache]:
            removed = [_cache(row) for row in db.execute_sql(_OF_NOBODY).fetchall()]
            for cache in removed:
                db.execute_sql(_DELETE, (cache.cache_id,))
            sql = "SELECT owner_id FROM cache GROUP BY owner_id HAVING SUM(size_bytes) > ?"
            for (owner_id,) in db.execute_sql(sql, (max_bytes,)).fetchall():
                removed += _trim(db, owner_id, max_bytes)
            return removed

        return self._db.write(work)

    def touch(self, cache_id: str, *, now_ms: int) -> bool:
        """Record the use of a cache; returns whether it exists."""
        sql = "UPDATE cache SET last_used_at_ms = ? WHERE cache_id = ? RETURNING cache_id"
        return self._db.write(lambda db: db.execute_sql(sql, (now_ms, cache_id)).fetchone() is not None)

    def get(self, cache_id: str) -> Cache:
        """Return a cache; raises ``NotFound``."""
        with self._db.read() as db:
            row = db.execute_sql(f"{_SELECT} WHERE cache_id = ?", (cache_id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no cache {cache_id}")
        return _cache(row)

    def remove(self, cache_id: str) -> None:
        """Remove a cache; safe to repeat."""
        self._db.write(lambda db: db.execute_sql(_DELETE, (cache_id,)))

    def page(self, owner_id: str | None, *, limit: int, after: tuple[int, str] | None = None) -> list[Cache]:
        """Return a page of the caches of an owner (``None``: of all), newest first.

        ``after`` is (created_at_ms, cache_id) of the last cache of the page before.
        """
        owned = [] if owner_id is None else [owner_id]
        conditions = ["owner_id = ?"] * len(owned)
        query = newest_first(_SELECT, conditions, owned, "cache_id", limit=limit, after=after)
        with self._db.read() as db:
            return [_cache(row) for row in db.execute_sql(*query)]

    def all(self) -> list[Cache]:
        """Return all caches."""
        with self._db.read() as db:
            return [_cache(row) for row in db.execute_sql(_SELECT)]

    # --- what an attempt is to save --------------------------------------------------------------

    def expect(self, job_id: str, attempt: int, expected: Sequence[ExpectedCache]) -> None:
        """Record which caches an attempt saves if its command succeeds."""
        text = json.dumps([[item.key, item.paths] for item in expected])
        sql = "UPDATE attempt SET caches = ? WHERE job_id = ? AND attempt = ?"
        self._db.write(lambda db: db.execute_sql(sql, (text, job_id, attempt)))

    def expected(self, job_id: str, attempt: int) -> list[ExpectedCache]:
        """Return which caches an attempt saves if its command succeeds."""
        sql = "SELECT caches FROM attempt WHERE job_id = ? AND attempt = ?"
        with self._db.read() as db:
            row = db.execute_sql(sql, (job_id, attempt)).fetchone()
        return [ExpectedCache(key, tuple(paths)) for key, paths in json.loads((row and row[0]) or "[]")]


def _trim(db: Any, owner_id: str, max_bytes: int) -> list[Cache]:
    """Remove and return the least recently used caches of an owner above the limits."""
    removed = []
    size_bytes = 0
    for number, row in enumerate(db.execute_sql(_LEAST_RECENTLY_USED, (owner_id,)).fetchall(), start=1):
        cache = _cache(row)
        size_bytes += cache.size_bytes
        if size_bytes > max_bytes or number > MAX_CACHES:
            db.execute_sql(_DELETE, (cache.cache_id,))
            removed.append(cache)
    return removed


def _row(cache: Cache) -> list[object]:
    values = {name: getattr(cache, name) for name in _COLUMNS} | {"paths": json.dumps(cache.paths)}
    return list(values.values())


def _cache(row: Sequence[Any]) -> Cache:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["paths"] = tuple(json.loads(values["paths"]))
    return Cache(**values)
