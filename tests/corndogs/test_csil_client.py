"""Failures and recovery of the CSIL client, also with a server that sends arbitrary answers."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest

from reactorcide.corndogs.csil.client import CsilCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable
from tests.support import csil
from tests.support.waiting import wait_until

UUID = "0b6d6c1e-7a0c-4a55-9f43-2f6a1f0f3c11"
TASK: dict[str, Any] = {
    "uuid": UUID,
    "queue": "q",
    "current_state": "a",
    "auto_target_state": "b",
    "submit_time": 1,
    "update_time": 2,
    "timeout": 0,
    "priority": 0,
}
SECRET = "failed to connect to `host=db.internal user=corndogs_admin database=prod`"

Answer = Callable[[csil.Wire, dict[str, Any]], None]


class Server:
    """Accepts connections, and calls ``answer`` with each request's envelope."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self.answer: Answer = lambda wire, envelope: None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                wire = csil.Wire(self._listener.accept()[0])
                self.accepted += 1
                threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: csil.Wire) -> None:
        with wire, suppress(OSError, ValueError):
            while (envelope := wire.envelope()) is not None:
                self.answer(wire, envelope)


@pytest.fixture
def fake() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


def saying(payload: Any, **others: Any) -> Answer:
    """Answer each request with this message."""
    return lambda wire, envelope: wire.send(csil.response(payload, **{"id": envelope["id"], **others}))


def sending(data: bytes) -> Answer:
    return lambda wire, envelope: wire.send(data)


CALLS: dict[str, Callable[[CsilCorndogs], object]] = {
    "GetNextTask": lambda client: client.get_next_task("q"),
    "SubmitTask": lambda client: client.submit_task("q"),
    "GetTaskStateByID": lambda client: client.get_task(UUID, "q"),
    "UpdateTask": lambda client: client.update_task(
        UUID, "q", "a", new_state="b", auto_target_state="c", timeout_s=0, priority=0
    ),
    "CompleteTask": lambda client: client.complete_task(UUID, "q", "a"),
    "CancelTask": lambda client: client.cancel_task(UUID, "q", "a"),
    "CleanUpTimedOut": lambda client: client.clean_up_timed_out(0, "q"),
    "GetQueues": lambda client: client.queues(),
    "GetQueueTaskCounts": lambda client: client.queue_task_counts(),
    "GetTaskStateCounts": lambda client: client.task_state_counts("q"),
    "GetQueueAndStateCounts": lambda client: client.queue_and_state_counts(),
}


class TestAnswers:
    def test_answers_in_any_order_are_matched_by_id(self, fake: Server) -> None:
        held: list[tuple[csil.Wire, dict[str, Any]]] = []

        def answer(wire: csil.Wire, envelope: dict[str, Any]) -> None:
            held.append((wire, envelope))
            if len(held) == 20:
                for wire, envelope in reversed(held):
                    queue = cbor2.loads(envelope["payload"].value)["queue"]
                    saying({"queue": queue, "count": 1, "state_counts": {queue: 1}})(wire, envelope)

        fake.answer = answer
        answers: dict[str, dict[str, int]] = {}
        with closing(CsilCorndogs(fake.address, deadline_s=20)) as client:
            in_threads(20, lambda place: answers.update({f"q{place}": client.task_state_counts(f"q{place}")}))
        assert answers == {f"q{place}": {f"q{place}": 1} for place in range(20)}
        assert fake.accepted == 1

    def test_late_answer_is_dropped(self, fake: Server) -> None:
        late: list[tuple[csil.Wire, dict[str, Any]]] = []

        def answer(wire: csil.Wire, envelope: dict[str, Any]) -> None:
            if not late:
                late.append((wire, envelope))
                return
            saying({"timed_out": 1})(*late[0])
            saying({"timed_out": 2})(wire, envelope)

        fake.answer = answer
        with closing(CsilCorndogs(fake.address, deadline_s=0.2)) as client:
            with pytest.raises(CorndogsUnavailable, match="DEADLINE_EXCEEDED"):
                client.clean_up_timed_out(0, "q")
            assert client.clean_up_timed_out(0, "q") == 2
        assert fake.accepted == 1

    @pytest.mark.parametrize("rpc", CALLS)
    @pytest.mark.parametrize(
        "payload",
        [
            pytest.param([], id="not a map"),
            pytest.param({"task": {**TASK, "priority": 2**64 - 1}, "delivery": 1}, id="beyond 64 bits"),
            pytest.param({"task": {**TASK, "timeout": True}, "delivery": {}}, id="true for a number"),
            pytest.param({"task": None, "delivery": None, "queues": [1], "total_task_count": 1}, id="null"),
            pytest.param(
                {
                    "task": TASK | {"uuid": UUID.upper()},
                    "delivery": {"task": TASK | {"queue": "another"}, "payload": b""},
                    "queue_counts": {"q": "1"},
                    "state_counts": {b"q": 1},
                    "queue_and_state_counts": {"q": [1]},
                },
                id="another task, counts that are none",
            ),
        ],
    )
    def test_unreadable_answer_is_an_error(self, fake: Server, rpc: str, payload: object) -> None:
        fake.answer = saying({})
        with closing(CsilCorndogs(fake.address)) as client:
            client.check_health()
            fake.answer = saying(payload)
            with pytest.raises(CorndogsError, match=f"answered {rpc} with") as caught:
                CALLS[rpc](client)
        assert not isinstance(caught.value, CorndogsUnavailable)

    @pytest.mark.parametrize("variant", ["status", "ServiceError"])
    def test_text_of_an_error_is_only_logged(
        self, fake: Server, variant: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        statuses: list[str] = []
        if variant == "status":
            fake.answer = saying({}, status=6, error=SECRET)
        else:
            fake.answer = saying({"code": 1, "message": SECRET}, variant=variant)
        with closing(CsilCorndogs(fake.address, on_call=recording(statuses))) as client:
            for _ in range(2):
                with pytest.raises(CorndogsError, match="refused SubmitTask") as caught:
                    client.submit_task("q")
        assert not any(word in str(caught.value) for word in ("db.internal", "corndogs_admin", "127.0.0.1"))
        assert [SECRET in record.getMessage() for record in caplog.records] == [True]
        assert statuses == ["INTERNAL" if variant == "status" else "UNKNOWN"] * 2

    def test_unknown_status_of_a_server_does_not_become_a_metric_label(self, fake: Server) -> None:
        statuses: list[str] = []
        fake.answer = saying({}, status=12345, error="x")
        with (
            closing(CsilCorndogs(fake.address, on_call=recording(statuses))) as client,
            pytest.raises(CorndogsError),
        ):
            client.queues()
        assert statuses == ["UNKNOWN"]

    def test_node_that_is_not_the_leader_is_unavailable(self, fake: Server) -> None:
        fake.answer = saying({}, status=6, error="not-leader leader=10.0.0.9:5080")
        with (
            closing(CsilCorndogs(fake.address)) as client,
            pytest.raises(CorndogsUnavailable, match="name the leader's address") as caught,
        ):
            client.submit_task("q")
        assert "10.0.0.9" not in str(caught.value)


class TestVersion:
    def test_version_0_7_0_is_named_and_yields_no_task(self, fake: Server) -> None:
        operations: list[str] = []

        def answer(wire: csil.Wire, envelope: dict[str, Any]) -> None:
            operations.append(envelope["op"])
            error = 'csil cbor: missing field "payload"'
            saying({}, status=6, error=error)(wire, envelope)

        fake.answer = answer
        with closing(CsilCorndogs(fake.address)) as client:
            calls: list[Callable[[], object]] = [client.check_health, lambda: client.get_next_task("q")]
            for call in calls:
                with pytest.raises(CorndogsError, match=r"is version 0\.7\.0; csil:// needs 0\.7\.1"):
                    call()
        assert operations == ["UpdateTask", "UpdateTask"]

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request",
            b"\x00\x00\x06\x04\x00\x00\x00\x00\x00",  # HTTP/2's first frame, as of gRPC
            b"",
        ],
    )
    def test_other_protocol_is_a_clear_error(self, fake: Server, answer: bytes) -> None:
        def hang_up(wire: csil.Wire, envelope: dict[str, Any]) -> None:
            wire.send(answer)
            wire.socket.shutdown(socket.SHUT_RDWR)

        fake.answer = hang_up
        with closing(CsilCorndogs(fake.address)) as client, pytest.raises(CorndogsUnavailable) as caught:
            client.check_health()
        assert "0.3 and earlier have addresses with grpc://" in str(caught.value)


HOSTILE = {
    "a frame that is too long": b"\xff\xff\xff\xff" + b"x" * 100,
    "an empty frame": csil.frame(b""),
    "no CBOR": csil.frame(b"\xff" * 100),
    "deep nesting": csil.frame(b"\x81" * 100_000),
    "a length beyond the frame": csil.frame(b"\x9b" + b"\xff" * 8),
    "many items": csil.frame(b"\x9a\x00\x10\x00\x00" + b"\x80" * (1 << 20)),
    "an indefinite length": csil.frame(b"\xbf\xff"),
    "a number of any size": csil.frame(b"\xc2\x5a\x00\x10\x00\x00" + b"\xff" * (1 << 20)),
    "colliding keys": csil.frame(cbor2.dumps({number << 40: 0 for number in range(50)})),
    "a doubled key": csil.frame(b"\xa2\x61v\x01\x61v\x01"),
    "no UTF-8": csil.frame(b"\xa1\x61\xff\x01"),
    "another version": csil.response({}, v=2),
    "no id": csil.response({}, id=None),
    "an id of no request": csil.response({}, id=99),
    "an id that is not a number": csil.response({}, id=True),
    "bytes after the envelope": csil.frame(csil.response({})[4:] + b"\x00"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malformed_answer_closes_the_connection_at_once(fake: Server, name: str) -> None:
    fake.answer = sending(HOSTILE[name])
    with closing(CsilCorndogs(fake.address, deadline_s=20)) as client:
        start_s = time.monotonic()
        with pytest.raises(CorndogsUnavailable, match="check that it runs"):
            client.queues()
        assert time.monotonic() - start_s < 5
        fake.answer = saying({"queues": ["q"], "total_task_count": 1})
        wait_until(lambda: answers(client.queues), 10, "the next connection answers")


def test_unrequested_answers_close_the_connection(fake: Server) -> None:
    def flood(wire: csil.Wire, envelope: dict[str, Any]) -> None:
        saying({"timed_out": 1})(wire, envelope)
        saying({"timed_out": 1})(wire, envelope)

    fake.answer = flood
    with closing(CsilCorndogs(fake.address)) as client:
        assert client.clean_up_timed_out(0, "q") == 1
        fake.answer = saying({"timed_out": 2})
        wait_until(lambda: answers(lambda: client.clean_up_timed_out(0, "q")), 10, "it is connected again")
        assert fake.accepted == 2


def test_truncated_answer_closes_the_connection(fake: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.corndogs.csil.connection._FRAME_DEADLINE_S", 0.3)
    fake.answer = sending((16 << 20).to_bytes(4) + b"x" * 1000)
    with closing(CsilCorndogs(fake.address, deadline_s=20)) as client:
        start_s = time.monotonic()
        with pytest.raises(CorndogsUnavailable):
            client.queues()
        assert 0.3 <= time.monotonic() - start_s < 5


def test_silent_server_is_disconnected(fake: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactorcide.corndogs.csil.connection._MAX_ABANDONED", 5)
    with closing(CsilCorndogs(fake.address, deadline_s=0.02)) as client:
        for _ in range(6):
            assert not answers(client.queues)
        fake.answer = saying({"queues": [], "total_task_count": 0})
        wait_until(lambda: answers(client.queues), 10, "it is connected again")
    assert fake.accepted >= 2


def test_a_request_that_the_server_does_not_read_has_a_deadline() -> None:
    failures: list[CorndogsUnavailable] = []

    def call(place: int) -> None:
        try:
            client.submit_task("q", payload=b"x" * 4_000_000)
        except CorndogsUnavailable as exc:
            failures.append(exc)

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        closing(CsilCorndogs(f"127.0.0.1:{listener.getsockname()[1]}", deadline_s=0.5)) as client,
    ):
        start_s = time.monotonic()
        in_threads(8, call)
        assert time.monotonic() - start_s < 5
    assert len(failures) == 8


class TestReconnecting:
    def test_missing_server_is_unavailable(self, server: EmbeddedCorndogs) -> None:
        server.stop()
        with closing(CsilCorndogs(server.address, deadline_s=30)) as client:
            start_s = time.monotonic()
            for _ in range(5):
                with pytest.raises(CorndogsUnavailable, match="Connection refused"):
                    client.submit_task("q")
            assert time.monotonic() - start_s < 5

    def test_reconnects_are_spaced_out(self, fake: Server) -> None:
        fake.answer = lambda wire, envelope: wire.socket.shutdown(socket.SHUT_RDWR)
        with closing(CsilCorndogs(fake.address)) as client:
            start_s = time.monotonic()
            while fake.accepted < 5:
                assert not answers(client.queues)
                time.sleep(0.002)
            # 50, 100, 200 and 400 ms, each up to a fifth less.
            assert 0.3 < time.monotonic() - start_s < 5

    def test_running_calls_of_a_lost_connection_are_unavailable(self, fake: Server) -> None:
        def hang_up(wire: csil.Wire, envelope: dict[str, Any]) -> None:
            held.append(envelope)
            if len(held) == 5:
                wire.socket.shutdown(socket.SHUT_RDWR)

        held: list[dict[str, Any]] = []
        fake.answer = hang_up
        failures: list[CorndogsError] = []

        def call(place: int) -> None:
            try:
                client.queues()
            except CorndogsUnavailable as exc:
                failures.append(exc)

        with closing(CsilCorndogs(fake.address, deadline_s=30)) as client:
            in_threads(5, call)
        assert len(failures) == 5

    def test_client_reconnects_to_a_server_that_is_back(self, database_path: Path) -> None:
        first = EmbeddedCorndogs(database_path, csil_port=0)
        first.start()
        with closing(CsilCorndogs(first.csil_address)) as client:
            task = client.submit_task("q")
            first.stop()
            wait_until(lambda: not answers(client.queues), 10, "it is away")
            second = EmbeddedCorndogs(database_path, csil_port=int(first.csil_address.rpartition(":")[2]))
            second.start()
            wait_until(lambda: answers(client.check_health), 10, "it is back")
            assert client.get_task(task.uuid, "q") == task
            second.stop()

    def test_restart_between_two_calls_is_transparent(self, database_path: Path) -> None:
        first = EmbeddedCorndogs(database_path, csil_port=0)
        first.start()
        with closing(CsilCorndogs(first.csil_address)) as client:
            client.submit_task("q")
            first.stop()
            connection = client._connection._connection
            assert connection is not None
            wait_until(lambda: connection.problem is not None, 10, "the end of the connection is known")
            second = EmbeddedCorndogs(database_path, csil_port=int(first.csil_address.rpartition(":")[2]))
            second.start()
            assert client.get_next_task("q") is not None
            second.stop()


class TestClose:
    def test_close_ends_a_running_call_and_the_thread(
        self, csil_server: EmbeddedCorndogs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        running, go_on = threading.Event(), threading.Event()

        def stuck(self: TaskStorage, queue: str) -> dict[str, int]:
            running.set()
            assert go_on.wait(30)
            return {}

        monkeypatch.setattr(TaskStorage, "state_counts", stuck)
        statuses: list[str] = []
        client = CsilCorndogs(
            csil_server.csil_address,
            deadline_s=60,
            on_call=recording(statuses),
        )
        before = set(threading.enumerate())
        caller = threading.Thread(target=lambda: answers(lambda: client.task_state_counts("q")))
        caller.start()
        assert running.wait(30)
        client.close()
        client.close()
        caller.join()
        go_on.set()
        assert statuses == ["CANCELLED"]
        assert not [
            thread for thread in set(threading.enumerate()) - before if thread.name == "corndogs-csil"
        ]

    def test_close_during_a_connect_returns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        go_on = threading.Event()

        def connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
            assert go_on.wait(30)
            raise ConnectionRefusedError

        monkeypatch.setattr("socket.create_connection", connect)
        client = CsilCorndogs("127.0.0.1:1", deadline_s=0.1)
        with pytest.raises(CorndogsUnavailable, match="DEADLINE_EXCEEDED"):
            client.queues()
        client.close()
        go_on.set()
        with pytest.raises(CorndogsUnavailable, match="was closed"):
            client.queues()


def answers(call: Callable[[], object]) -> bool:
    """Tell whether a call is answered."""
    try:
        call()
    except CorndogsUnavailable:
        return False
    return True


def recording(statuses: list[str]) -> Callable[[str, str, float], None]:
    return lambda rpc, status, seconds: statuses.append(status)


def in_threads(count: int, body: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=body, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
