"""Objects of a bucket as requests use them, so that a bucket that hangs does not take every thread."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from flask import Response, after_this_request, g, has_request_context, request

from reactorcide.domain.errors import Busy
from reactorcide.objects import ObjectStore, StoredObject
from reactorcide.web.streams import READS_OBJECTS, StreamSlots

NO_SLOT = (
    "too many requests read from the object store at the moment, yours or all users' together; try again in "
    "a few seconds, and if that does not help, see object_store in /api/v1/ready"
)
_WAIT_S = 0.25
"""For a slot: a bucket that works gives one back soon."""


class RequestedObjects:
    """An ``ObjectStore``: writes go to one that is patient, and all else to one that is quick.

    A request that uses the quick one has a slot from then on until its answer has ended, or until it becomes
    a follower. Raises ``Busy`` where there is none.
    """

    def __init__(self, patient: ObjectStore, quick: ObjectStore, slots: StreamSlots) -> None:
        self._patient = patient
        self._quick = quick
        self._slots = slots

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """See ``ObjectStore.put``."""
        return self._patient.put(key, chunks)

    def replace(self, key: str, chunks: Iterable[bytes], tag: str | None) -> int:
        """See ``ObjectStore.replace``."""
        return self._patient.replace(key, chunks, tag)

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``."""
        self._patient.put_file(key, path)

    def check(self) -> None:
        """See ``ObjectStore.check``."""
        self._patient.check()

    def remove_leftovers(self, min_age_s: float = 0) -> None:
        """See ``ObjectStore.remove_leftovers``."""
        self._patient.remove_leftovers(min_age_s)

    def tag(self, key: str) -> str | None:
        """See ``ObjectStore.tag``."""
        return self._held().tag(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        return self._held().read(key, start, end)

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        return self._held().size(key)

    def used_bytes(self, prefix: str) -> int:
        """See ``ObjectStore.used_bytes``."""
        return self._held().used_bytes(prefix)

    def delete(self, prefix: str) -> None:
        """See ``ObjectStore.delete``."""
        self._held().delete(prefix)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """See ``ObjectStore.list``."""
        return self._held().list(prefix)

    def _held(self) -> ObjectStore:
        """Return the quick one, with a slot for the current request.

        Without a request it is called for the rest of an answer, whose request has taken one, or by the
        thread that removes deleted jobs, one at a time.
        """
        if has_request_context() and READS_OBJECTS not in g:
            share = _share()
            if not self._slots.try_take(share, _WAIT_S):
                raise Busy(NO_SLOT)
            setattr(g, READS_OBJECTS, partial(self._slots.release, share))
            after_this_request(_until_it_has_ended)
        return self._quick


def _until_it_has_ended(response: Response) -> Response:
    release: Callable[[], None] | None = g.get(READS_OBJECTS)
    if release is not None:
        response.call_on_close(release)
    return response


def _share() -> tuple[str, ...]:
    if "worker" in g:
        return ("workers", g.worker.worker_id)
    share: tuple[str, ...] = g.user.share if "user" in g else ("anonymous", request.remote_addr or "")
    return share
