"""Caches: files that a job of a run stores for later runs of the same repository.

All times are Unix milliseconds in UTC.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from reactorcide.lib.records import record

MAX_KEY_BYTES = 1024
"""Maximum size of a key, with the hashes in it."""
MAX_CACHES = 1000
"""Maximum number of caches of one project, or of the runs of no project of one user."""
FILE_PREFIX = "file:"
"""Prefix of a part of a key that stands for a hash of files."""
HASH_DIGITS = 64
_JOINT = "-"


@record
class CacheSpec:
    """A cache that a job names."""

    key: tuple[str, ...]
    """Texts, and ``file:GLOB`` for a hash of files of the source."""
    paths: tuple[str, ...]
    """Absolute, or relative to where the job's command runs."""
    restore_keys: tuple[str, ...] = ()
    """Prefixes of other keys, tried in turn."""

    @property
    def globs(self) -> tuple[str, ...]:
        """The globs of the files whose hashes are in the key."""
        return tuple(part.removeprefix(FILE_PREFIX) for part in self.key if part.startswith(FILE_PREFIX))

    def full_key(self, hashes: Mapping[str, str]) -> str:
        """Return the whole key; ``hashes`` has the hash of each glob."""
        return _JOINT.join(
            hashes[part.removeprefix(FILE_PREFIX)] if part.startswith(FILE_PREFIX) else part
            for part in self.key
        )


@record
class CacheScope:
    """Which caches of its project, or else of its user, the jobs of a run may use."""

    repository: str
    branches: tuple[str, ...]
    """The branches whose caches are read, in this order; the run writes those of the first, its own."""
    is_writable: bool = True
    """False for a pull request of a fork, whose files are not trusted."""


@record(kw_only=True)
class Cache:
    """A cache that is stored. It never changes."""

    cache_id: str
    owner_id: str
    """The project, or for a run of none its user."""
    project_id: str | None
    user_id: str
    """The user whose job stored it."""
    repository: str
    branch: str
    key: str
    paths: tuple[str, ...]
    """As written in the job."""
    size_bytes: int
    crc32: int
    """SHA-256 of its tar, to detect damage."""
    job_id: str
    """The job that stored it."""
    created_at_ms: int
    last_used_at_ms: int

    @property
    def object_key(self) -> str:
        """See ``object_key``."""
        return object_key(self.cache_id)


@record
class ExpectedCache:
    """A cache to be saved once the command has succeeded."""

    key: str
    paths: tuple[str, ...]


@record
class FoundCache:
    """A cache to be restored."""

    cache_id: str
    key: str
    size_bytes: int
    chunks: Iterator[bytes]
    """The bytes of its tar."""


@record
class CacheAnswer:
    """The result of looking up a cache that a job names."""

    cache: FoundCache | None
    damaged: tuple[str, ...] = ()
    """The keys of matching caches that were damaged and are removed."""


Check = Callable[[], None]
"""A function that raises to interrupt."""

PREFIX = "caches/"
"""The object key prefix of all caches."""


def cache_prefix(cache_id: str) -> str:
    """Return the object key prefix, with its final slash, of a cache."""
    return f"{PREFIX}{cache_id}/"


def object_key(cache_id: str) -> str:
    """Return the key of a cache's object, a tar: each entry is below the number of its path in ``paths``."""
    return cache_prefix(cache_id) + "tar"


def branch_of(event: Mapping[str, str]) -> str:
    """Return the name of the branch or tag under which runs for an event store their caches."""
    # No branch has a colon in its name.
    return f"tag:{event['tag']}" if event.get("tag") else event.get("branch", "")


def scope_of(
    event: Mapping[str, str], *, repository: str, default_branch: str | None, is_fork: bool
) -> CacheScope:
    """Return which caches the jobs of a run for an event may use.

    They read those of the run's own branch, of the base of its pull request and of the default branch.
    """
    own = branch_of(event)
    # The branch of a fork can have the same name as one of the repository, but is another branch.
    branches = [f"fork:{own}" if is_fork else own, event.get("base_branch"), default_branch]
    return CacheScope(
        repository,
        tuple(dict.fromkeys(branch for branch in branches if branch is not None)),
        is_writable=not is_fork,
    )


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits: keys may be longer than an address."""
    return hashlib.sha256(key.encode()).hexdigest()
