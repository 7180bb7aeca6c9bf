"""Corndogs' calls on the embedded storage, with their defaults and checks, for every transport."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeVar

from reactorcide.corndogs.storage import StorageError, TaskStorage, Trouble
from reactorcide.corndogs.task import DEFAULT_QUEUE, Task
from reactorcide.lib.ids import is_id

_log = logging.getLogger("reactorcide.corndogs")

T = TypeVar("T")

_DEFAULT_STATE = "submitted"
_MIN_PRIORITY, _MAX_PRIORITY = -(2**31), 2**31 - 1
_STATUS = {
    Trouble.BUSY: "UNAVAILABLE",
    Trouble.FULL: "RESOURCE_EXHAUSTED",
    Trouble.BROKEN: "INTERNAL",
}


class Refused(Exception):
    """Ends a call with the gRPC status of this name; the text is its details."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(details)
        self.status = status


def answered(rpc: str, call: Callable[[], T]) -> T:
    """Call ``call`` and return its result. Raises ``Refused`` for every error; internal errors are logged."""
    try:
        return call()
    except Refused:
        raise
    except StorageError as exc:
        if exc.trouble is Trouble.BROKEN:
            _log.exception("%s failed", rpc)
        else:
            _log.error("%s failed: %s", rpc, exc)
        raise Refused(_STATUS[exc.trouble], str(exc)) from exc
    except Exception as exc:
        _log.exception("%s failed", rpc)
        raise Refused("INTERNAL", "the server failed unexpectedly; see its log") from exc


class TaskCalls:
    """The calls, with the defaults, checks and behaviour of released Corndogs servers. Thread-safe.

    Like those it finds a task by its uuid alone. Raises ``Refused`` and ``StorageError``.
    """

    def __init__(self, storage: TaskStorage) -> None:
        self._storage = storage

    def submit(
        self,
        queue: str,
        current_state: str,
        auto_target_state: str,
        timeout_s: int,
        payload: bytes,
        priority: int,
    ) -> Task:
        """Store a new task."""
        current_state = current_state or _DEFAULT_STATE
        return self._storage.submit(
            queue or DEFAULT_QUEUE,
            current_state,
            auto_target_state or _working(current_state),
            max(timeout_s, 0),
            payload,
            _checked_priority(priority),
        )

    def find(self, uuid: str) -> Task | None:
        """Return a live or archived task."""
        return self._storage.find(_checked_uuid(uuid))

    def claim(
        self,
        queue: str,
        current_state: str,
        override_timeout_s: int,
        override_current_state: str,
        override_auto_target_state: str,
    ) -> Task | None:
        """Claim the next task. As in releases up to 0.3 it has the ``update_time_ns`` from before."""
        both = self._storage.claim(
            [queue or DEFAULT_QUEUE],
            current_state or _DEFAULT_STATE,
            override_timeout_s,
            override_current_state,
            override_auto_target_state,
        )
        if both is None:
            return None
        waiting, claimed = both
        return replace(claimed, update_time_ns=waiting.update_time_ns)

    def claim_of_group(
        self,
        queues: Collection[str],
        current_state: str,
        override_timeout_s: int,
        override_current_state: str,
        override_auto_target_state: str,
    ) -> Task | None:
        """Claim the next task of all these queues; return it as it is now, as releases after 0.3 do."""
        both = self._storage.claim(
            queues,
            current_state or _DEFAULT_STATE,
            override_timeout_s,
            override_current_state,
            override_auto_target_state,
        )
        return None if both is None else both[1]

    def update(
        self,
        uuid: str,
        new_state: str,
        auto_target_state: str,
        timeout_s: int,
        payload: bytes,
        priority: int,
    ) -> Task | None:
        """Change a live task."""
        new_state = new_state or "updated"
        return self._storage.update(
            _checked_uuid(uuid),
            new_state,
            auto_target_state or _working(new_state),
            timeout_s,
            payload,
            _checked_priority(priority),
        )

    def complete(self, uuid: str) -> Task | None:
        """Archive a live task as completed."""
        return self._storage.archive(_checked_uuid(uuid), "completed")

    def cancel(self, uuid: str) -> Task | None:
        """Archive a live task as canceled."""
        return self._storage.archive(_checked_uuid(uuid), "canceled")

    def clean_up(self, at_time_ns: int, queue: str) -> int:
        """Swap the states of the tasks that have timed out."""
        return self._storage.swap_timed_out(at_time_ns, queue)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of live tasks by queue, then state."""
        return self._storage.counts()

    def queue_counts(self) -> dict[str, int]:
        """Return the number of live tasks by queue."""
        return {queue: sum(states.values()) for queue, states in self.counts().items()}

    def state_counts(self, queue: str) -> dict[str, int]:
        """Return the number of a queue's live tasks by state."""
        return self._storage.state_counts(queue)


def _working(state: str) -> str:
    return f"{state}-working"


def _checked_uuid(text: str) -> str:
    # For a released server an empty uuid means any task, which no caller can want.
    if not text:
        raise Refused("INVALID_ARGUMENT", "uuid is empty")
    canonical = text.lower()
    if not is_id(canonical):
        raise Refused("UNKNOWN", f"{text!r} is not a UUID")
    return canonical


def _checked_priority(priority: int) -> int:
    if not _MIN_PRIORITY <= priority <= _MAX_PRIORITY:
        raise Refused("INVALID_ARGUMENT", f"priority {priority} is not a signed 32 bit number")
    return priority
