"""Uploaded sources, and the artifacts of one job as the source of another.

An uploaded source is a tar.gz that is stored unchanged. It is never unpacked on this host: it is read,
checked and rewritten on its way into a container.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.definition import JobDefinition
from reactorcide.domain.errors import InvalidInput, JobFailed, NotFound, ObjectNotFound, TooLarge
from reactorcide.domain.sources import Source
from reactorcide.jobs import StoredJobs, access, read
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import MAX_PATH_BYTES, DamagedTar, Entry, Tree, gunzip, read_tar

BUSY = "too many uploaded sources are read at the moment; try again in a few seconds"
_CHECK_WAIT_S = 60.0
_PREFIX = "sources/"
_MAX_PATHS = 500_000
"""Maximum number of files, links and directories, including implicit ones; all paths are in memory while a
source is read."""


def add(context: StoredJobs, user: User, chunks: Iterable[bytes], *, max_bytes: int) -> tuple[Source, bool]:
    """Store a tar.gz that ``user`` uploads; return it, and whether the user had not uploaded it before.

    Uploads of other users change neither the answer nor its duration.
    Raises ``InvalidInput`` unless it is a tar.gz of files, directories and links that all stay within it,
    ``TooLarge`` if it has more than ``max_bytes``, packed or unpacked, and ``Busy`` while too many sources
    are checked. Then nothing is stored.
    """
    # The final name is the digest, which is known only after the last byte.
    folder = f"{_PREFIX}{new_id()}/"
    digest = hashlib.sha256()
    key = f"{folder}source.tar.gz"
    size_bytes = context.objects.put(key, _hashed(_bounded(chunks, max_bytes, ""), digest))
    in_use = False
    try:
        source_id = digest.hexdigest()
        at_ms = now_ms()
        if context.store.sources.touch(source_id, user.user_id, now_ms=at_ms):
            return get(context, user, source_id), False
        # It waits only for this host.
        with context.source_checks.hold(user.user_id, BUSY, timeout_s=_CHECK_WAIT_S):
            files = _count_files(context.objects.read(key), max_bytes)
        source = Source(
            source_id=source_id,
            object_key=key,
            size_bytes=size_bytes,
            files=files,
        )
        with context.store.transaction() as tx:
            is_new = tx.sources.add(source, now_ms=at_ms)
            if tx.sources.add_owner(source_id, user.user_id, now_ms=at_ms):
                tx.audit.add(
                    AuditEntry(at_ms=at_ms, by=user.actor, action=Action.SOURCE_UPLOAD, subject=source_id)
                )
        in_use = is_new
        return source, True
    finally:
        if not in_use:
            # It is not a source, or its bytes are stored already.
            context.objects.delete(folder)


def get(context: StoredJobs, user: User, source_id: str) -> Source:
    """Return a source that ``user`` has uploaded (an admin: any); raises ``NotFound``."""
    source = context.store.sources.get(source_id, None if user.is_admin else user.user_id)
    if source is None:
        raise NotFound(f"you have uploaded no source {source_id}")
    return source


def check(context: StoredJobs, user: User, definition: JobDefinition) -> None:
    """Raise unless ``user`` may use the source of a definition; records the use of an uploaded one.

    Raises ``InvalidInput`` for a source that ``user`` has not uploaded; for a job the same errors as reading
    it.
    """
    if definition.source_job_id is not None:
        access.get(context, user, definition.source_job_id)
    if definition.source_id is not None and not context.store.sources.touch(
        definition.source_id, None if user.is_admin else user.user_id, now_ms=now_ms()
    ):
        raise InvalidInput("you have uploaded no source with this source_id", "source_id")


def entries(context: StoredJobs, definition: JobDefinition) -> Iterator[Entry] | None:
    """Return the files of an uploaded source, or of another job's artifacts; ``None`` without either.

    Raises ``JobFailed``, also while they are read, if they are not available.
    """
    if definition.source_id is not None:
        source = context.store.sources.get(definition.source_id)
        if source is None:
            raise JobFailed(f"the uploaded source {definition.source_id} is no longer stored")
        return _uploaded(context, source)
    if definition.source_job_id is not None:
        return _artifacts(context, definition.source_job_id)
    return None


def remove_unused(context: StoredJobs, *, before_ms: int) -> list[Source]:
    """Remove and return the sources last used before then, except those that an unfinished job needs.

    ``before_ms`` must be in the past, because a job may be about to be submitted for a source in use.
    """
    removed = context.store.sources.remove_unused(before_ms=before_ms)
    for source in removed:
        # The row is gone already, so after an interruption the object is an orphan, which the janitor
        # removes.
        context.objects.delete(source.object_key.rpartition("/")[0] + "/")
    return removed


def remove_orphans(context: StoredJobs, *, before_id: str | None = None) -> None:
    """Remove files of incomplete uploads; call it before any upload.

    With ``before_id``, which is of a time when no upload that goes on had begun, it may be called any time.
    """
    in_database = context.store.sources.object_keys()
    for item in list(context.objects.list(_PREFIX)):
        is_old = before_id is None or item.key.removeprefix(_PREFIX) < before_id
        if is_old and item.key not in in_database:
            context.objects.delete(item.key.rpartition("/")[0] + "/")


def _count_files(packed: Iterator[bytes], max_bytes: int) -> int:
    files = 0
    unpacked = _bounded(gunzip(packed), max_bytes, " when unpacked")
    try:
        for entry in _within(read_tar(unpacked)):
            files += entry.kind == "file"
        # Only the end of the gzip shows that it is complete and undamaged.
        for _ in unpacked:
            pass
    except DamagedTar as exc:
        raise InvalidInput(f"a source has to be a tar.gz: {exc}") from exc
    return files


def _uploaded(context: StoredJobs, source: Source) -> Iterator[Entry]:
    try:
        yield from _within(read_tar(gunzip(context.objects.read(source.object_key))))
    except ObjectNotFound as exc:
        raise JobFailed(f"the uploaded source {source.source_id} is no longer stored") from exc
    except (DamagedTar, InvalidInput) as exc:
        raise JobFailed(f"the uploaded source {source.source_id} is damaged: {exc}") from exc


def _artifacts(context: StoredJobs, job_id: str) -> Iterator[Entry]:
    job = context.store.jobs.find(job_id)
    if job is None or job.deleted:
        raise JobFailed(_deleted(job_id))
    if not job.is_final:
        raise JobFailed(f"job {job_id}, whose artifacts are the source, has not ended: it is {job.status}")
    listing = read.artifacts(context, job)
    if not listing.artifacts:
        if job.artifacts_object_key is not None and not listing.truncated:
            # It had artifacts: it is being deleted, or its listing is lost.
            raise JobFailed(f"the artifacts of job {job_id}, which are the source, are no longer stored")
        raise JobFailed(f"job {job_id}, whose artifacts are the source, has no artifacts")
    return _while_there(read.artifact_entries(context, job, listing.artifacts), job_id)


def _while_there(entries: Iterator[Entry], job_id: str) -> Iterator[Entry]:
    try:
        yield from entries
    except ObjectNotFound as exc:
        raise JobFailed(_deleted(job_id)) from exc


def _deleted(job_id: str) -> str:
    return f"job {job_id}, whose artifacts are the source, has been deleted"


def _within(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield the entries of an uploaded tar with normalized paths; raises ``InvalidInput`` for a bad one."""
    tree = Tree()
    for entry in entries:
        path = entry.path
        problem = None
        if len(path) > MAX_PATH_BYTES or len(entry.target) > MAX_PATH_BYTES:
            problem = f"its path or its target is longer than {MAX_PATH_BYTES} bytes"
        elif path.startswith("/"):
            problem = "its path is absolute"
        elif entry.kind == "other":
            problem = "it is neither a file nor a directory nor a link"
        if problem is None:
            path = _tidied(path)
            if path == "" and entry.kind == "directory":
                # The source directory itself, as tar names it for ".".
                continue
            problem = tree.problem(path, entry.kind)
        target = entry.target
        if problem is None and entry.kind == "hardlink":
            target = _tidied(target)
            if not tree.has_file(target):
                problem = "it is a hard link to a path that is not a file before it in the archive"
        if problem is not None:
            name = entry.path[:200].encode(errors="replace").decode()
            raise InvalidInput(f"a source must not have {name!r}: {problem}")
        if len(tree) > _MAX_PATHS:
            raise InvalidInput(f"a source may have at most {_MAX_PATHS} files, directories and links")
        yield replace(entry, path=path, target=target)


def _tidied(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _bounded(chunks: Iterable[bytes], max_bytes: int, how: str) -> Iterator[bytes]:
    size_bytes = 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise TooLarge(f"the source is larger than {format_size(max_bytes)}{how} (--max-source-bytes)")
        yield chunk


def _hashed(chunks: Iterable[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
