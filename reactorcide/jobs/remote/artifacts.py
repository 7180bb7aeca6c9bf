"""How much the attempts of workers on other machines store, and under which paths."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reactorcide.domain.artifacts import Artifact
from reactorcide.domain.errors import InvalidInput, TooLarge
from reactorcide.domain.jobs import artifacts_prefix
from reactorcide.domain.workers import Key, LeasedAttempt
from reactorcide.lib.sizes import format_size
from reactorcide.lib.tar import Tree
from reactorcide.objects import ObjectStore

_MAX_STORED = 4


@dataclass(slots=True)
class _Stored:
    """What an attempt has stored."""

    files: int = 0
    size_bytes: int = 0
    tree: Tree = field(default_factory=Tree)


class StoredArtifacts:
    """Counts the artifacts of attempts, uploads and copies alike. Thread-safe.

    A worker keeps to the limits itself. After an interruption it stores everything again, so that an attempt
    may store a multiple of them. What another service has stored counts, as far as it was there when this one
    stored the first artifact.
    """

    def __init__(self, objects: ObjectStore, limits: Mapping[str, float]) -> None:
        """``limits`` has ``max_artifacts`` and ``max_artifact_bytes``."""
        self._objects = objects
        self._max_files = int(limits["max_artifacts"])
        self._max_bytes = int(limits["max_artifact_bytes"])
        self._lock = threading.Lock()
        self._stored: dict[Key, _Stored] = {}

    def begin(self, leased: LeasedAttempt, path: str) -> str:
        """Count an artifact that an attempt begins to store, and return its object key.

        Raises ``InvalidInput`` for a path that is not valid, or above or below that of a stored artifact, and
        ``TooLarge``.
        """
        stored = self._of(leased)
        with self._lock:
            problem = None if stored.tree.has_file(path) else stored.tree.problem(path, "file")
            if problem is not None:
                raise InvalidInput(f"the artifact is refused: {problem}", "path")
            if stored.files >= _MAX_STORED * self._max_files:
                raise TooLarge(f"there are more than {self._max_files} (--max-artifacts), many times over")
            stored.files += 1
        return artifacts_prefix(*leased.key) + path

    def count(self, leased: LeasedAttempt, size_bytes: int) -> None:
        """Count bytes of an artifact; raises ``TooLarge``."""
        stored = self._of(leased)
        with self._lock:
            if stored.size_bytes + size_bytes > _MAX_STORED * self._max_bytes:
                raise TooLarge(
                    f"together they are larger than {format_size(self._max_bytes)} (--max-artifact-bytes), "
                    "many times over"
                )
            stored.size_bytes += size_bytes

    def check(self, leased: LeasedAttempt, listing: Sequence[Artifact]) -> None:
        """Raise ``InvalidInput`` unless each listed artifact is stored, and of the size that is listed."""
        prefix = artifacts_prefix(*leased.key)
        sizes = {item.key.removeprefix(prefix): item.size_bytes for item in self._objects.list(prefix)}
        for item in listing:
            stored = sizes.get(item.path)
            if stored != item.size:
                problem = "is not stored" if stored is None else f"has {stored} bytes, not {item.size}"
                raise InvalidInput(f"artifacts: {item.path[:100]!r} {problem}", "artifacts")

    def drop(self, leased: LeasedAttempt) -> None:
        """Remove all artifacts of an attempt."""
        self._objects.delete(artifacts_prefix(*leased.key))
        self.forget(leased.key)

    def forget(self, key: Key) -> None:
        """Forget the count of an attempt that has ended; safe to repeat."""
        with self._lock:
            self._stored.pop(key, None)

    def keys(self) -> list[Key]:
        """Return the attempts that have stored something."""
        with self._lock:
            return list(self._stored)

    def _of(self, leased: LeasedAttempt) -> _Stored:
        with self._lock:
            found = self._stored.get(leased.key)
        if found is not None:
            return found
        stored = _Stored()
        prefix = artifacts_prefix(*leased.key)
        for item in self._objects.list(prefix):
            stored.files += 1
            stored.size_bytes += item.size_bytes
            stored.tree.problem(item.key.removeprefix(prefix), "file")
        with self._lock:
            # Another thread may have been faster.
            return self._stored.setdefault(leased.key, stored)
