"""A client of Corndogs 0.7.1 and later."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from reactorcide.corndogs.answers import DEADLINE_FACTORS, ErrorLog, requested
from reactorcide.corndogs.csil.cbor import Malformed, decode, encode
from reactorcide.corndogs.csil.connection import ReconnectingConnection, TooLate
from reactorcide.corndogs.csil.envelope import OK, SERVICE_ERROR, STATUS_NAMES, Response
from reactorcide.corndogs.csil.messages import checked, task_from_map
from reactorcide.corndogs.task import (
    MAX_MESSAGE_BYTES,
    NO_TASK,
    Queues,
    Task,
    call_failed,
    checked_uuid,
    message_size_bytes,
)
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable

T = TypeVar("T")

_MAX_LOGGED = 1000
# Those of the counts of some ten thousand queues.
_MAX_ITEMS = 250_000
_OLD_VERSION = "this Corndogs is version 0.7.0; csil:// needs 0.7.1 or later: upgrade it"
_NO_LEADER = (
    "the address of Corndogs is that of a node that does not lead its cluster; name the leader's address"
)


class CsilCorndogs:
    """The ``Corndogs`` protocol over CSIL-RPC on one connection, which is made by the first call.

    ``address`` is ``host:port``. Deadlines and ``on_call`` are the same as for ``GrpcCorndogs``.
    """

    def __init__(
        self,
        address: str,
        *,
        deadline_s: float = 2.0,
        on_call: Callable[[str, str, float], None] | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._on_call = on_call
        self._connection = ReconnectingConnection(address)
        self._closed = False
        self._has_checked_version = False
        self._errors = ErrorLog(address)

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
        fields = {
            "queue": queue,
            "current_state": current_state,
            "auto_target_state": auto_target_state,
            "timeout": timeout_s,
            "payload": payload,
            "priority": priority,
        }
        task = self._task_of("SubmitTask", fields, queue=queue, payload=payload)
        if task is None:
            raise CorndogsError("Corndogs took a task without returning it")
        return task

    def get_task(self, uuid: str, queue: str) -> Task | None:
        return self._task_of("GetTaskStateByID", {"uuid": checked_uuid(uuid), "queue": queue}, uuid)

    def get_next_task(
        self,
        queue: str,
        current_state: str = "submitted",
        *,
        override_timeout_s: int = 0,
        override_current_state: str = "",
        override_auto_target_state: str = "",
    ) -> Task | None:
        if not self._has_checked_version:
            # A task that 0.7.0 hands out could not be leased, and would stay claimed.
            self.check_health()
        fields: dict[str, str | bytes | int] = {
            "queue": queue,
            "current_state": current_state,
            "override_timeout": override_timeout_s,
            "override_current_state": override_current_state,
            "override_auto_target_state": override_auto_target_state,
        }

        def read(message: dict[str, Any]) -> Task | None:
            if "delivery" not in message:
                return None
            delivery = checked(message["delivery"], {"task": dict, "payload": bytes})
            return requested("GetNextTask", task_from_map(delivery["task"], delivery["payload"]), queue=queue)

        return self._call("GetNextTask", fields, read)

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
        fields = {
            "uuid": checked_uuid(uuid),
            "queue": queue,
            "current_state": current_state,
            "new_state": new_state,
            "auto_target_state": auto_target_state,
            "timeout": timeout_s,
            "priority": priority,
        }
        # An empty one would erase the stored one.
        return self._task_of(
            "UpdateTask", {**fields, "payload": payload} if payload else fields, uuid, payload=payload
        )

    def complete_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        fields = {"uuid": checked_uuid(uuid), "queue": queue, "current_state": current_state}
        return self._task_of("CompleteTask", fields, uuid)

    def cancel_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        fields = {"uuid": checked_uuid(uuid), "queue": queue, "current_state": current_state}
        return self._task_of("CancelTask", fields, uuid)

    def clean_up_timed_out(self, at_time_ns: int, queue: str) -> int:
        fields = {"at_time": at_time_ns, "queue": queue}
        return self._call("CleanUpTimedOut", fields, lambda message: _count(message, "timed_out"))

    def queues(self) -> Queues:
        def read(message: dict[str, Any]) -> Queues:
            names = checked(message, {"queues": list})["queues"]
            if not all(isinstance(name, str) for name in names):
                raise Malformed("a queue that is no text")
            return Queues(frozenset(names), _count(message, "total_task_count"))

        return self._call("GetQueues", {}, read)

    def queue_task_counts(self) -> dict[str, int]:
        return self._call("GetQueueTaskCounts", {}, lambda message: _counts(message, "queue_counts"))

    def task_state_counts(self, queue: str) -> dict[str, int]:
        fields = {"queue": queue}
        return self._call("GetTaskStateCounts", fields, lambda message: _counts(message, "state_counts"))

    def queue_and_state_counts(self) -> dict[str, dict[str, int]]:
        def read(message: dict[str, Any]) -> dict[str, dict[str, int]]:
            name = "queue_and_state_counts"
            return {
                queue: _counts(counts, "state_counts")
                for queue, counts in checked(message, {name: dict})[name].items()
            }

        return self._call("GetQueueAndStateCounts", {}, read)

    def check_health(self) -> None:
        # Like any call for a task it reads the store. And it tells 0.7.0, which requires the payload that is
        # not sent here.
        fields = {
            "uuid": NO_TASK,
            "queue": "",
            "current_state": "",
            "new_state": "",
            "auto_target_state": "",
            "timeout": 0,
            "priority": 0,
        }
        self._call("UpdateTask", fields, lambda message: None, deadline_s=self._deadline_s)
        self._has_checked_version = True

    def close(self) -> None:
        self._closed = True
        self._connection.close()

    def _task_of(
        self,
        operation: str,
        fields: dict[str, Any],
        uuid: str | None = None,
        queue: str | None = None,
        payload: bytes = b"",
    ) -> Task | None:
        """Make a call that is answered with the requested task, whose payload the answer does not have."""

        def read(message: dict[str, Any]) -> Task | None:
            if "task" not in message:
                return None
            return requested(operation, task_from_map(message["task"], payload), uuid, queue)

        return self._call(operation, fields, read)

    def _call(
        self,
        operation: str,
        fields: dict[str, Any],
        read: Callable[[dict[str, Any]], T],
        *,
        deadline_s: float | None = None,
    ) -> T:
        """Make a call, and return what ``read`` gets from the message that answers it."""
        deadline_s = deadline_s or self._deadline_s * DEADLINE_FACTORS.get(operation, 1)
        size_bytes = message_size_bytes(fields.values())
        started = time.perf_counter()
        status = "OK"
        try:
            if size_bytes > MAX_MESSAGE_BYTES:
                status = "RESOURCE_EXHAUSTED"
                raise call_failed(operation, status)
            response = self._connection.call(operation, encode(fields), deadline_s)
            if response.status != OK or response.variant == SERVICE_ERROR:
                status = STATUS_NAMES.get(response.status, "UNKNOWN") if response.status else "UNKNOWN"
                raise self._refused(operation, status, response)
            return read(checked(decode(response.payload, _MAX_ITEMS), {}))
        except CorndogsUnavailable as exc:
            if status == "OK":
                status = "UNAVAILABLE"
                if isinstance(exc, TooLate):
                    status = "DEADLINE_EXCEEDED"
                elif self._closed:
                    status = "CANCELLED"
            raise
        except Malformed as exc:
            status = "UNKNOWN"
            self._errors.log(f"{operation}: {exc}")
            raise CorndogsError(
                f"Corndogs answered {operation} with a message that is none; the service's log has the reason"
            ) from exc
        finally:
            if self._on_call is not None:
                self._on_call(operation, status, time.perf_counter() - started)

    def _refused(self, operation: str, status: str, response: Response) -> CorndogsError:
        """Return the error without the server's text, which may name its database's host and user."""
        self._errors.log(f"{operation}: {status}: {response.error or response.payload[:_MAX_LOGGED]!r}")
        if "not-leader" in response.error:
            return CorndogsUnavailable(_NO_LEADER)
        if operation == "UpdateTask" and 'missing field "payload"' in response.error:
            return CorndogsError(_OLD_VERSION)
        return call_failed(operation, status)


def _count(message: object, name: str) -> int:
    return int(checked(message, {name: int})[name])


def _counts(message: object, name: str) -> dict[str, int]:
    counts: dict[str, int] = checked(message, {name: dict})[name]
    if not all(isinstance(key, str) and type(count) is int for key, count in counts.items()):
        raise Malformed("a count that is none")
    return counts
