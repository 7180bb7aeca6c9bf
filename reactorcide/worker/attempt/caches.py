"""The caches of one attempt: restored before its command runs, saved after that has succeeded."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from time import monotonic

from reactorcide.domain.caches import CacheSpec, Check, ExpectedCache, FoundCache
from reactorcide.domain.errors import InfrastructureError, JobFailed, JobInterrupted, StoreError, TooLarge
from reactorcide.domain.jobs import Job
from reactorcide.lib.clock import now_ms
from reactorcide.lib.globs import Globs
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import CHUNK_BYTES, END, DamagedTar, Entry, Tree, path_problem, read_tar, write_entry
from reactorcide.runner import ContainerGone, Runner
from reactorcide.worker.attempt.limits import Limits
from reactorcide.worker.attempt.patience import Patience
from reactorcide.worker.interrupt import Interrupt, Reason
from reactorcide.worker.port import WorkerPort

log = logging.getLogger("reactorcide.worker")

_MAX_HASHED_FILES = 100_000
_MAX_PATHS = 500_000
"""Of files, links and directories in one cache: they are remembered while it is read or written."""
_MAX_QUOTED_CHARS = 200

Say = Callable[[str], None]


class _NotCached(Exception):
    """A cache cannot be saved; the message says why, in a phrase."""


class Caches:
    """The caches that a job names. For one thread.

    Call order: ``load``, ``hashing`` around the source on its way into the container, ``restore``, and after
    the command ``save``; for an attempt of an earlier process ``save`` alone. Every problem of a cache is a
    line in the job's log, and never ends the job.
    """

    def __init__(
        self,
        port: WorkerPort,
        runner: Runner,
        job: Job,
        limits: Limits,
        interrupt: Interrupt,
        patiently: Patience,
    ) -> None:
        self._port = port
        self._runner = runner
        self._job = job
        self._limits = limits
        self._interrupt = interrupt
        self._patiently = patiently
        self._specs: tuple[CacheSpec, ...] = ()
        self._hashes: dict[str, _FileHash] = {}
        self._expected: list[ExpectedCache] | None = None
        """``None`` for an attempt of an earlier process, which has recorded its caches."""

    def load(self, say: Say) -> None:
        """Load the caches that the job names."""
        self._expected = []
        self._specs = self._port.caches(self._job)
        if self._specs and not self._limits.cache_bytes:
            say("no cache is restored or saved: they are turned off here (--max-cache-bytes 0)")
            self._specs = ()
        self._hashes = {glob: _FileHash(glob) for spec in self._specs for glob in spec.globs}

    @property
    def are_named(self) -> bool:
        """Return whether there are any to restore and save."""
        return bool(self._specs)

    def hashing(self, tar: Iterator[bytes]) -> Iterator[bytes]:
        """Pass on the tar of a source, and hash the files that the keys name."""
        return (
            _hashing(tar, self._job.definition.code_dir, list(self._hashes.values())) if self._hashes else tar
        )

    def restore(
        self, container_id: str, owner: Callable[[], tuple[int, int]], say: Say, check: Check
    ) -> None:
        """Copy the matching caches into the container, for its user.

        Raises what ``check`` raises, and ``InfrastructureError`` of the engine.
        """
        if not self._specs:
            return
        hashes = {glob: item.digest() for glob, item in self._hashes.items()}
        expected = []
        for spec in self._specs:
            key = spec.full_key(hashes)
            problems = [f"{glob} {problem}" for glob in spec.globs if (problem := self._hashes[glob].problem)]
            if problems:
                say(f"cache {'-'.join(spec.key)} is not used: {', '.join(problems)}")
                continue
            answer = self._port.find_cache(self._job, spec, key, check)
            for damaged in answer.damaged:
                say(f"cache {damaged} is damaged, so it is removed and not restored")
            cache = answer.cache
            if cache is None:
                say(f"cache {key} is not there yet")
            elif 0 < self._limits.max_disk_bytes < cache.size_bytes:
                say(f"cache {cache.key} is not restored: it is larger than the disk of a job (--max-disk)")
            else:
                self._put(container_id, spec.paths, cache, owner(), check)
                say(f"cache {cache.key} is restored ({format_size(cache.size_bytes)})")
            if cache is None or cache.key != key:
                expected.append(ExpectedCache(key, spec.paths))
        if expected and self._port.expect_caches(self._job, expected):
            self._expected = expected

    def save(self, container_id: str, say: Say) -> None:
        """Store the caches that were missing; raises ``JobInterrupted`` when the service stops."""
        if self._expected == [] or not self._limits.cache_bytes:
            return
        deadline = monotonic() + self._limits.collect_timeout_s

        def check() -> None:
            if self._interrupt.reason is Reason.STOPPING:
                raise JobInterrupted("stopping")
            if self._interrupt.reason is Reason.CANCELLED:
                raise _NotCached("the job was cancelled")
            if monotonic() >= deadline:
                limit = f"{self._limits.collect_timeout_s:g} s (--collect-timeout)"
                raise _NotCached(f"saving caches took longer than {limit}")

        try:
            for item in self._patiently(partial(self._port.expected_caches, self._job), StoreError):
                self._save(container_id, item, say, check)
        except InfrastructureError as exc:
            say(f"no cache is saved: {exc}")

    def _save(self, container_id: str, item: ExpectedCache, say: Say, check: Check) -> None:
        try:
            places = self._places(item.paths)
            there = {
                number: place
                for number, place in places.items()
                if self._runner.has_path(container_id, f"/{place}")
            }
            if not there:
                raise _NotCached("none of its paths is there")
            size_bytes = self._store(container_id, item, there, check)
        except (_NotCached, TooLarge, JobFailed, InfrastructureError) as exc:
            say(f"cache {item.key} is not saved: {exc}")
        except DamagedTar as exc:
            say(f"cache {item.key} is not saved: it could not be read from the Docker Engine: {exc}")
        except ContainerGone:
            say(f"cache {item.key} is not saved: the container is gone")
        else:
            # Another job of the run may have been faster.
            if size_bytes is not None:
                say(f"cache {item.key} is saved ({format_size(size_bytes)})")

    def _store(
        self, container_id: str, item: ExpectedCache, places: Mapping[str, str], check: Check
    ) -> int | None:
        """Store what is at the paths, again if the job database was away meanwhile."""
        while True:
            chunks = _joined(self._packed(container_id, places, check))
            try:
                return self._port.put_cache(self._job, item, chunks, max_bytes=self._limits.cache_bytes)
            except StoreError as exc:
                log.warning("trying again to save a cache: %s", exc, extra={"job_id": self._job.job_id})
            self._patiently.rest()
            # Not by copying it again and again.
            self._patiently(partial(self._port.expected_caches, self._job), StoreError)
            check()

    def _places(self, paths: Sequence[str]) -> dict[str, str]:
        """Return where a cache's paths are in the container, by their numbers, without the first slash.

        A path below another one is part of that.
        """
        places = {
            str(number): str(PurePosixPath(self._job.definition.job_dir, path)).strip("/")
            for number, path in enumerate(paths)
        }
        keys: dict[str, str] = {}
        for number, place in places.items():
            others = [other for other in places if places[other] != place or int(other) < int(number)]
            if not any((place + "/").startswith(places[other] + "/") for other in others):
                keys[number] = place
        return keys

    def _packed(self, container_id: str, places: Mapping[str, str], check: Check) -> Iterator[bytes]:
        """Yield the tar of a cache: what is at each path is below the path's number.

        The engine sends the holes of a file as zeros, so that a size alone may be too much to read.
        """
        size_bytes = 0
        for number, place in places.items():
            tar = self._runner.files(container_id, f"/{place}")
            if tar is None:
                continue
            with closing(tar):
                for entry in _within(_named(read_tar(_checked(tar, check)), number), {number: place}):
                    size_bytes += entry.size_bytes
                    self._check_size(size_bytes)
                    yield from write_entry(entry, entry.path)
        yield END

    def _check_size(self, size_bytes: int) -> None:
        """Raise ``TooLarge`` for the files of a cache that could not be stored, or never be restored."""
        if size_bytes > self._limits.cache_bytes:
            raise TooLarge(f"it is larger than {format_size(self._limits.cache_bytes)} (--max-cache-bytes)")
        if 0 < self._limits.max_disk_bytes < size_bytes:
            raise TooLarge("it is larger than the disk of a job (--max-disk)")

    def _put(
        self,
        container_id: str,
        paths: Sequence[str],
        cache: FoundCache,
        owner: tuple[int, int],
        check: Check,
    ) -> None:
        places = self._places(paths)
        uid, gid = owner

        def placed(path: str) -> str:
            number, _, rest = path.partition("/")
            return f"{places[number]}/{rest}".rstrip("/")

        # The engine would make them, too, but for root. It answers no question while it takes a tar.
        missing = self._missing_above(container_id, places.values())

        def tar() -> Iterator[bytes]:
            for above in missing:
                directory = Entry(path=above, kind="directory", mode=0o755, modified_s=now_ms() // 1000)
                yield from write_entry(directory, above, uid=uid, gid=gid)
            for entry in _within(read_tar(_checked(cache.chunks, check)), places):
                target = placed(entry.target) if entry.kind == "hardlink" else entry.target
                yield from write_entry(entry, placed(entry.path), uid=uid, gid=gid, target=target)
            yield END

        try:
            self._runner.put(container_id, _joined(tar()))
        except (_NotCached, DamagedTar) as exc:
            # Part of it is in the container, so another one is made, which finds no such cache.
            self._port.drop_cache(self._job, cache.cache_id)
            raise InfrastructureError(f"the cache {cache.key} is removed: {exc}") from exc

    def _missing_above(self, container_id: str, places: Iterable[str]) -> list[str]:
        """Return the directories above the paths that the container has not, each after those above it."""
        missing = set()
        for place in places:
            for above in PurePosixPath(place).parents:
                path = str(above)
                if path == "." or path in missing or self._runner.has_path(container_id, f"/{path}"):
                    break
                missing.add(path)
        return sorted(missing)


def _named(entries: Iterable[Entry], number: str) -> Iterator[Entry]:
    """Yield the entries of a path's tar, which the engine has named after the last part of the path."""
    for entry in entries:
        if entry.kind == "other":
            # A socket or a FIFO of a program that has ended.
            continue
        target = _renamed(entry.target, number) if entry.kind == "hardlink" else entry.target
        yield replace(entry, path=_renamed(entry.path, number), target=target)


def _renamed(path: str, number: str) -> str:
    rest = path.partition("/")[2]
    return f"{number}/{rest}" if rest else number


def _within(entries: Iterable[Entry], places: Mapping[str, str]) -> Iterator[Entry]:
    """Yield the entries of a cache; raises ``_NotCached`` for one that leads out of its paths.

    ``places`` are where those are in the container, by their numbers.
    """
    tree = Tree()
    for entry in entries:
        top, slash, rest = entry.path.partition("/")
        problem = path_problem(entry.path) or tree.problem(entry.path, entry.kind)
        if problem is None and top not in places:
            problem = "its path leads out"
        elif problem is None and entry.kind == "other":
            problem = "it is neither a file nor a directory nor a link"
        elif problem is None and not slash and entry.kind not in ("file", "directory"):
            problem = "the path itself is a link"
        elif problem is None and entry.kind == "hardlink" and not tree.has_file(entry.target):
            problem = "it is a hard link to a path that is not a file before it"
        if problem is not None:
            path = f"/{places[top]}{slash}{rest}" if top in places else entry.path
            name = path[:_MAX_QUOTED_CHARS].encode(errors="replace").decode()
            raise _NotCached(f"{name!r}: {problem}")
        if len(tree) > _MAX_PATHS:
            raise _NotCached(f"it has more than {_MAX_PATHS} files, directories and links")
        yield entry


def _checked(chunks: Iterable[bytes], check: Check) -> Iterator[bytes]:
    for chunk in chunks:
        check()
        yield chunk


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in larger pieces: each may become a call of the system."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        if len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _hashing(tar: Iterator[bytes], code_dir: str, hashes: Sequence["_FileHash"]) -> Iterator[bytes]:
    """Yield a tar as it is, and hash its files below ``code_dir`` on the way."""
    below = "/".join(PurePosixPath(code_dir).parts[1:]) + "/"
    passing: list[bytes] = []

    def read() -> Iterator[bytes]:
        # An empty piece would be taken for the end.
        for piece in filter(None, tar):
            passing.append(piece)
            yield piece

    def passed() -> Iterator[bytes]:
        yield from passing
        passing.clear()

    for entry in read_tar(read()):
        path = entry.path.removeprefix(below) if entry.path.startswith(below) else None
        matching = [
            item for item in hashes if path is not None and entry.kind == "file" and item.matches(path)
        ]
        digest = hashlib.sha256()
        for chunk in entry.chunks:
            if matching:
                digest.update(chunk)
            yield from passed()
        for item in matching:
            item.add(path or "", digest.digest())
        yield from passed()
    yield from passed()
    yield from tar


class _FileHash:
    """The hash of those files of a source that a glob names."""

    def __init__(self, glob: str) -> None:
        self._globs = Globs([glob])
        self._digests: list[bytes] = []

    @property
    def problem(self) -> str | None:
        """What is wrong with the hash, in a phrase, if anything is."""
        if not self._digests:
            return "matches no file of the source"
        if len(self._digests) > _MAX_HASHED_FILES:
            return f"matches more than {_MAX_HASHED_FILES} files of the source"
        return None

    def matches(self, path: str) -> bool:
        """Return whether a file is to be hashed. Nothing of git's own is: that differs each time."""
        return path.partition("/")[0] != ".git" and self._globs.match(path)

    def add(self, path: str, digest: bytes) -> None:
        """Add a file."""
        if len(self._digests) <= _MAX_HASHED_FILES:
            name = path.encode(errors="surrogateescape")
            self._digests.append(hashlib.sha256(len(name).to_bytes(4) + name + digest).digest())

    def digest(self) -> str:
        """Return the hash, which is the same in whatever order the files came."""
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()
