"""What the server does over CSIL beyond the contract of all servers."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest

from reactorcide.corndogs import storage as storage_module
from reactorcide.corndogs.calls import TaskCalls
from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.csil.client import CsilCorndogs
from reactorcide.corndogs.csil.respond import Responder
from reactorcide.corndogs.csil.server import CsilServer
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.corndogs.storage import StorageError, TaskStorage, Trouble
from reactorcide.domain.errors import ConfigurationError, CorndogsUnavailable
from tests.support import csil
from tests.support.waiting import wait_until

EMPTY = cbor2.dumps({})


@pytest.fixture
def wire(csil_server: EmbeddedCorndogs) -> Iterator[csil.Wire]:
    with csil.Wire(csil_server.csil_address) as opened:
        yield opened


@pytest.fixture
def respond(database_path: Path) -> Iterator[Callable[[bytes], dict[str, Any]]]:
    """The answers without a network: the envelope of the answer to a frame."""
    storage = TaskStorage(database_path, time.time_ns)
    storage.open()
    responder = Responder(TaskCalls(storage))
    yield lambda frame: dict(cbor2.loads(responder.respond(frame[4:])[4:]))
    storage.close()


class TestEnvelope:
    def test_an_answer(self, respond: Callable[[bytes], dict[str, Any]]) -> None:
        envelope = respond(csil.request("GetQueues", EMPTY, id=2**64 - 1, auth="ignored", more=[None, 1.5]))
        payload = cbor2.dumps({"queues": [], "total_task_count": 0}, canonical=True)
        assert envelope == {
            "v": 1,
            "status": 0,
            "id": 2**64 - 1,
            "variant": "GetQueuesResponse",
            "payload": cbor2.CBORTag(24, payload),
        }

    @pytest.mark.parametrize("id_", [None, -1, "1", True])
    def test_malformed_id_counts_as_absent(
        self, respond: Callable[[bytes], dict[str, Any]], id_: object
    ) -> None:
        envelope = respond(csil.request("GetQueues", EMPTY, id=id_))
        assert (envelope["status"], "id" in envelope) == (0, False)

    @pytest.mark.parametrize(("operation", "variant"), [("$ping", "$pong"), ("$hello", "$hello-ack")])
    def test_control(self, respond: Callable[[bytes], dict[str, Any]], operation: str, variant: str) -> None:
        envelope = respond(csil.request(operation, b"", service="whatever"))
        assert (envelope["status"], envelope["variant"]) == (0, variant)
        assert envelope["payload"] == cbor2.CBORTag(24, b"")

    @pytest.mark.parametrize(
        "others",
        [
            {"v": 2},
            {"v": None},
            {"v": True},
            {"service": None},
            {"op": None},
            {"op": 1},
            {"payload": None},
            {"payload": EMPTY},
            {"payload": cbor2.CBORTag(24, "text")},
        ],
    )
    def test_malformed_envelope_is_refused(
        self, respond: Callable[[bytes], dict[str, Any]], others: dict[str, Any]
    ) -> None:
        envelope = respond(csil.request("GetQueues", EMPTY, **others))
        assert (envelope["status"], "id" in envelope, bool(envelope["error"])) == (1, False, True)

    @pytest.mark.parametrize("others", [{"service": "other" * 1000}, {"op": "Other" * 1000}])
    def test_an_unknown_service_or_operation(
        self, respond: Callable[[bytes], dict[str, Any]], others: dict[str, Any]
    ) -> None:
        envelope = respond(csil.request("GetQueues", EMPTY, **{"id": 7, **others}))
        assert (envelope["status"], envelope["id"]) == (2, 7)
        assert envelope["error"].startswith("unknown ")
        assert len(envelope["error"]) < 300

    @pytest.mark.parametrize(
        ("operation", "payload", "error"),
        [
            ("SubmitTask", b"", "ends within"),
            ("SubmitTask", EMPTY, 'missing field "queue"'),
            ("SubmitTask", cbor2.dumps(csil.REQUEST_DEFAULTS["SubmitTask"] | {"queue": None}), "no str"),
            ("SubmitTask", cbor2.dumps(csil.REQUEST_DEFAULTS["SubmitTask"] | {"timeout": 2**63}), "no int"),
            ("SubmitTask", cbor2.dumps(csil.REQUEST_DEFAULTS["SubmitTask"] | {"priority": 2**31}), "32 bit"),
            ("UpdateTask", cbor2.dumps(csil.REQUEST_DEFAULTS["UpdateTask"] | {"payload": "x"}), "not bytes"),
            (
                "GetNextTaskGroup",
                cbor2.dumps(csil.REQUEST_DEFAULTS["GetNextTaskGroup"] | {"queues": [1]}),
                "text",
            ),
            ("CompleteTask", cbor2.dumps(csil.REQUEST_DEFAULTS["CompleteTask"]), "uuid is empty"),
            ("GetQueues", b"", "ends within"),
        ],
    )
    def test_a_message_that_is_refused(
        self, respond: Callable[[bytes], dict[str, Any]], operation: str, payload: bytes, error: str
    ) -> None:
        envelope = respond(csil.request(operation, payload))
        assert (envelope["status"], envelope["id"]) == (6, 1)
        assert error in envelope["error"]

    def test_a_payload_beyond_the_limit(self, respond: Callable[[bytes], dict[str, Any]]) -> None:
        message = csil.REQUEST_DEFAULTS["SubmitTask"] | {"payload": b"x" * (4 << 20)}
        envelope = respond(csil.request("SubmitTask", cbor2.dumps(message)))
        assert envelope["status"] == 6
        assert "maximum is 4194304 bytes" in envelope["error"]

    @pytest.mark.parametrize(("trouble", "status"), [(Trouble.BUSY, 7), (Trouble.FULL, 6)])
    def test_failing_store_is_an_error(
        self,
        respond: Callable[[bytes], dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
        trouble: Trouble,
        status: int,
    ) -> None:
        def failing(self: TaskStorage) -> dict[str, dict[str, int]]:
            raise StorageError("make room", trouble)

        monkeypatch.setattr(TaskStorage, "counts", failing)
        envelope = respond(csil.request("GetQueues", EMPTY))
        assert (envelope["status"], envelope["error"]) == (status, "make room")


class TestBothVersions:
    def test_each_version_gets_the_fields_it_reads(self, wire: csil.Wire) -> None:
        # 0.7.0 reads `task` and the payload in it, 0.7.1 `delivery` and the payload beside its task.
        submitted = wire.call("SubmitTask", queue="q", payload=b"x")["task"]
        assert submitted["payload"] == b"x"
        claim = wire.call("GetNextTask", queue="q")
        assert claim["delivery"]["payload"] == claim["task"]["payload"] == b"x"
        assert claim["delivery"]["task"]["uuid"] == claim["task"]["uuid"] == submitted["uuid"]
        found = wire.call("GetTaskStateByID", uuid=submitted["uuid"])["task"]
        assert (found["payload"], found["update_time"]) == (b"x", claim["task"]["update_time"])

    @pytest.mark.parametrize("fields", [{"payload": b""}, {}])
    def test_an_update_without_a_payload_keeps_the_stored_one(
        self, wire: csil.Wire, fields: dict[str, bytes]
    ) -> None:
        task = wire.call("SubmitTask", payload=b"x")["task"]
        assert wire.call("UpdateTask", uuid=task["uuid"], **fields)["task"]["payload"] == b"x"

    def test_grpc_and_csil_show_the_same_tasks(self, csil_server: EmbeddedCorndogs) -> None:
        with (
            closing(GrpcCorndogs(csil_server.address)) as old,
            closing(CsilCorndogs(csil_server.csil_address)) as new,
        ):
            task = old.submit_task("q", payload=b"x")
            claimed = new.get_next_task("q")
            assert claimed is not None
            assert (claimed.uuid, claimed.payload) == (task.uuid, b"x")
            assert old.complete_task(task.uuid, "q", claimed.current_state) == new.get_task(task.uuid, "q")


class TestSeveralRequests:
    def test_each_request_is_answered_with_its_id_when_it_is_done(
        self, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()

        def slow(self: TaskStorage, queue: str) -> dict[str, int]:
            assert go_on.wait(30)
            return {}

        monkeypatch.setattr(TaskStorage, "state_counts", slow)
        wire.send(
            csil.request("GetTaskStateCounts", cbor2.dumps({"queue": "q"}), id=1)
            + csil.request("GetQueues", EMPTY, id=2)
        )
        first = wire.envelope()
        go_on.set()
        second = wire.envelope()
        assert first is not None
        assert second is not None
        assert (first["id"], second["id"]) == (2, 1)

    def test_many_concurrent_requests_are_answered(self, wire: csil.Wire) -> None:
        wire.send(b"".join(csil.request("GetQueues", EMPTY, id=number) for number in range(1000)))
        ids = set()
        for _ in range(1000):
            envelope = wire.envelope()
            assert envelope is not None
            ids.add(envelope["id"])
        assert ids == set(range(1000))

    def test_concurrent_requests_per_connection_are_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._MAX_UNDER_WAY", 3)
        executor = HeldExecutor()
        listener = socket.create_server(("127.0.0.1", 0))
        server = CsilServer(listener, csil.frame)
        server.start(executor)
        with csil.Wire(f"127.0.0.1:{listener.getsockname()[1]}") as wire:
            wire.send(b"".join(csil.frame(cbor2.dumps({"number": number})) for number in range(20)))
            numbers = []
            for place in range(20):
                wait_until(lambda: bool(executor.held), 10, "a request is under way")
                executor.carry_out(len(executor.held) - 1 if place % 2 else 0)
                numbers.append((wire.envelope() or {})["number"])
        server.stop(5)
        assert set(numbers) == set(range(20))
        assert executor.max_held <= 3

    def test_half_closed_client_gets_its_answers(self, wire: csil.Wire) -> None:
        wire.send(csil.request("GetQueues", EMPTY))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.message() == {"queues": [], "total_task_count": 0}
        assert wire.envelope() is None


HOSTILE = {
    "empty": b"",
    "no CBOR": b"\xff" * 100,
    "deep nesting": b"\x81" * 1_000_000,
    "deep nesting in tags": b"\xd8\x18" * 1_000_000,
    "a length beyond the frame": b"\x9b" + b"\xff" * 8,
    "a text beyond the frame": b"\x7b" + b"\xff" * 8,
    "many items": b"\x9a\x00\x40\x00\x00" + b"\x80" * (4 << 20),
    "an indefinite length": b"\xbf\xff",
    "a number of any size": b"\xc2\x5a\x00\x40\x00\x00" + b"\xff" * (4 << 20),
    "a pattern": b"\xd8\x23\x69(a+)+$" + b"aaa",
    "shared references": b"\xd8\x1c\x81\xd8\x1d\x00",
    "colliding keys": cbor2.dumps({number << 40: 0 for number in range(60)}),
    "a doubled key": b"\xa2\x61v\x01\x61v\x01",
    "no UTF-8": b"\xa1\x61\xff\x01",
    "bytes after it": EMPTY + b"\x00",
}


class TestHostileBytes:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_as_an_envelope(self, respond: Callable[[bytes], dict[str, Any]], name: str) -> None:
        start_s = time.process_time()
        assert respond(csil.frame(HOSTILE[name]))["status"] == 1
        assert time.process_time() - start_s < 1

    @pytest.mark.parametrize("name", HOSTILE)
    def test_as_a_message(self, respond: Callable[[bytes], dict[str, Any]], name: str) -> None:
        # Any item would do for this call.
        frame = csil.request("GetQueues", HOSTILE[name])
        start_s = time.process_time()
        envelope = respond(frame)
        assert (envelope["status"], envelope["id"]) == (6, 1)
        assert envelope["error"].startswith(("csil cbor: ", "payload is "))
        assert time.process_time() - start_s < 1

    def test_a_claim_of_too_many_queues(self, respond: Callable[[bytes], dict[str, Any]]) -> None:
        fields = csil.REQUEST_DEFAULTS["GetNextTaskGroup"]
        for count, status in [(4000, 0), (5000, 6)]:
            queues = [str(number) for number in range(count)]
            envelope = respond(csil.request("GetNextTaskGroup", cbor2.dumps({**fields, "queues": queues})))
            assert envelope["status"] == status

    def test_malformed_envelope_does_not_close_the_connection(self, wire: csil.Wire) -> None:
        wire.send(csil.frame(b"") + csil.frame(b"\xff") + csil.request("GetQueues", EMPTY, id=3))
        statuses = set()
        for _ in range(3):
            envelope = wire.envelope()
            assert envelope is not None
            statuses.add((envelope["status"], envelope.get("id")))
        assert statuses == {(1, None), (0, 3)}

    @pytest.mark.parametrize("size", [(5 << 20) + 1, 2**32 - 1, int.from_bytes(b"GET ")])
    def test_oversized_frame_closes_the_connection(self, wire: csil.Wire, size: int) -> None:
        wire.send(csil.request("GetQueues", EMPTY))
        assert wire.envelope() is not None
        wire.send(size.to_bytes(4))
        assert wire.envelope() is None

    @pytest.mark.parametrize("part", [b"\x00", b"\x00\x00\x10\x00", b"\x00\x00\x10\x00" + b"x" * 4000])
    def test_partial_frame_has_a_deadline(
        self, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch, part: bytes
    ) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._DEADLINE_S", 0.2)
        wire.send(part)
        assert wire.envelope() is None

    def test_a_slow_frame_has_the_same_deadline(
        self, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._DEADLINE_S", 0.3)
        start_s = time.monotonic()

        def trickle() -> None:
            for byte in b"\x00\x00\x10\x00" + b"x" * 4000:
                wire.send(bytes([byte]))
                time.sleep(0.01)

        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            trickle()
        assert time.monotonic() - start_s < 5

    def test_a_connection_may_be_idle(self, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._DEADLINE_S", 0.1)
        wire.call("GetQueues")
        wire.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1)
        wire.socket.settimeout(20)
        wire.send(csil.request("GetQueues", EMPTY))
        assert wire.socket.recv(4)

    def test_unread_answers_close_the_connection(
        self, csil_server: EmbeddedCorndogs, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._DEADLINE_S", 0.3)
        task = wire.call("SubmitTask", payload=b"x" * 4_000_000)["task"]
        look = csil.request("GetTaskStateByID", cbor2.dumps({"uuid": task["uuid"], "queue": ""}))
        wire.send(look * 10)
        assert csil_server._csil is not None
        connections = csil_server._csil._connections
        wait_until(lambda: not connections, 10, "the connection is closed")

    def test_connections_beyond_the_limit_are_closed(
        self, csil_server: EmbeddedCorndogs, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reactorcide.corndogs.csil.server._MAX_CONNECTIONS", 2)
        wire.call("GetQueues")
        with csil.Wire(csil_server.csil_address) as second, csil.Wire(csil_server.csil_address) as third:
            second.call("GetQueues")
            assert third.envelope() is None
        wire.call("GetQueues")
        assert csil_server._csil is not None
        connections = csil_server._csil._connections
        wait_until(lambda: len(connections) == 1, 10, "the second one is gone")
        with csil.Wire(csil_server.csil_address) as fourth:
            fourth.call("GetQueues")


class TestStartAndStop:
    def test_port_in_use_is_refused_and_leaves_nothing_open(self, database_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            server = EmbeddedCorndogs(database_path, csil_port=port)
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} .*already in use"):
                server.start()
        server.start()
        with csil.Wire(f"127.0.0.1:{port}") as wire:
            wire.call("GetQueues")
        server.stop()

    def test_without_a_port_no_server_starts(self, server: EmbeddedCorndogs) -> None:
        assert server._csil is None

    def test_stop_waits_for_running_calls(
        self, csil_server: EmbeddedCorndogs, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, go_on = threading.Event(), threading.Event()

        def slow(self: TaskStorage, queue: str) -> dict[str, int]:
            running.set()
            assert go_on.wait(30)
            return {"slow": 1}

        monkeypatch.setattr(TaskStorage, "state_counts", slow)
        wire.send(csil.request("GetTaskStateCounts", cbor2.dumps({"queue": "q"})))
        assert running.wait(30)
        stopper = threading.Thread(target=csil_server.stop)
        stopper.start()
        wait_until(lambda: not listens(csil_server.csil_address), 10, "it listens no more")
        go_on.set()
        assert wire.message()["state_counts"] == {"slow": 1}
        assert wire.envelope() is None
        stopper.join()

    def test_stop_returns_before_a_call_beyond_its_deadline(
        self, csil_server: EmbeddedCorndogs, wire: csil.Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, go_on = threading.Event(), threading.Event()

        def slow(self: TaskStorage, queue: str) -> dict[str, int]:
            running.set()
            assert go_on.wait(30)
            return {}

        monkeypatch.setattr(TaskStorage, "state_counts", slow)
        wire.send(csil.request("GetTaskStateCounts", cbor2.dumps({"queue": "q"})))
        assert running.wait(30)
        stopper = threading.Thread(target=csil_server.stop, args=(0.1,))
        stopper.start()
        assert wire.envelope() is None
        assert stopper.is_alive()
        go_on.set()
        stopper.join()

    def test_connections_during_a_stop_are_closed(self, database_path: Path) -> None:
        for _ in range(20):
            server = EmbeddedCorndogs(database_path, csil_port=0)
            server.start()
            host, _, port = server.csil_address.rpartition(":")
            clients = [socket.create_connection((host, int(port)), 10.0) for _ in range(10)]
            server.stop()
            for client in clients:
                with client, suppress(ConnectionError):
                    assert client.recv(1) == b""
        # One that is not closed warns when it is collected.
        gc.collect()

    def test_nothing_is_left_open(self, database_path: Path) -> None:
        def cycle() -> None:
            server = EmbeddedCorndogs(database_path, csil_port=0)
            server.start()
            with closing(CsilCorndogs(server.csil_address)) as client:
                client.submit_task("q")
            idle = CsilCorndogs(server.csil_address)
            idle.submit_task("q")
            server.stop()
            with pytest.raises(CorndogsUnavailable):
                idle.submit_task("q")
            idle.close()

        cycle()
        threads = set(threading.enumerate())
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            cycle()
        wait_until(lambda: set(threading.enumerate()) <= threads, 20, "every thread to end")
        wait_until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, 20, "every file to close")


def test_a_group_claim_reads_the_index_of_each_queue(database_path: Path) -> None:
    storage = TaskStorage(database_path, time.time_ns)
    storage.open()
    for number in range(6):
        storage.submit(f"q{number % 3}", "submitted", "b", 0, b"", 0)
    statements: list[str] = []
    connection: Any = storage._writer
    connection.connection().set_trace_callback(statements.append)
    assert storage.claim(["q0", "q1", "q1", "none"], "submitted", 0, "", "") is not None
    storage.close()
    selects = [statement for statement in statements if statement.lstrip().startswith("SELECT")]
    assert len(selects) == 3
    assert "LIMIT 1" in storage_module._NEXT


class HeldExecutor(Executor):
    """Carries out nothing until it is told to."""

    def __init__(self) -> None:
        self.held: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.max_held = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.held.append((future, lambda: fn(*args, **kwargs)))
        self.max_held = max(self.max_held, len(self.held))
        return future

    def carry_out(self, place: int) -> None:
        future, call = self.held.pop(place)
        future.set_result(call())


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True
