"""The embedded Corndogs without a network: its storage, called in this process."""

import time
from collections.abc import Callable
from typing import TypeVar

from reactorcide.corndogs.calls import Refused, TaskCalls, answered
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import (
    MAX_MESSAGE_BYTES,
    NO_TASK,
    Queues,
    Task,
    call_failed,
    checked_uuid,
    message_size_bytes,
)
from reactorcide.domain.errors import CorndogsUnavailable

T = TypeVar("T")


class DirectCorndogs:
    """The ``Corndogs`` protocol on a ``TaskStorage``, which the caller opens and closes.

    It has the defaults, checks and refusals of a server, and raises the errors of a client. A call waits for
    the disk and for other writers, at most 5 s if another process holds the file. ``on_call`` is the same as
    for ``GrpcCorndogs``.
    """

    def __init__(
        self, storage: TaskStorage, *, on_call: Callable[[str, str, float], None] | None = None
    ) -> None:
        self._calls = TaskCalls(storage)
        self._on_call = on_call
        self._closed = False

    def submit_task(
        self,
        queue: str,
        *,
        current_state: str = "submitted",
        auto_target_state: str = "",
        timeout_s: int = 0,
        payload: bytes = b"",
        priority: int = 0,
    ) -> Task:
        arguments = (queue, current_state, auto_target_state, timeout_s, payload, priority)
        return self._call("SubmitTask", arguments, lambda: self._calls.submit(*arguments))

    def get_task(self, uuid: str, queue: str) -> Task | None:
        checked_uuid(uuid)
        return self._call("GetTaskStateByID", (uuid, queue), lambda: self._calls.find(uuid))

    def get_next_task(
        self,
        queue: str,
        current_state: str = "submitted",
        *,
        override_timeout_s: int = 0,
        override_current_state: str = "",
        override_auto_target_state: str = "",
    ) -> Task | None:
        arguments = (
            queue,
            current_state,
            override_timeout_s,
            override_current_state,
            override_auto_target_state,
        )
        return self._call("GetNextTask", arguments, lambda: self._calls.claim(*arguments))

    def update_task(
        self,
        uuid: str,
        queue: str,
        current_state: str,
        *,
        new_state: str,
        auto_target_state: str,
        timeout_s: int,
        priority: int,
        payload: bytes = b"",
    ) -> Task | None:
        arguments = (checked_uuid(uuid), new_state, auto_target_state, timeout_s, payload, priority)
        sent = (*arguments, queue, current_state)
        return self._call("UpdateTask", sent, lambda: self._calls.update(*arguments))

    def complete_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        sent = (checked_uuid(uuid), queue, current_state)
        return self._call("CompleteTask", sent, lambda: self._calls.complete(uuid))

    def cancel_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        sent = (checked_uuid(uuid), queue, current_state)
        return self._call("CancelTask", sent, lambda: self._calls.cancel(uuid))

    def clean_up_timed_out(self, at_time_ns: int, queue: str) -> int:
        sent = (at_time_ns, queue)
        return self._call("CleanUpTimedOut", sent, lambda: self._calls.clean_up(at_time_ns, queue))

    def queues(self) -> Queues:
        counts = self._call("GetQueues", (), self._calls.queue_counts)
        return Queues(frozenset(counts), sum(counts.values()))

    def queue_task_counts(self) -> dict[str, int]:
        return self._call("GetQueueTaskCounts", (), self._calls.queue_counts)

    def task_state_counts(self, queue: str) -> dict[str, int]:
        return self._call("GetTaskStateCounts", (queue,), lambda: self._calls.state_counts(queue))

    def queue_and_state_counts(self) -> dict[str, dict[str, int]]:
        return self._call("GetQueueAndStateCounts", (), self._calls.counts)

    def check_health(self) -> None:
        self.get_task(NO_TASK, "")

    def close(self) -> None:
        self._closed = True

    def _call(self, rpc: str, sent: tuple[str | bytes | int, ...], call: Callable[[], T]) -> T:
        """Make a call with these values. Raises the errors of a client."""
        size_bytes = message_size_bytes(sent)
        started = time.perf_counter()
        status = "OK"
        try:
            if self._closed:
                raise CorndogsUnavailable("the connection to Corndogs was closed")
            if size_bytes > MAX_MESSAGE_BYTES:
                raise Refused("RESOURCE_EXHAUSTED", f"the call has more than {MAX_MESSAGE_BYTES} bytes")
            return answered(rpc, call)
        except CorndogsUnavailable:
            status = "CANCELLED"
            raise
        except Refused as exc:
            status = exc.status
            raise call_failed(rpc, status) from exc
        finally:
            if self._on_call is not None:
                self._on_call(rpc, status, time.perf_counter() - started)
