"""Caches: looked up before a job's command runs, stored after it has succeeded, listed and deleted.

A cache is a tar of files from a job's container. It is never unpacked on this host.
"""

import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence

from reactorcide import crashpoints
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.caches import (
    PREFIX,
    Cache,
    CacheAnswer,
    CacheScope,
    CacheSpec,
    Check,
    ExpectedCache,
    FoundCache,
    cache_prefix,
    object_key,
)
from reactorcide.domain.errors import Forbidden, NotFound, ObjectNotFound, ObjectStoreError, TooLarge
from reactorcide.domain.jobs import Job
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Run
from reactorcide.jobs import StoredJobs, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.sizes import format_size

log = logging.getLogger("reactorcide.jobs")

_ROOM_EVERY_BYTES = 64 << 20
"""Free disk space is checked after each such number of bytes of a cache."""


def of_job(context: StoredJobs, job: Job) -> tuple[CacheSpec, ...]:
    """Return the caches that a job names; none for a job without a run or of a run without a cache scope."""
    if job.run_id is None or job.node is None:
        return ()
    named = context.store.runs.template(job.run_id, job.node).get("caches", ())
    if not named:
        return ()
    return tuple(
        CacheSpec(*(tuple(item[name]) for name in ("key", "paths", "restore_keys"))) for item in named
    )


def find(context: StoredJobs, job: Job, spec: CacheSpec, key: str, check: Check) -> CacheAnswer:
    """Return the cache to restore for a job: the one with this key, else the newest of each prefix.

    Each is looked up in the branches of the job's run in turn. A damaged cache is removed and counts as
    missing. ``check`` is called repeatedly, and raises to interrupt.
    """
    damaged: list[str] = []
    caches, run_scope = context.store.caches, _scope(context, job)
    if run_scope is None:
        return CacheAnswer(None)
    run, scope = run_scope
    for text, is_prefix in [(key, False), *((prefix, True) for prefix in spec.restore_keys)]:
        for branch in scope.branches:
            place = (run.owner_id, scope.repository, branch, text, spec.paths)
            while (cache := caches.find(*place, is_prefix=is_prefix)) is not None:
                chunks = _whole(context, cache, check)
                if chunks is not None and caches.touch(cache.cache_id, now_ms=now_ms()):
                    return CacheAnswer(
                        FoundCache(cache.cache_id, cache.key, cache.size_bytes, chunks), tuple(damaged)
                    )
                if chunks is None:
                    damaged.append(cache.key)
                    drop(context, cache.cache_id)
    return CacheAnswer(None, tuple(damaged))


def is_readable(context: StoredJobs, job: Job, cache_id: str) -> bool:
    """Return whether there is a cache with this id, and the job's run may read it."""
    run_scope = _scope(context, job)
    try:
        cache = context.store.caches.get(cache_id)
    except NotFound:
        return False
    if run_scope is None:
        return False
    run, scope = run_scope
    is_own = (cache.owner_id, cache.repository) == (run.owner_id, scope.repository)
    return is_own and cache.branch in scope.branches


def readable(context: StoredJobs, job: Job, cache_id: str) -> Iterator[bytes]:
    """Return the bytes of a cache that the job's run may read; raises ``NotFound``."""
    if not is_readable(context, job, cache_id):
        raise NotFound(f"there is no cache {cache_id} for this job")
    return context.objects.read(object_key(cache_id))


def drop(context: StoredJobs, cache_id: str) -> None:
    """Remove a cache that could not be restored; safe to repeat."""
    context.store.caches.remove(cache_id)
    _delete_objects(context, cache_id)


def expect(context: StoredJobs, job: Job, expected: Sequence[ExpectedCache]) -> bool:
    """Record which caches the job's attempt saves if its command succeeds; ``False`` if it may save none."""
    if _writable_scope(context, job) is None:
        return False
    context.store.caches.expect(job.job_id, job.attempt, expected)
    return True


def expected(context: StoredJobs, job: Job) -> list[ExpectedCache]:
    """Return the caches that the job's attempt saves if its command succeeds and that are not stored yet."""
    caches, run_scope = context.store.caches, _writable_scope(context, job)
    if run_scope is None:
        return []
    run, scope = run_scope
    place = (run.owner_id, scope.repository, scope.branches[0])
    return [
        item
        for item in caches.expected(job.job_id, job.attempt)
        if caches.find(*place, item.key, item.paths) is None
    ]


def add(
    context: StoredJobs, job: Job, item: ExpectedCache, chunks: Iterable[bytes], *, max_bytes: int
) -> int | None:
    """Store a cache of the job's run, and return its bytes; ``None`` if there is one with its key.

    ``max_bytes`` is for all caches of the run's project or user; the least recently used ones are evicted.
    Raises ``TooLarge`` for a single cache above the limit, and the errors of ``chunks``; then nothing is
    stored.
    """
    run_scope = _writable_scope(context, job)
    if run_scope is None:
        raise Forbidden("the run of this job may write no caches")
    run, scope = run_scope
    cache_id = new_id()
    written = _Written()
    size_bytes = context.objects.put(
        object_key(cache_id), written.through(_with_room(context, chunks, max_bytes))
    )
    is_new = False
    try:
        crashpoints.reached("cache-stored")
        at_ms = now_ms()
        cache = Cache(
            cache_id=cache_id,
            owner_id=run.owner_id,
            project_id=run.project_id,
            user_id=job.user_id,
            repository=scope.repository,
            branch=scope.branches[0],
            key=item.key,
            paths=item.paths,
            size_bytes=size_bytes,
            crc32=written.crc32,
            job_id=job.job_id,
            created_at_ms=at_ms,
            last_used_at_ms=at_ms,
        )
        is_new, removed = context.store.caches.add(cache, max_bytes=max_bytes)
    finally:
        if not is_new:
            context.objects.delete(cache_prefix(cache_id))
    crashpoints.reached("cache-recorded")
    _delete_objects(context, *(cache.cache_id for cache in removed))
    return size_bytes if is_new else None


def page(
    context: StoredJobs, owner_id: str | None, *, limit: int, after: tuple[int, str] | None = None
) -> list[Cache]:
    """Return a page of the caches of an owner (``None``: of all), newest first; see ``store.Caches.page``."""
    return context.store.caches.page(owner_id, limit=limit, after=after)


def delete(context: StoredJobs, user: User, cache_id: str) -> None:
    """Remove a cache; in a project this needs the role to start runs.

    Raises ``NotFound`` if there is none for this user, ``Forbidden`` if it is somebody else's or the
    role is not enough.
    """
    cache = context.store.caches.get(cache_id)
    item = f"cache {cache_id}"
    access.check_item(context, user, item, cache.user_id, cache.project_id, ProjectRole.WRITE)
    with context.store.transaction() as tx:
        tx.caches.remove(cache_id)
        tx.audit.add(AuditEntry(at_ms=now_ms(), by=user.actor, action=Action.CACHE_DELETE, subject=cache_id))
    context.objects.delete(cache_prefix(cache_id))


def trim(context: StoredJobs, *, max_bytes: int) -> None:
    """Remove the caches of each owner above the limit, the least recently used ones first."""
    limit = format_size(max_bytes)
    removed = context.store.caches.trim(max_bytes=max_bytes)
    for cache in removed:
        log.info("cache %s is removed: its owner has more than %s, or is gone", cache.key, limit)
    _delete_objects(context, *(cache.cache_id for cache in removed))


def remove_orphans(context: StoredJobs, *, before_id: str | None = None) -> None:
    """Remove objects without a row and rows without an object; call it before any cache is stored.

    With ``before_id``, which is of a time when none that is being stored had begun, it may be called at any
    time.
    """
    by_object = {cache.object_key: cache for cache in context.store.caches.all()}
    stored = {item.key for item in context.objects.list(PREFIX)}
    for key in stored - by_object.keys():
        if before_id is None or key.removeprefix(PREFIX) < before_id:
            context.objects.delete(key.rpartition("/")[0] + "/")
    for key in by_object.keys() - stored:
        if before_id is None or key.removeprefix(PREFIX) < before_id:
            context.store.caches.remove(by_object[key].cache_id)


def _scope(context: StoredJobs, job: Job) -> tuple[Run, CacheScope] | None:
    """Return the run of a job and which caches it may use; ``None`` if it may use none."""
    run = None if job.run_id is None else context.store.runs.find(job.run_id)
    return None if run is None or run.cache_scope is None else (run, run.cache_scope)


def _writable_scope(context: StoredJobs, job: Job) -> tuple[Run, CacheScope] | None:
    """Return the same, also ``None`` if the job may write no caches. It writes those of the first branch."""
    scope = _scope(context, job)
    return scope if scope is not None and scope[1].is_writable else None


def _whole(context: StoredJobs, cache: Cache, check: Check) -> Iterator[bytes] | None:
    """Return the bytes of a cache after its checksum was verified; ``None`` if it is damaged."""
    written, size_bytes = _Written(), 0
    try:
        for chunk in written.through(context.objects.read(cache.object_key)):
            check()
            size_bytes += len(chunk)
        if (size_bytes, written.crc32) == (cache.size_bytes, cache.crc32):
            return context.objects.read(cache.object_key)
    except ObjectNotFound:
        pass
    return None


def _delete_objects(context: StoredJobs, *cache_ids: str) -> None:
    for cache_id in cache_ids:
        try:
            # The row is gone already, so an object that remains is an orphan, which the janitor removes.
            context.objects.delete(cache_prefix(cache_id))
        except ObjectStoreError as exc:
            log.warning("a removed cache keeps its file, which the janitor finds in a day or two: %s", exc)


def _with_room(context: StoredJobs, chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    size_bytes = remaining_bytes = 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise TooLarge(f"it is larger than {format_size(max_bytes)} (--max-cache-bytes)")
        remaining_bytes -= len(chunk)
        if remaining_bytes < 0:
            # Caches must not fill the disk so far that no job starts.
            context.objects.check()
            remaining_bytes = _ROOM_EVERY_BYTES
        yield chunk


class _Written:
    """Computes the checksum of passing chunks."""

    def __init__(self) -> None:
        self.crc32 = 0

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.crc32 = zlib.crc32(chunk, self.crc32)
            yield chunk
