"""A server with arbitrary answers, and with confidential text in its errors."""

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import grpc
import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.proto.corndogs_pb2_grpc import (
    CorndogsServiceServicer,
    add_CorndogsServiceServicer_to_server,
)
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable

REQUESTED = "0b6d6c1e-7a0c-4a55-9f43-2f6a1f0f3c11"
ANOTHER = "0b6d6c1e-7a0c-4a55-9f43-2f6a1f0f3c12"
SECRET = "failed to connect to `host=db.internal user=corndogs_admin database=prod`"


class Hostile(CorndogsServiceServicer):
    """Answers every call with ``task``, or with an error where there is none."""

    task: pb.Task | None = None
    status = grpc.StatusCode.UNKNOWN

    def _answer(self, response: Callable[..., Any], context: grpc.ServicerContext) -> Any:
        if self.task is None:
            context.abort(self.status, SECRET)
        return response(task=self.task)

    def SubmitTask(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.SubmitTaskResponse, context)

    def GetTaskStateByID(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.GetTaskStateByIDResponse, context)

    def GetNextTask(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.GetNextTaskResponse, context)

    def UpdateTask(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.UpdateTaskResponse, context)

    def CompleteTask(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.CompleteTaskResponse, context)

    def CancelTask(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.CancelTaskResponse, context)

    def CleanUpTimedOut(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._answer(pb.CleanUpTimedOutResponse, context)


@pytest.fixture
def hostile() -> Iterator[tuple[Hostile, GrpcCorndogs]]:
    servicer = Hostile()
    with ThreadPoolExecutor(2) as pool:
        options = [("grpc.max_send_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
        server = grpc.server(pool, options=options)
        add_CorndogsServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with closing(GrpcCorndogs(f"127.0.0.1:{port}", deadline_s=10)) as client:
            yield servicer, client
        server.stop(0).wait()


CALLS: dict[str, Callable[[GrpcCorndogs], object]] = {
    "SubmitTask": lambda client: client.submit_task("q"),
    "GetTaskStateByID": lambda client: client.get_task(REQUESTED, "q"),
    "GetNextTask": lambda client: client.get_next_task("q"),
    "UpdateTask": lambda client: client.update_task(
        REQUESTED, "q", "a", new_state="b", auto_target_state="c", timeout_s=0, priority=0
    ),
    "CompleteTask": lambda client: client.complete_task(REQUESTED, "q", "a"),
    "CancelTask": lambda client: client.cancel_task(REQUESTED, "q", "a"),
}


@pytest.mark.parametrize("status", [grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize("rpc", [*CALLS, "health"])
def test_the_text_of_a_servers_error_is_logged_and_not_passed_on(
    hostile: tuple[Hostile, GrpcCorndogs],
    rpc: str,
    status: grpc.StatusCode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    servicer, client = hostile
    servicer.status = status
    call = CALLS.get(rpc, GrpcCorndogs.check_health)
    for _ in range(3):
        with caplog.at_level(logging.WARNING), pytest.raises(CorndogsError) as caught:
            call(client)
        assert isinstance(caught.value, CorndogsUnavailable) == (status is grpc.StatusCode.UNAVAILABLE)
        assert status.name in str(caught.value)
        assert not any(word in str(caught.value) for word in ("db.internal", "corndogs_admin", "127.0.0.1"))
    # Once, for the operator, and not again with each call of an outage.
    assert [SECRET in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("rpc", CALLS)
@pytest.mark.parametrize("answered", ["", "not-a-uuid", "x" * 100_000, REQUESTED.upper(), ANOTHER])
def test_a_task_other_than_the_requested_one_is_an_error(
    hostile: tuple[Hostile, GrpcCorndogs], rpc: str, answered: str
) -> None:
    servicer, client = hostile
    # A new task and the next one may have any id, and are in the queue that was named.
    servicer.task = pb.Task(uuid=answered, queue="another", payload=b"x")
    with pytest.raises(CorndogsError, match=f"answered {rpc} with a task that was not requested"):
        CALLS[rpc](client)


@pytest.mark.parametrize("rpc", CALLS)
def test_an_answer_that_is_too_large_is_an_error(hostile: tuple[Hostile, GrpcCorndogs], rpc: str) -> None:
    servicer, client = hostile
    servicer.task = pb.Task(uuid=REQUESTED, queue="q", payload=b"x" * (10 << 20))
    with pytest.raises(CorndogsError):
        CALLS[rpc](client)


def test_a_server_of_something_else_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        pool.submit(answer)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with closing(GrpcCorndogs(address)) as client, pytest.raises(CorndogsUnavailable):
            client.check_health()


def test_the_health_of_a_server_is_that_of_its_store(server: EmbeddedCorndogs, client: GrpcCorndogs) -> None:
    client.check_health()
    execute: Callable[..., object] = server._storage._writer.execute_sql
    execute("ALTER TABLE task RENAME TO away")
    # As a released server's while its PostgreSQL is away, the standard health service goes on serving.
    with pytest.raises(CorndogsError):
        client.check_health()
    execute("ALTER TABLE away RENAME TO task")
    client.check_health()
