"""A Corndogs server on SQLite, to run inside another process or on its own."""

import functools
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from reactorcide.corndogs.calls import Refused, TaskCalls, answered
from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.proto.corndogs_pb2_grpc import (
    CorndogsServiceServicer,
    add_CorndogsServiceServicer_to_server,
)
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import MAX_MESSAGE_BYTES
from reactorcide.corndogs.wire import SERVICE_NAME, task_to_message
from reactorcide.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from reactorcide.corndogs.csil.server import CsilServer

_OPTIONS = [
    # Otherwise a second server on the same port would silently take half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]


class EmbeddedCorndogs:
    """A gRPC server with all of Corndogs' calls and the standard health service, on its own SQLite file.

    On ``csil_port`` it speaks CSIL-RPC as well, for clients of Corndogs 0.7; this needs the package cbor2.

    Constructing opens nothing. ``start`` and ``stop`` may be called from different threads, also at once,
    and a stopped server may be started again. Port 0 picks a free one at each start. ``clock_ns`` is
    Unix nanoseconds. There is no authentication: bind it to addresses that only trusted programs reach.
    """

    def __init__(
        self,
        database_path: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        csil_port: int | None = None,
        max_workers: int = 8,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._storage = TaskStorage(database_path, clock_ns)
        self._host = host
        self._requested_port = self._port = port
        self._requested_csil_port = csil_port
        self._csil_port = csil_port or 0
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._csil: CsilServer | None = None

    @property
    def storage(self) -> TaskStorage:
        """The tasks; open while the server is started."""
        return self._storage

    @property
    def port(self) -> int:
        """The port that the server listens on, or did last; before the first start the requested one."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``, for a client."""
        return _address(self._host, self._port)

    @property
    def csil_port(self) -> int:
        """The port of CSIL-RPC, as ``port`` is that of gRPC; 0 if there is none."""
        return self._csil_port

    @property
    def csil_address(self) -> str:
        """``host:port``, for a client that speaks CSIL-RPC."""
        return _address(self._host, self._csil_port)

    def start(self) -> None:
        """Open the database and listen; does nothing when already started.

        Raises ``ConfigurationError`` when an address cannot be bound, the database cannot be used, or cbor2
        is not installed; nothing stays open then.
        """
        with self._lock:
            if self._server is not None:
                return
            with ExitStack() as opened:
                # With the system's reason: gRPC's is vague, and it prints to stderr.
                _listening(self._host, self._requested_port).close()
                csil = self._csil_server(opened)
                self._storage.open()
                opened.callback(self._storage.close)
                pool = ThreadPoolExecutor(self._max_workers, thread_name_prefix="corndogs")
                server = grpc.server(pool, options=_OPTIONS)
                add_CorndogsServiceServicer_to_server(  # type: ignore[no-untyped-call]  # generated
                    _Servicer(self._storage), server
                )
                health_pb2_grpc.add_HealthServicer_to_server(_health_servicer(), server)
                try:
                    self._port = server.add_insecure_port(_address(self._host, self._requested_port))
                except RuntimeError as exc:
                    raise ConfigurationError(_cannot_listen(self._host, self._requested_port, exc)) from exc
                server.start()
                if csil is not None:
                    csil.start(pool)
                opened.pop_all()
            self._server, self._pool, self._csil = server, pool, csil

    def stop(self, deadline_s: float = 5.0) -> None:
        """Refuse new calls, give running ones that long, and close everything; safe to repeat.

        A call still running at the deadline is cancelled, but its statement in the database is waited for,
        which can take SQLite's 5 s if another process holds the file.
        """
        with self._lock:
            if self._server is None or self._pool is None:
                return
            stopped = self._server.stop(deadline_s)
            if self._csil is not None:
                self._csil.stop(deadline_s)
            stopped.wait()
            self._pool.shutdown()
            self._storage.close()
            self._server = self._pool = self._csil = None

    def _csil_server(self, opened: ExitStack) -> "CsilServer | None":
        """Return a server on the CSIL port, which stays open until ``opened`` closes; None without a port."""
        if self._requested_csil_port is None:
            return None
        # Imported only where it is used: cbor2 is optional.
        from reactorcide.corndogs.csil.respond import Responder
        from reactorcide.corndogs.csil.server import CsilServer

        listener = opened.enter_context(_listening(self._host, self._requested_csil_port))
        self._csil_port = listener.getsockname()[1]
        return CsilServer(listener, Responder(TaskCalls(self._storage)).respond)


_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def _rpc(
    method: Callable[["_Servicer", _Request], _Response],
) -> Callable[["_Servicer", _Request, grpc.ServicerContext], _Response]:
    """Turn a method into a gRPC handler: errors become statuses, and internal errors are logged."""

    @functools.wraps(method)
    def handler(self: "_Servicer", request: _Request, context: grpc.ServicerContext) -> _Response:
        try:
            return answered(method.__name__, lambda: method(self, request))
        except Refused as exc:
            _abort(context, grpc.StatusCode[exc.status], str(exc))

    return handler


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, details: str) -> NoReturn:
    context.abort(status, details)
    raise AssertionError("abort always raises")


class _Servicer(CorndogsServiceServicer):
    """The eleven calls over gRPC."""

    def __init__(self, storage: TaskStorage) -> None:
        self._calls = TaskCalls(storage)

    @_rpc
    def SubmitTask(self, request: pb.SubmitTaskRequest) -> pb.SubmitTaskResponse:
        task = self._calls.submit(
            request.queue,
            request.current_state,
            request.auto_target_state,
            request.timeout,
            request.payload,
            request.priority,
        )
        return pb.SubmitTaskResponse(task=task_to_message(task))

    @_rpc
    def GetTaskStateByID(self, request: pb.GetTaskStateByIDRequest) -> pb.GetTaskStateByIDResponse:
        return pb.GetTaskStateByIDResponse(task=task_to_message(self._calls.find(request.uuid)))

    @_rpc
    def GetNextTask(self, request: pb.GetNextTaskRequest) -> pb.GetNextTaskResponse:
        task = self._calls.claim(
            request.queue,
            request.current_state,
            request.override_timeout,
            request.override_current_state,
            request.override_auto_target_state,
        )
        return pb.GetNextTaskResponse(task=task_to_message(task))

    @_rpc
    def UpdateTask(self, request: pb.UpdateTaskRequest) -> pb.UpdateTaskResponse:
        task = self._calls.update(
            request.uuid,
            request.new_state,
            request.auto_target_state,
            request.timeout,
            request.payload,
            request.priority,
        )
        return pb.UpdateTaskResponse(task=task_to_message(task))

    @_rpc
    def CompleteTask(self, request: pb.CompleteTaskRequest) -> pb.CompleteTaskResponse:
        return pb.CompleteTaskResponse(task=task_to_message(self._calls.complete(request.uuid)))

    @_rpc
    def CancelTask(self, request: pb.CancelTaskRequest) -> pb.CancelTaskResponse:
        return pb.CancelTaskResponse(task=task_to_message(self._calls.cancel(request.uuid)))

    @_rpc
    def CleanUpTimedOut(self, request: pb.CleanUpTimedOutRequest) -> pb.CleanUpTimedOutResponse:
        return pb.CleanUpTimedOutResponse(timed_out=self._calls.clean_up(request.at_time, request.queue))

    @_rpc
    def GetQueues(self, request: pb.GetQueuesRequest) -> pb.GetQueuesResponse:
        counts = self._calls.queue_counts()
        return pb.GetQueuesResponse(queues=counts, total_task_count=sum(counts.values()))

    @_rpc
    def GetQueueTaskCounts(self, request: pb.GetQueueTaskCountsRequest) -> pb.GetQueueTaskCountsResponse:
        counts = self._calls.queue_counts()
        return pb.GetQueueTaskCountsResponse(queue_counts=counts, total_task_count=sum(counts.values()))

    @_rpc
    def GetTaskStateCounts(self, request: pb.GetTaskStateCountsRequest) -> pb.GetTaskStateCountsResponse:
        states = self._calls.state_counts(request.queue)
        return pb.GetTaskStateCountsResponse(
            queue=request.queue, count=sum(states.values()), state_counts=states
        )

    @_rpc
    def GetQueueAndStateCounts(
        self, request: pb.GetQueueAndStateCountsRequest
    ) -> pb.GetQueueAndStateCountsResponse:
        return pb.GetQueueAndStateCountsResponse(
            queue_and_state_counts={
                queue: pb.QueueAndStateCounts(queue=queue, count=sum(states.values()), state_counts=states)
                for queue, states in self._calls.counts().items()
            }
        )


def _health_servicer() -> health.HealthServicer:
    servicer = health.HealthServicer()  # serves "", the whole server, from the start
    servicer.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; raises ``ConfigurationError``."""
    try:
        family, *_, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # As gRPC does: the remains of old connections do not count.
        return socket.create_server(sockaddr[:2], family=family)
    except OSError as exc:
        raise ConfigurationError(_cannot_listen(host, port, exc)) from exc


def _cannot_listen(host: str, port: int, exc: Exception) -> str:
    return f"Corndogs cannot listen on {_address(host, port)} ({exc}); free that address or choose another"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
