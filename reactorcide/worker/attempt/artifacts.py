"""Storing the artifacts of a job."""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.artifacts import MAX_LISTING_BYTES, Artifact
from reactorcide.domain.errors import (
    EngineUnavailable,
    InvalidInput,
    JobInterrupted,
    LogUnavailable,
    ObjectStoreError,
    ReactorcideError,
    TooLarge,
)
from reactorcide.domain.jobs import ARTIFACTS_DIR, Job
from reactorcide.domain.secrets import secrets_of
from reactorcide.lib.globs import Globs
from reactorcide.lib.records import record
from reactorcide.lib.sizes import MIN_FILE_BYTES, format_size
from reactorcide.lib.tar import DamagedTar, Entry, Tree, path_problem, read_tar
from reactorcide.logs.writer import LogWriter
from reactorcide.worker.attempt.container import Container
from reactorcide.worker.attempt.limits import Limits
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.attempt.reports import Reports
from reactorcide.worker.interrupt import Interrupt, Reason
from reactorcide.worker.port import WorkerPort

log = logging.getLogger("reactorcide.worker")

_MAX_TRIES = 5
"""Tries with a reachable engine; an unreachable one is waited for."""

_STORE_RETRY_S = 5.0
"""Minimum pause after a try; each try reads and writes all files again."""

_MAX_NAMED = 20
"""Maximum number of skipped files that the log names; the others are counted."""
_MAX_QUOTED_CHARS = 200
_TOO_LONG = "its path is too long for the object store"


class CollectingEnded(ReactorcideError):
    """Collecting must end now; the message says why. Files that are stored already stay."""


def collect(
    port: WorkerPort,
    job: Job,
    container: Container,
    log_writer: LogWriter,
    limits: Limits,
    interrupt: Interrupt,
    patiently: Patience,
) -> str | None:
    """Store a command's artifacts with ``store_artifacts``, and wait for an unreachable engine or store.

    A full or unreachable store is retried until collecting has taken too long; then ``ObjectStoreError`` is
    raised, and no artifact is stored. Raises ``JobInterrupted`` when the service stops meanwhile: the next
    start collects everything again.
    """
    deadline = monotonic() + limits.collect_timeout_s
    too_long = f"collecting them took longer than {limits.collect_timeout_s:g} s (--collect-timeout)"
    reported: set[str] = set()

    def is_cancelled() -> bool:
        return interrupt.reason is Reason.CANCELLED

    def check() -> None:
        if interrupt.reason is Reason.STOPPING:
            raise JobInterrupted("stopping")
        if is_cancelled():
            raise CollectingEnded("the job was cancelled")
        if monotonic() >= deadline:
            raise CollectingEnded(too_long)

    def say(sentence: str) -> None:
        nonlocal deadline
        # Each try sees the same files, so the log names them once.
        if sentence not in reported:
            began_at = monotonic()
            patiently(partial(log_writer.say, sentence), LogUnavailable)
            reported.add(sentence)
            # Waiting for the job database is not collecting.
            deadline += monotonic() - began_at

    extra = {"job_id": job.job_id, "attempt": job.attempt}
    engine_tries = 0
    while not is_cancelled():
        began_at = monotonic()
        try:
            return store_artifacts(
                port,
                job,
                container.artifacts,
                say,
                max_bytes=limits.artifact_bytes,
                max_files=limits.artifacts,
                check=check,
            )
        except ObjectStoreError as exc:
            log.warning("trying again to store the artifacts: %s", exc, extra=extra)
            # Free the space for other jobs and for the next try, which writes each file beside the one it
            # replaces.
            with suppress(ObjectStoreError):
                port.drop_artifacts(job)
            if is_cancelled():
                break
            now = monotonic()
            # As long as the try took, so that tries take at most half of the time.
            patiently.rest(max(0.0, min(deadline - now, max(_STORE_RETRY_S, now - began_at))))
            if monotonic() >= deadline:
                raise ObjectStoreError(f"{too_long}; {exc}") from exc
        except EngineUnavailable as exc:
            engine_tries += 1
            if engine_tries == _MAX_TRIES:
                raise
            log.warning("trying again to read the artifacts: %s", exc, extra=extra)
            patiently.rest()
            patiently(container.check_engine)
    # Artifacts of a cancelled job are not visible.
    return None


def store_artifacts(
    port: WorkerPort,
    job: Job,
    open_tar: Callable[[], Generator[bytes, None, None] | None],
    say: Callable[[str], None],
    *,
    max_bytes: int,
    max_files: int,
    check: Callable[[], None],
) -> str | None:
    """Store the files of a tar of the artifacts directory; returns their object key prefix.

    ``open_tar`` returns the tar, or ``None`` if there is nothing. It is called again if a hard link matches
    and its earlier name in the tar, with the content, does not.

    Streamed: memory does not grow with the files. Only regular files are stored, under each of their names
    that matches the job's globs; other entries are named in the job's log, by ``say``. The first file above a
    limit ends it, which the log and the listing show. ``check`` is called for every member and piece:
    ``CollectingEnded`` from it ends it like a bound, all else that it raises passes through. Returns ``None``
    when there was no file. Raises ``InfrastructureError``; what is stored by then is not listed.
    """
    collection = _Collection(port, job, say, max_bytes, max_files)
    try:
        tar = open_tar()
        if tar is None:
            return None
        with closing(tar):
            collection.take(_entries(tar, check))
            # To its very end, where the runner says if somebody was removing the files meanwhile.
            for _ in tar:
                check()
        if collection.awaited and (tar := open_tar()) is not None:
            with closing(tar):
                collection.take_awaited(_entries(tar, check))
    except _Full as exc:
        collection.end(str(exc))
    except CollectingEnded as exc:
        rest = f"what comes after {_quoted(collection.last)}" if collection.last else "what the job left"
        collection.end(f"{rest} is not stored: {exc}")
    except DamagedTar as exc:
        raise EngineUnavailable(f"the artifacts could not be read from the Docker Engine: {exc}") from exc
    return collection.save()


class _Full(Exception):
    """A limit does not allow another file; the message names it."""


@record
class _Link:
    """A hard link to store; its content is under another name."""

    path: str
    mode: int


class _Collection:
    """The stored files of one artifacts directory."""

    def __init__(
        self, port: WorkerPort, job: Job, say: Callable[[str], None], max_bytes: int, max_files: int
    ) -> None:
        self._port = port
        self._job = job
        self._say = say
        self._max_bytes = max_bytes
        self._max_files = max_files
        globs = job.definition.artifacts
        self._globs = None if globs is None else Globs(globs)
        self._reports = Reports(secrets_of(job.definition))
        self._tree = Tree()
        self._artifacts: dict[str, Artifact] = {}
        self._remaining_bytes = max_bytes
        self._remaining_listing_bytes = MAX_LISTING_BYTES
        self._unmatched = self._skipped = 0
        self._truncated = False
        self.awaited: dict[str, list[_Link]] = {}
        """Hard links to store, by the earlier path of their content."""
        self._links = 0
        self.last = ""
        """The path of the last file that was examined."""

    def take(self, entries: Iterable[Entry]) -> None:
        """Store the member if it matches; raises ``_Full``."""
        for entry in entries:
            # The first part of each name is that of the directory itself.
            path = entry.path.partition("/")[2]
            if entry.kind == "directory":
                continue
            self.last = path
            problem = path_problem(path)
            if problem is None and self._globs is not None and not self._globs.match(path):
                self._unmatched += 1
                continue
            before = len(self._tree)
            problem = problem or _problem(entry, path) or self._tree.problem(path, "file")
            if problem is None:
                # Its parent directories that no earlier file has.
                self._take_room(path, (len(self._tree) - before - 1) * MIN_FILE_BYTES)
            if problem is not None:
                self._skip(path, problem)
            elif entry.kind == "file":
                self._store(path, entry)
            elif (target := entry.target.partition("/")[2]) in self._artifacts:
                self._store_copy(_Link(path, entry.mode), self._artifacts[target])
            else:
                self._check_number(path)
                self.awaited.setdefault(target, []).append(_Link(path, entry.mode))
                self._links += 1

    def take_awaited(self, entries: Iterable[Entry]) -> None:
        """Store the hard links that wait for their content; raises ``_Full``."""
        awaited, self.awaited, self._links = self.awaited, {}, 0
        for entry in entries:
            links = awaited.pop(entry.path.partition("/")[2], [])
            if entry.kind != "file":
                for link in links:
                    self._skip(link.path, "it is a hard link to something that is not a regular file")
                continue
            first = None
            for link in links:
                self.last = link.path
                if first is None:
                    first = self._store(link.path, replace(entry, mode=link.mode))
                else:
                    self._store_copy(link, first)
            if not awaited:
                return
        for links in awaited.values():
            for link in links:
                self._skip(link.path, "it is a hard link to a missing file")

    def end(self, sentence: str) -> None:
        """Log that not everything is stored, and mark the listing as truncated."""
        self._say(sentence)
        self._truncated = True

    def save(self) -> str | None:
        """Store the listing; returns the key prefix of the files, or ``None`` if there are none."""
        if self._skipped > _MAX_NAMED:
            self._say(f"{self._skipped - _MAX_NAMED} more files are not stored")
        if not self._artifacts and not self._truncated:
            if self._unmatched:
                self._say(
                    f"no artifact is stored: no file in {ARTIFACTS_DIR} matches what the job's artifacts name"
                )
            return None
        report = self._reports.report()
        if report is not None:
            self._port.put_report(self._job, report)
        return self._port.list_artifacts(self._job, list(self._artifacts.values()), truncated=self._truncated)

    def _store(self, path: str, entry: Entry) -> Artifact | None:
        """Store a file; returns ``None`` if its name is invalid in the object store."""
        artifact = self._with_room(path, entry.size_bytes, entry.mode)
        digest = hashlib.sha256()
        content, max_read_bytes = bytearray(), self._reports.max_read_bytes(path, entry.size_bytes)
        chunks = _read(entry.chunks, digest, content, max_read_bytes)
        try:
            size_bytes = self._port.put_artifact(self._job, path, chunks)
        except InvalidInput:
            self._skip(path, _TOO_LONG)
            return None
        except TooLarge as exc:
            # The service's own limit is lower since it was restarted.
            raise _full(path, str(exc)) from exc
        if max_read_bytes:
            self._reports.add(path, bytes(content))
        return self._add(replace(artifact, size=size_bytes, sha256=digest.hexdigest()))

    def _store_copy(self, link: _Link, stored: Artifact) -> None:
        artifact = self._with_room(link.path, stored.size, link.mode)
        try:
            self._port.copy_artifact(self._job, stored.path, link.path)
        except InvalidInput:
            self._skip(link.path, _TOO_LONG)
            return
        except TooLarge as exc:
            raise _full(link.path, str(exc)) from exc
        self._add(replace(artifact, sha256=stored.sha256))

    def _with_room(self, path: str, size_bytes: int, mode: int) -> Artifact:
        """Return the entry of a file before it is stored; raises ``_Full`` above a limit."""
        self._check_number(path)
        self._take_room(path, max(MIN_FILE_BYTES, size_bytes))
        artifact = Artifact(path, size_bytes, "0" * 64, is_executable=bool(mode & 0o100))
        self._remaining_listing_bytes -= artifact.listed_bytes()
        if self._remaining_listing_bytes < 0:
            raise _full(path, f"their list is longer than {format_size(MAX_LISTING_BYTES)}")
        return artifact

    def _add(self, artifact: Artifact) -> Artifact:
        crashpoints.reached("artifact-stored")
        self._artifacts[artifact.path] = artifact
        return artifact

    def _take_room(self, path: str, size_bytes: int) -> None:
        if size_bytes > self._remaining_bytes:
            bound = format_size(self._max_bytes)
            raise _full(path, f"together they are larger than {bound} (--max-artifact-bytes)")
        self._remaining_bytes -= size_bytes

    def _check_number(self, path: str) -> None:
        if len(self._artifacts) + self._links >= self._max_files:
            raise _full(path, f"there are more than {self._max_files} (--max-artifacts)")

    def _skip(self, path: str, problem: str) -> None:
        self._skipped += 1
        if self._skipped <= _MAX_NAMED:
            self._say(f"artifact {_quoted(path)} is not stored: {problem}")


def _entries(tar: Iterator[bytes], check: Callable[[], None]) -> Iterator[Entry]:
    def checked() -> Iterator[bytes]:
        for chunk in tar:
            check()
            yield chunk

    for entry in read_tar(checked()):
        # One chunk may hold hundreds.
        check()
        yield entry


def _full(path: str, why: str) -> _Full:
    return _Full(f"artifact {_quoted(path)} and all after it are not stored: {why}")


def _problem(entry: Entry, path: str) -> str | None:
    if entry.kind not in ("file", "hardlink"):
        return "it is not a regular file"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _quoted(path: str) -> str:
    cut = "…" if len(path) > _MAX_QUOTED_CHARS else ""
    return repr(path[:_MAX_QUOTED_CHARS].encode(errors="replace").decode() + cut)


def _read(
    chunks: Iterable[bytes], digest: "hashlib._Hash", content: bytearray, max_read_bytes: int
) -> Iterator[bytes]:
    """Yield the bytes of a file; its digest is updated, and ``content`` gets the first ``max_read_bytes``."""
    for chunk in chunks:
        digest.update(chunk)
        content += chunk[: max_read_bytes - len(content)]
        yield chunk
