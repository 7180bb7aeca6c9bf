"""Keeping what a job left in its artifacts directory."""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic

from reactorcide import crashpoints
from reactorcide.domain.errors import EngineUnavailable, JobInterrupted, ReactorcideError
from reactorcide.domain.jobs import ARTIFACTS_DIR, Job, artifacts_prefix
from reactorcide.jobs import JobContext
from reactorcide.jobs.read import MAX_LISTING_BYTES, Artifact, listed_bytes, save_artifact_listing
from reactorcide.lib.globs import Globs
from reactorcide.lib.sizes import MIN_FILE_BYTES, format_size
from reactorcide.lib.tar import DamagedTar, Entry, Tree, path_problem, read_tar
from reactorcide.logs.writer import LogWriter
from reactorcide.worker.attempt.container import Container
from reactorcide.worker.attempt.limits import Limits
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.interrupt import Interrupt, Reason

log = logging.getLogger("reactorcide.worker")

_MOST_TRIES = 5
"""With an engine that answers; one that is away is waited for."""

_MOST_SAID = 20
"""Files that are named in the log because they are not kept; of more only their number is said."""
_MOST_SHOWN_CHARS = 200


class CollectingEnded(ReactorcideError):
    """Collecting has to end now; the message says why. What is stored by then is kept."""


def collect(
    context: JobContext,
    job: Job,
    container: Container,
    log_writer: LogWriter,
    limits: Limits,
    interrupt: Interrupt,
    patiently: Patience,
) -> str | None:
    """Store what a command has left, as ``store_artifacts``, and wait for an engine that goes away meanwhile.

    Raises ``JobInterrupted`` when the service stops meanwhile: the next start collects all anew.
    """
    if interrupt.reason is Reason.CANCELLED:
        # Nobody is shown any of a job that was cancelled.
        return None
    deadline = monotonic() + limits.collect_timeout_s

    def check() -> None:
        if interrupt.reason is Reason.STOPPING:
            raise JobInterrupted("stopping")
        if interrupt.reason is Reason.CANCELLED:
            raise CollectingEnded("the job was cancelled")
        if monotonic() >= deadline:
            limit_s = limits.collect_timeout_s
            raise CollectingEnded(f"collecting them took longer than {limit_s:g} s (--collect-timeout)")

    tries = 0
    while True:
        try:
            return store_artifacts(
                context,
                job,
                container.artifacts,
                log_writer,
                most_bytes=limits.artifact_bytes,
                most_files=limits.artifacts,
                check=check,
            )
        except EngineUnavailable as exc:
            tries += 1
            if tries == _MOST_TRIES:
                raise
            extra = {"job_id": job.job_id, "attempt": job.attempt}
            log.warning("trying again to read the artifacts: %s", exc, extra=extra)
            patiently.rest()
            patiently(container.check_engine)


def store_artifacts(
    context: JobContext,
    job: Job,
    open_tar: Callable[[], Generator[bytes, None, None] | None],
    log: LogWriter,
    *,
    most_bytes: int,
    most_files: int,
    check: Callable[[], None],
) -> str | None:
    """Store the files of a tar of the artifacts directory; returns their object key prefix.

    ``open_tar`` returns the tar, or ``None`` where nothing was left. It is called again where a hard link is
    wanted, and the name that came before it in the tar, with the content, was not.

    Streamed: memory does not grow with the files. Only regular files are kept, under each of their names that
    the job's globs name; what else is met is named in the job's log. The first file that there is no room for
    under one of the bounds ends it: the log says so, and so does the listing. ``check`` is called for every
    member and piece: ``CollectingEnded`` from it ends it like a bound, all else that it raises passes
    through. Returns ``None`` when there was no file. Raises ``InfrastructureError``.
    """
    collection = _Collection(context, job, log, most_bytes, most_files)
    try:
        tar = open_tar()
        if tar is None:
            return None
        with closing(tar):
            collection.take(_entries(tar, check))
        if collection.awaited and (tar := open_tar()) is not None:
            with closing(tar):
                collection.take_awaited(_entries(tar, check))
    except _Full as exc:
        collection.end(str(exc))
    except CollectingEnded as exc:
        collection.end(f"what comes after {_shown(collection.last)} is not kept: {exc}")
    except DamagedTar as exc:
        raise EngineUnavailable(f"the artifacts could not be read from the Docker Engine: {exc}") from exc
    return collection.save()


class _Full(Exception):
    """There is no room for another file; the message says it."""


@dataclass(frozen=True, slots=True)
class _Link:
    """A name that is to be kept of a file whose content comes under another one."""

    path: str
    mode: int


class _Collection:
    """What is kept of one artifacts directory."""

    def __init__(
        self, context: JobContext, job: Job, log: LogWriter, most_bytes: int, most_files: int
    ) -> None:
        self._context = context
        self._job = job
        self._log = log
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._prefix = artifacts_prefix(job.job_id, job.attempt)
        globs = job.definition.artifacts
        self._wanted = None if globs is None else Globs(globs)
        self._tree = Tree()
        self._kept: dict[str, Artifact] = {}
        self._left_bytes = most_bytes
        self._left_listing_bytes = MAX_LISTING_BYTES
        self._unwanted = self._not_kept = 0
        self._truncated = False
        self.awaited: dict[str, list[_Link]] = {}
        """Hard links that are to be kept, by the path under which their content came before."""
        self._links = 0
        self.last = ""
        """The path of the last file that was looked at."""

    def take(self, entries: Iterable[Entry]) -> None:
        """Keep what is wanted; raises ``_Full``."""
        for entry in entries:
            # The first part of each name is that of the directory itself.
            path = entry.path.partition("/")[2]
            if entry.kind == "directory":
                continue
            self.last = path
            problem = path_problem(path)
            if problem is None and self._wanted is not None and not self._wanted.match(path):
                self._unwanted += 1
                continue
            known = len(self._tree)
            problem = problem or _problem(entry, path) or self._tree.problem(path, "file")
            if problem is None:
                # The directories above it that no file before it has.
                self._take_room(path, (len(self._tree) - known - 1) * MIN_FILE_BYTES)
            if problem is not None:
                self._say_not_kept(path, problem)
            elif entry.kind == "file":
                self._keep(path, entry)
            elif (target := entry.target.partition("/")[2]) in self._kept:
                self._keep_again(_Link(path, entry.mode), self._kept[target])
            else:
                self._check_number(path)
                self.awaited.setdefault(target, []).append(_Link(path, entry.mode))
                self._links += 1

    def take_awaited(self, entries: Iterable[Entry]) -> None:
        """Keep the hard links that wait for their content; raises ``_Full``."""
        awaited, self.awaited, self._links = self.awaited, {}, 0
        for entry in entries:
            links = awaited.pop(entry.path.partition("/")[2], [])
            if entry.kind != "file":
                for link in links:
                    self._say_not_kept(link.path, "it is a hard link to what is not a regular file")
                continue
            first = None
            for link in links:
                self.last = link.path
                if first is None:
                    first = self._keep(link.path, replace(entry, mode=link.mode))
                else:
                    self._keep_again(link, first)
            if not awaited:
                return
        for links in awaited.values():
            for link in links:
                self._say_not_kept(link.path, "it is a hard link to what is not there")

    def end(self, sentence: str) -> None:
        """Say that not all is kept."""
        self._log.say(sentence)
        self._truncated = True

    def save(self) -> str | None:
        """Write down what is kept; returns its key prefix, or ``None`` where there was nothing."""
        if self._not_kept > _MOST_SAID:
            self._log.say(f"{self._not_kept - _MOST_SAID} more files are not kept")
        if not self._kept and not self._truncated:
            if self._unwanted:
                self._log.say(
                    f"no artifact is kept: no file in {ARTIFACTS_DIR} matches what the job's artifacts name"
                )
            return None
        save_artifact_listing(self._context, self._job, list(self._kept.values()), truncated=self._truncated)
        return self._prefix

    def _keep_again(self, link: _Link, kept: Artifact) -> None:
        chunks = self._context.objects.read(self._prefix + kept.path)
        again = Entry(path=link.path, kind="file", mode=link.mode, size_bytes=kept.size, chunks=chunks)
        self._keep(link.path, again)

    def _keep(self, path: str, entry: Entry) -> Artifact:
        self._check_number(path)
        self._take_room(path, max(MIN_FILE_BYTES, entry.size_bytes))
        is_executable = bool(entry.mode & 0o100)
        kept = Artifact(path, entry.size_bytes, "0" * 64, is_executable=is_executable)
        self._left_listing_bytes -= listed_bytes(kept)
        if self._left_listing_bytes < 0:
            raise _full(path, f"their list is longer than {format_size(MAX_LISTING_BYTES)}")
        digest = hashlib.sha256()
        size_bytes = self._context.objects.put(self._prefix + path, _hashed(entry.chunks, digest))
        crashpoints.reached("artifact-stored")
        self._kept[path] = kept = replace(kept, size=size_bytes, sha256=digest.hexdigest())
        return kept

    def _take_room(self, path: str, size_bytes: int) -> None:
        if size_bytes > self._left_bytes:
            bound = format_size(self._most_bytes)
            raise _full(path, f"together they are larger than {bound} (--max-artifact-bytes)")
        self._left_bytes -= size_bytes

    def _check_number(self, path: str) -> None:
        if len(self._kept) + self._links >= self._most_files:
            raise _full(path, f"there are more than {self._most_files} (--max-artifacts)")

    def _say_not_kept(self, path: str, problem: str) -> None:
        self._not_kept += 1
        if self._not_kept <= _MOST_SAID:
            self._log.say(f"artifact {_shown(path)} is not kept: {problem}")


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
    return _Full(f"artifact {_shown(path)} and all after it are not kept: {why}")


def _problem(entry: Entry, path: str) -> str | None:
    if entry.kind not in ("file", "hardlink"):
        return "it is not a regular file"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _shown(path: str) -> str:
    cut = "…" if len(path) > _MOST_SHOWN_CHARS else ""
    return repr(path[:_MOST_SHOWN_CHARS].encode(errors="replace").decode() + cut)


def _hashed(chunks: Iterable[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
