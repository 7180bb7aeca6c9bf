"""How the gRPC client fails, and how it recovers."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import Corndogs, Task
from reactorcide.domain.errors import CorndogsError, CorndogsUnavailable, InvalidInput


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_client_implements_the_protocol(client: GrpcCorndogs) -> None:
    corndogs: Corndogs = client  # what mypy checks here is the test
    corndogs.check_health()


def test_missing_server_is_unavailable_at_once(server: EmbeddedCorndogs) -> None:
    server.stop()
    client = GrpcCorndogs(server.address, deadline_s=30)
    started = time.monotonic()
    with pytest.raises(CorndogsUnavailable, match="does not answer"):
        client.submit_task("q")
    with pytest.raises(CorndogsUnavailable):
        client.check_health()
    assert time.monotonic() - started < 10
    client.close()


def test_claim_has_a_longer_deadline_than_other_calls(silent_address: str) -> None:
    client = GrpcCorndogs(silent_address, deadline_s=0.2)
    start_s = time.monotonic()
    with pytest.raises(CorndogsUnavailable):
        client.get_next_task("q")
    assert time.monotonic() - start_s >= 0.6
    client.close()


def test_a_server_that_does_not_answer_is_unavailable_at_the_deadline(silent_address: str) -> None:
    client = GrpcCorndogs(silent_address, deadline_s=0.2)
    started = time.monotonic()
    with pytest.raises(CorndogsUnavailable, match="DEADLINE_EXCEEDED"):
        client.queues()
    assert 0.2 <= time.monotonic() - started < 2
    client.close()


def test_client_reconnects_to_a_server_that_is_back(database_path: Path) -> None:
    first = EmbeddedCorndogs(database_path)
    first.start()
    client = GrpcCorndogs(first.address)
    client.submit_task("q")
    first.stop()
    with pytest.raises(CorndogsUnavailable):
        client.get_next_task("q")
    second = EmbeddedCorndogs(database_path, port=first.port)
    second.start()
    assert _keep_claiming(client, lambda task: task is not None, within_s=10)
    client.close()
    second.stop()


def test_reconnect_to_a_missing_server_is_tried_soon() -> None:
    attempts: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while len(attempts) < 6:
                listener.accept()[0].close()
                attempts.append(time.monotonic())

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        client = GrpcCorndogs(f"127.0.0.1:{listener.getsockname()[1]}")
        _keep_claiming(client, lambda task: len(attempts) == 6, within_s=30)
        hanging_up.join()
        client.close()
    # By default gRPC pauses for 1, 1.6, 2.6, 4.1, … seconds: 15 in all.
    assert attempts[-1] - attempts[0] < 5


def test_refusal_of_the_server_is_an_error_and_its_reason_is_logged(
    client: GrpcCorndogs, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CorndogsError, match=r"refused SubmitTask \(INVALID_ARGUMENT\)") as caught:
        client.submit_task("q", priority=2**31)
    assert "is not a signed 32 bit number" in caplog.text
    assert not isinstance(caught.value, CorndogsUnavailable)
    assert caught.value.__cause__ is not None


_BY_UUID: list[Callable[[GrpcCorndogs, str], object]] = [
    lambda client, uuid: client.get_task(uuid, "q"),
    lambda client, uuid: client.complete_task(uuid, "q", "submitted"),
    lambda client, uuid: client.cancel_task(uuid, "q", "submitted"),
    lambda client, uuid: client.update_task(
        uuid, "q", "submitted", new_state="a", auto_target_state="b", timeout_s=0, priority=0
    ),
]


@pytest.mark.parametrize("call", _BY_UUID)
@pytest.mark.parametrize("uuid", ["", "1", "not-a-uuid", "00000000-0000-0000-0000-00000000000", " " * 36])
def test_malformed_uuid_is_not_sent(
    silent_address: str, call: Callable[[GrpcCorndogs, str], object], uuid: str
) -> None:
    sent: list[str] = []
    client = GrpcCorndogs(silent_address, on_call=lambda rpc, status, seconds: sent.append(rpc))
    with pytest.raises(InvalidInput) as caught:
        call(client, uuid)
    client.close()
    assert caught.value.field == "uuid"
    assert sent == []


def test_every_call_is_reported(server: EmbeddedCorndogs) -> None:
    calls: list[tuple[str, str]] = []
    durations: list[float] = []

    def on_call(rpc: str, status: str, seconds: float) -> None:
        calls.append((rpc, status))
        durations.append(seconds)

    client = GrpcCorndogs(server.address, on_call=on_call)
    client.submit_task("q")
    client.check_health()
    server.stop()
    with pytest.raises(CorndogsUnavailable):
        client.queues()
    client.close()
    assert calls == [("SubmitTask", "OK"), ("GetTaskStateByID", "OK"), ("GetQueues", "UNAVAILABLE")]
    assert all(0 < seconds < 10 for seconds in durations)


def test_closed_client_is_unavailable(server: EmbeddedCorndogs) -> None:
    client = GrpcCorndogs(server.address)
    client.submit_task("q")
    client.close()
    client.close()
    with pytest.raises(CorndogsUnavailable, match="closed"):
        client.submit_task("q")


def test_closing_ends_a_running_call(client: GrpcCorndogs, monkeypatch: pytest.MonkeyPatch) -> None:
    running, go_on = threading.Event(), threading.Event()

    def stuck(self: TaskStorage, queue: str) -> dict[str, int]:
        running.set()
        assert go_on.wait(30)
        return {}

    monkeypatch.setattr(TaskStorage, "state_counts", stuck)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.task_state_counts("q")
        except CorndogsError as exc:
            errors.append(exc)

    caller = threading.Thread(target=call)
    caller.start()
    assert running.wait(30)
    client.close()
    caller.join()
    go_on.set()
    assert [type(error) for error in errors] == [CorndogsUnavailable]


def test_constructor_does_not_connect() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        client = GrpcCorndogs(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TimeoutError):
            listener.accept()
        client.close()


def test_a_proxy_in_the_environment_is_not_used(
    server: EmbeddedCorndogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["http_proxy", "https_proxy", "grpc_proxy"]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ["no_proxy", "no_grpc_proxy", "NO_PROXY"]:
        monkeypatch.delenv(name, raising=False)
    client = GrpcCorndogs(server.address)
    client.submit_task("q")
    client.close()


def _keep_claiming(client: GrpcCorndogs, done: Callable[[Task | None], bool], within_s: float) -> bool:
    """Claim until ``done`` says so; tell whether it did in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            task = client.get_next_task("q")
        except CorndogsUnavailable:
            task = None
        if done(task):
            return True
        time.sleep(0.01)
    return False


_IMPORT = """
import os, pathlib, sys, threading
before = set(os.listdir("/proc/self/fd"))
import reactorcide.corndogs.task
import reactorcide.corndogs.connect
assert "grpc" not in sys.modules
import reactorcide.corndogs.client
assert "peewee" not in sys.modules
import reactorcide.corndogs.server
import reactorcide.corndogs.proto.generate
assert "grpc_tools.protoc" not in sys.modules
assert "cbor2" not in sys.modules
assert threading.active_count() == 1
assert len(os.listdir("/proc/self/task")) == 1
assert set(os.listdir("/proc/self/fd")) == before
"""


_WITHOUT_CBOR2 = """
from reactorcide.corndogs.connect import connect
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.errors import ConfigurationError
sys.modules["cbor2"] = None
missing = pathlib.Path("missing.db")
for use in (lambda: connect("csil://127.0.0.1:1"), EmbeddedCorndogs(missing, csil_port=0).start):
    try:
        use()
    except ConfigurationError as exc:
        assert "pip install 'reactorcide[scale]'" in str(exc)
    else:
        raise AssertionError
assert not missing.exists()
connect("grpc://127.0.0.1:1").close()
"""


def test_import_starts_nothing_and_works_without_cbor2(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [sys.executable, "-c", _IMPORT + _WITHOUT_CBOR2], check=True, env=environment, cwd=tmp_path
    )


@pytest.mark.parametrize("answer", ["csil", "http", "nothing"])
def test_unknown_protocol_is_a_clear_error(csil_server: EmbeddedCorndogs, answer: str) -> None:
    with ExitStack() as opened:
        address = csil_server.csil_address
        if answer != "csil":
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            address = f"127.0.0.1:{listener.getsockname()[1]}"

            def hang_up() -> None:
                connection, _ = listener.accept()
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" if answer == "http" else b"")
                connection.recv(1000)
                connection.close()

            threading.Thread(target=hang_up).start()
        client = opened.enter_context(closing(GrpcCorndogs(address)))
        with pytest.raises(CorndogsUnavailable, match=r"0\.7\.1 and later have addresses with csil://"):
            client.check_health()
