"""A client of Corndogs over gRPC, for releases up to 0.3 and the embedded server."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from reactorcide.corndogs.answers import DEADLINE_FACTORS, ErrorLog, requested
from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.proto.corndogs_pb2_grpc import CorndogsServiceStub
from reactorcide.corndogs.task import (
    MAX_MESSAGE_BYTES,
    NO_TASK,
    Queues,
    Task,
    call_failed,
    checked_uuid,
)
from reactorcide.corndogs.wire import task_from_message
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable

_CHANNEL_OPTIONS = [
    # The queue is internal: never use a proxy from the environment.
    ("grpc.enable_http_proxy", 0),
    # Otherwise each name resolution also queries TXT records.
    ("grpc.service_config_disable_resolution", 1),
    # Sockets belong to this channel, so that closing it closes them.
    ("grpc.use_local_subchannel_pool", 1),
    # Reconnect within a second after the server is back. The minimum is the time that one attempt to
    # connect gets, so it is not shortened with the others.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 2000),
    # Give up a host that vanished silently after 10 s, not after the kernel's quarter of an hour. Servers
    # written in Go disconnect clients that ping more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A task is larger than the request that submitted it, which may have had the maximum size.
    ("grpc.max_receive_message_length", 2 * MAX_MESSAGE_BYTES),
]

# Parts of gRPC's texts for connections that were made, but on which no server of gRPC answers.
_OTHER_PROTOCOL = ("SETTINGS frame", "Failed parsing HTTP/2", "Socket closed")


class GrpcCorndogs:
    """The ``Corndogs`` protocol over one gRPC channel, which connects at the first call.

    ``address`` is ``host:port``. Each call gives up after ``deadline_s`` seconds, a claim or lease after
    three times as long, and at once while the server refuses connections. ``on_call(rpc, status, seconds)``
    is called on the caller's thread after each call, with the names of the rpc and of its gRPC status; it
    must not raise.
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
        self._closed = False
        self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = CorndogsServiceStub(self._channel)  # type: ignore[no-untyped-call]  # generated
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
        request = pb.SubmitTaskRequest(
            queue=queue,
            current_state=current_state,
            auto_target_state=auto_target_state,
            timeout=timeout_s,
            payload=payload,
            priority=priority,
        )
        response = self._call("SubmitTask", self._stub.SubmitTask, request)
        task = self._task("SubmitTask", response, queue=queue)
        if task is None:
            raise CorndogsError("Corndogs took a task without returning it")
        return task

    def get_task(self, uuid: str, queue: str) -> Task | None:
        request = pb.GetTaskStateByIDRequest(uuid=checked_uuid(uuid), queue=queue)
        return self._task(
            "GetTaskStateByID", self._call("GetTaskStateByID", self._stub.GetTaskStateByID, request), uuid
        )

    def get_next_task(
        self,
        queue: str,
        current_state: str = "submitted",
        *,
        override_timeout_s: int = 0,
        override_current_state: str = "",
        override_auto_target_state: str = "",
    ) -> Task | None:
        request = pb.GetNextTaskRequest(
            queue=queue,
            current_state=current_state,
            override_timeout=override_timeout_s,
            override_current_state=override_current_state,
            override_auto_target_state=override_auto_target_state,
        )
        return self._task(
            "GetNextTask", self._call("GetNextTask", self._stub.GetNextTask, request), queue=queue
        )

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
        request = pb.UpdateTaskRequest(
            uuid=checked_uuid(uuid),
            queue=queue,
            current_state=current_state,
            new_state=new_state,
            auto_target_state=auto_target_state,
            timeout=timeout_s,
            priority=priority,
            payload=payload,
        )
        return self._task("UpdateTask", self._call("UpdateTask", self._stub.UpdateTask, request), uuid)

    def complete_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        request = pb.CompleteTaskRequest(uuid=checked_uuid(uuid), queue=queue, current_state=current_state)
        return self._task("CompleteTask", self._call("CompleteTask", self._stub.CompleteTask, request), uuid)

    def cancel_task(self, uuid: str, queue: str, current_state: str) -> Task | None:
        request = pb.CancelTaskRequest(uuid=checked_uuid(uuid), queue=queue, current_state=current_state)
        return self._task("CancelTask", self._call("CancelTask", self._stub.CancelTask, request), uuid)

    def clean_up_timed_out(self, at_time_ns: int, queue: str) -> int:
        request = pb.CleanUpTimedOutRequest(at_time=at_time_ns, queue=queue)
        response: pb.CleanUpTimedOutResponse = self._call(
            "CleanUpTimedOut", self._stub.CleanUpTimedOut, request
        )
        return response.timed_out

    def queues(self) -> Queues:
        response: pb.GetQueuesResponse = self._call("GetQueues", self._stub.GetQueues, pb.GetQueuesRequest())
        return Queues(frozenset(response.queues), response.total_task_count)

    def queue_task_counts(self) -> dict[str, int]:
        response: pb.GetQueueTaskCountsResponse = self._call(
            "GetQueueTaskCounts", self._stub.GetQueueTaskCounts, pb.GetQueueTaskCountsRequest()
        )
        return dict(response.queue_counts)

    def task_state_counts(self, queue: str) -> dict[str, int]:
        response: pb.GetTaskStateCountsResponse = self._call(
            "GetTaskStateCounts", self._stub.GetTaskStateCounts, pb.GetTaskStateCountsRequest(queue=queue)
        )
        return dict(response.state_counts)

    def queue_and_state_counts(self) -> dict[str, dict[str, int]]:
        response: pb.GetQueueAndStateCountsResponse = self._call(
            "GetQueueAndStateCounts", self._stub.GetQueueAndStateCounts, pb.GetQueueAndStateCountsRequest()
        )
        return {queue: dict(counts.state_counts) for queue, counts in response.queue_and_state_counts.items()}

    def check_health(self) -> None:
        # The health service reports success even without the server's database. This call reads the database.
        self.get_task(NO_TASK, "")

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    # The response type is the method's, but the generated stub has no types.
    def _call(self, rpc: str, method: Any, request: Any) -> Any:
        started = time.perf_counter()
        status = grpc.StatusCode.OK
        try:
            return method(request, timeout=self._deadline_s * DEADLINE_FACTORS.get(rpc, 1))
        except grpc.RpcError as exc:
            status = exc.code()
            raise self._translated(rpc, exc) from exc
        except ValueError as exc:
            # A closed channel raises this in place of an RpcError.
            if not self._closed:
                raise
            status = grpc.StatusCode.CANCELLED
            raise CorndogsUnavailable("the connection to Corndogs was closed") from exc
        finally:
            if self._on_call is not None:
                self._on_call(rpc, status.name, time.perf_counter() - started)

    def _translated(self, rpc: str, exc: grpc.RpcError) -> CorndogsError:
        """Return the error without the server's text, which may name its database's host and user."""
        if self._closed:
            return CorndogsUnavailable("the connection to Corndogs was closed")
        status = exc.code().name
        details = exc.details() or ""
        self._errors.log(f"{rpc}: {status}: {details}")
        if status == "UNAVAILABLE" and any(text in details for text in _OTHER_PROTOCOL):
            return CorndogsUnavailable(
                "Corndogs does not answer over gRPC; check that it runs and can be reached, and its version: "
                "0.7.1 and later have addresses with csil://"
            )
        return call_failed(rpc, status)

    def _task(
        self, rpc: str, response: Any, uuid: str | None = None, queue: str | None = None
    ) -> Task | None:
        """Return the task of an answer; raises ``CorndogsError`` if it is not the requested one."""
        if not response.HasField("task"):
            return None
        return requested(rpc, task_from_message(response.task), uuid, queue)
