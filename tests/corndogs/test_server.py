"""What the embedded server does beyond the contract that all servers keep."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.proto import corndogs_pb2 as pb
from reactorcide.corndogs.proto.corndogs_pb2_grpc import CorndogsServiceStub
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import MAX_MESSAGE_BYTES, Queues
from reactorcide.corndogs.wire import SERVICE_NAME
from reactorcide.domain.errors import ConfigurationError, CorndogsError, CorndogsUnavailable


def _status(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


@pytest.mark.parametrize("rpc", ["GetTaskStateByID", "UpdateTask", "CompleteTask", "CancelTask"])
def test_an_empty_uuid_is_refused(client: GrpcCorndogs, stub: CorndogsServiceStub, rpc: str) -> None:
    bystander = client.submit_task("q")
    request = getattr(pb, f"{rpc}Request")(queue="q")
    assert _status(lambda: getattr(stub, rpc)(request)) == grpc.StatusCode.INVALID_ARGUMENT
    assert client.get_task(bystander.uuid, "q") == bystander


def test_upper_case_uuid_is_equal(client: GrpcCorndogs, stub: CorndogsServiceStub) -> None:
    task = client.submit_task("q")
    answer = stub.GetTaskStateByID(pb.GetTaskStateByIDRequest(uuid=task.uuid.upper()))
    assert answer.task.uuid == task.uuid


@pytest.mark.parametrize("priority", [-(2**31) - 1, 2**31])
def test_a_priority_beyond_32_bits_is_refused(
    client: GrpcCorndogs, stub: CorndogsServiceStub, priority: int
) -> None:
    submit = pb.SubmitTaskRequest(queue="q", priority=priority)
    assert _status(lambda: stub.SubmitTask(submit)) == grpc.StatusCode.INVALID_ARGUMENT
    task = client.submit_task("q")
    update = pb.UpdateTaskRequest(uuid=task.uuid, priority=priority)
    assert _status(lambda: stub.UpdateTask(update)) == grpc.StatusCode.INVALID_ARGUMENT
    assert client.get_task(task.uuid, "q") == task


def test_a_message_has_at_most_4_mib(stub: CorndogsServiceStub, client: GrpcCorndogs) -> None:
    request = pb.SubmitTaskRequest(queue="q", current_state="submitted", payload=b"x" * 4_000_000)
    request.payload += b"x" * (MAX_MESSAGE_BYTES - request.ByteSize())
    # The task that is the answer is larger still, and our client can receive it.
    assert client.submit_task("q", payload=request.payload).payload == request.payload
    request.payload += b"x"
    assert _status(lambda: stub.SubmitTask(request)) == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_totals_are_of_live_tasks(client: GrpcCorndogs, stub: CorndogsServiceStub) -> None:
    for queue in ["a", "a", "b"]:
        client.submit_task(queue)
    done = client.submit_task("c")
    client.complete_task(done.uuid, "c", "submitted")
    assert client.queues() == Queues(frozenset({"a", "b"}), 3)
    counts = stub.GetQueueTaskCounts(pb.GetQueueTaskCountsRequest())
    assert (dict(counts.queue_counts), counts.total_task_count) == ({"a": 2, "b": 1}, 3)


def test_a_clean_up_without_a_queue_is_of_all_queues(client: GrpcCorndogs) -> None:
    for queue in ["a", "b"]:
        client.submit_task(queue, timeout_s=1)
    assert client.clean_up_timed_out(time.time_ns() + 2_000_000_000, "") == 2


def test_clean_up_uses_the_time_of_the_caller(database_path: Path) -> None:
    server = EmbeddedCorndogs(database_path, clock_ns=lambda: 1234)
    server.start()
    client = GrpcCorndogs(server.address)
    task = client.submit_task("q")
    client.close()
    server.stop()
    assert (task.submit_time_ns, task.update_time_ns) == (1234, 1234)


class TestHealth:
    @pytest.mark.parametrize("service", ["", SERVICE_NAME])
    def test_serving(self, channel: grpc.Channel, service: str) -> None:
        response = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
        assert response.status == health_pb2.HealthCheckResponse.SERVING

    def test_health_watchers_do_not_exhaust_the_workers(
        self, channel: grpc.Channel, client: GrpcCorndogs
    ) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
        for watch in watches:
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        client.submit_task("q")
        for watch in watches:
            watch.cancel()


class TestTrouble:
    def test_a_full_disk_is_answered_and_logged(
        self, server: EmbeddedCorndogs, stub: CorndogsServiceStub, caplog: pytest.LogCaptureFixture
    ) -> None:
        execute: Callable[..., object] = server._storage._writer.execute_sql
        execute("PRAGMA max_page_count = 1")
        request = pb.SubmitTaskRequest(payload=b"x" * 100_000)
        with caplog.at_level(logging.ERROR, "reactorcide.corndogs"), pytest.raises(grpc.RpcError) as caught:
            stub.SubmitTask(request)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "make room" in (caught.value.details() or "")
        assert "SubmitTask failed" in caplog.text

    def test_a_bug_is_logged_and_not_sent_to_the_client(
        self,
        client: GrpcCorndogs,
        stub: CorndogsServiceStub,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(self: TaskStorage, queue: str) -> dict[str, int]:
            raise ZeroDivisionError("the secret of it")

        monkeypatch.setattr(TaskStorage, "state_counts", broken)
        with caplog.at_level(logging.ERROR, "reactorcide.corndogs"), pytest.raises(grpc.RpcError) as caught:
            stub.GetTaskStateCounts(pb.GetTaskStateCountsRequest(queue="q"))
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in (caught.value.details() or "")
        assert "the secret of it" in caplog.text
        client.submit_task("q")


class _SlowCall:
    """A call of GetTaskStateCounts that runs until ``go_on`` is set."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go_on = threading.Event()


@pytest.fixture
def slow_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[_SlowCall]:
    call = _SlowCall()

    def slow(self: TaskStorage, queue: str) -> dict[str, int]:
        call.running.set()
        assert call.go_on.wait(30)
        return {"slow": 1}

    monkeypatch.setattr(TaskStorage, "state_counts", slow)
    yield call
    call.go_on.set()


def _listens(server: EmbeddedCorndogs) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        # It is just closing: that it has closed only a refusal tells.
        return True
    return True


class TestStartAndStop:
    def test_port_in_use_is_refused(self, tmp_path: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            server = EmbeddedCorndogs(tmp_path / "corndogs.db", port=port)
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} .*already in use"):
                server.start()
        server.start()
        server.stop()

    def test_two_servers_do_not_share_a_port(self, server: EmbeddedCorndogs, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="cannot listen"):
            EmbeddedCorndogs(tmp_path / "other.db", port=server.port).start()

    def test_grpc_refuses_a_port_that_was_taken_after_the_check(
        self, server: EmbeddedCorndogs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.corndogs.server._listening", lambda host, port: socket.socket())
        with pytest.raises(ConfigurationError, match="cannot listen"):
            EmbeddedCorndogs(tmp_path / "other.db", port=server.port).start()

    def test_start_and_stop_can_be_repeated(self, database_path: Path) -> None:
        server = EmbeddedCorndogs(database_path)
        server.stop()
        server.start()
        address = server.address
        server.start()
        assert server.address == address
        server.stop()
        server.stop()
        server.start()
        client = GrpcCorndogs(server.address)
        client.submit_task("q")
        client.close()
        server.stop()

    def test_stop_waits_for_running_calls(
        self, server: EmbeddedCorndogs, client: GrpcCorndogs, slow_call: _SlowCall
    ) -> None:
        answers: list[dict[str, int]] = []
        caller = threading.Thread(target=lambda: answers.append(client.task_state_counts("q")))
        caller.start()
        assert slow_call.running.wait(30)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        _until(lambda: not _listens(server))
        slow_call.go_on.set()
        caller.join()
        stopper.join()
        assert answers == [{"slow": 1}]

    def test_stop_cancels_long_calls_before_it_closes_the_file(
        self, server: EmbeddedCorndogs, slow_call: _SlowCall
    ) -> None:
        client = GrpcCorndogs(server.address, deadline_s=60)
        errors: list[CorndogsError] = []

        def call() -> None:
            try:
                client.task_state_counts("q")
            except CorndogsError as exc:
                errors.append(exc)

        caller = threading.Thread(target=call)
        caller.start()
        assert slow_call.running.wait(30)
        stopper = threading.Thread(target=server.stop, args=(0.1,))
        stopper.start()
        caller.join()
        assert [type(error) for error in errors] == [CorndogsUnavailable]
        stopper.join(0.3)
        assert stopper.is_alive()
        slow_call.go_on.set()
        stopper.join()
        client.close()

    def test_nothing_is_left_open(self, database_path: Path) -> None:
        def cycle() -> None:
            server = EmbeddedCorndogs(database_path)
            server.start()
            client = GrpcCorndogs(server.address)
            client.submit_task("q")
            client.close()
            server.stop()

        def open_files() -> list[str]:
            names = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    names.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
                except FileNotFoundError:
                    continue  # the listing's own
            return sorted(names)

        # The first cycle makes what gRPC keeps for the whole process.
        cycle()
        files, threads = open_files(), set(threading.enumerate())
        for _ in range(20):
            cycle()
        # gRPC closes sockets and ends its serving thread a moment after it says that it stopped.
        _until(lambda: len(open_files()) <= len(files) and set(threading.enumerate()) <= threads)


_SERVE = """
import pathlib, sys
from reactorcide.corndogs.server import EmbeddedCorndogs
server = EmbeddedCorndogs(pathlib.Path(sys.argv[1]))
server.start()
print(server.address, flush=True)
sys.stdin.read()
"""


def test_an_acknowledged_task_survives_kill_9(database_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(database_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        client = GrpcCorndogs(process.stdout.readline().strip())
        submitted = [client.submit_task("q", payload=b"x").uuid for _ in range(20)]
        claimed = client.get_next_task("q")
        process.send_signal(signal.SIGKILL)
        client.close()
    assert claimed is not None
    server = EmbeddedCorndogs(database_path)
    server.start()
    client = GrpcCorndogs(server.address)
    try:
        again = [task.uuid for task in iter(lambda: client.get_next_task("q"), None)]
        stored = client.get_task(claimed.uuid, "q")
    finally:
        client.close()
        server.stop()
    assert again == submitted[1:]
    assert stored is not None
    assert stored.current_state == "submitted-working"


def _until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
