"""Objects in memory, for tests: the protocol, and no more."""

import itertools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from reactorcide.domain.errors import ObjectChanged, ObjectNotFound
from reactorcide.objects import StoredObject, key_parts

_CHUNK_BYTES = 1 << 18


class MemoryObjectStore:
    """An ``ObjectStore`` that ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}
        self._tags: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``."""
        key_parts(key)
        data = b"".join(chunks)
        with self._lock:
            self._set(key, data)
        return len(data)

    def tag(self, key: str) -> str | None:
        """See ``ObjectStore.tag``."""
        key_parts(key)
        return self._tags.get(key)

    def replace(self, key: str, chunks: Iterable[bytes], tag: str | None) -> int:
        """See ``ObjectStore.replace``."""
        data = b"".join(chunks)
        with self._lock:
            if self._tags.get(key) != tag:
                raise ObjectChanged(f"the object {key} is another one by now")
            self._set(key, data)
        return len(data)

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``."""
        self.put(key, [path.read_bytes()])
        path.unlink()

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        data = self._get(key)[start:end]
        return (data[at : at + _CHUNK_BYTES] for at in range(0, len(data), _CHUNK_BYTES))

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return len(self._get(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``."""
        with self._lock:
            objects = list(self._objects.items())
        return (StoredObject(key, len(data)) for key, data in objects if key.startswith(prefix))

    def used_bytes(self, prefix: str) -> int:
        """See ``ObjectStore.used_bytes``."""
        return sum(item.size_bytes for item in self.list(prefix))

    def delete(self, prefix: str) -> None:
        """See ``ObjectStore.delete``."""
        with self._lock:
            self._objects = {key: data for key, data in self._objects.items() if not key.startswith(prefix)}
            self._tags = {key: tag for key, tag in self._tags.items() if key in self._objects}

    def check(self) -> None:
        """See ``ObjectStore.check``."""

    def remove_leftovers(self, min_age_s: float = 0) -> None:
        """See ``ObjectStore.remove_leftovers``; there are none."""

    def _set(self, key: str, data: bytes) -> None:
        self._objects[key] = data
        self._tags[key] = str(next(self._numbers))

    def _get(self, key: str) -> bytes:
        key_parts(key)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFound(f"there is no object {key}") from None
