"""The connection of an attach: how much is read of it at a time."""

import socket
import ssl
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from reactorcide.runner.docker.output import _FLOOD_PAUSE_S, DockerAttachedOutput
from reactorcide.runner.handover import ACKNOWLEDGEMENT
from tests.support.certificate import make_certificate


def frame(data: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def acknowledged(ours: socket.socket, engine: socket.socket) -> DockerAttachedOutput:
    """Return an output whose command was handed over."""
    output = DockerAttachedOutput(ours, "mark")  # type: ignore[arg-type]  # of an answer only this is closed
    engine.sendall(frame(ACKNOWLEDGEMENT, 2) + frame(ACKNOWLEDGEMENT))
    while not output.acknowledged:
        assert output.read(20) == []
    return output


class Attached:
    """Both ends of a connection, and the pauses in reading it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.engine = socket.socketpair()
        monkeypatch.setattr("reactorcide.runner.docker.output._socket_of", lambda _: self.ours)
        self.output = acknowledged(self.ours, self.engine)
        self.pauses_s: list[float] = []
        self.printed_meanwhile = b""
        monkeypatch.setattr("reactorcide.runner.docker.output.sleep", self.pause)
        monkeypatch.setattr("reactorcide.runner.docker.output.monotonic", lambda: 1.0)

    def pause(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.engine.sendall(frame(self.printed_meanwhile))

    def read(self) -> bytes:
        printed = self.output.read(20)
        assert printed
        return b"".join(data for _, data in printed)


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    connection = Attached(monkeypatch)
    with closing(connection.engine), closing(connection.output):
        yield connection


def test_flood_of_output_is_read_in_large_chunks(attached: Attached) -> None:
    attached.printed_meanwhile = b"b" * 20_000
    attached.engine.sendall(frame(b"a" * 20_000))
    assert attached.read() == b"a" * 20_000
    assert attached.pauses_s == []
    attached.engine.sendall(frame(b"a" * 20_000))
    assert attached.read() == b"a" * 20_000 + b"b" * 20_000
    assert attached.pauses_s == pytest.approx([_FLOOD_PAUSE_S])


@pytest.mark.parametrize("size_bytes", [1, 10_000, 150_000])
def test_few_lines_and_large_chunks_are_returned_at_once(attached: Attached, size_bytes: int) -> None:
    for _ in range(3):
        attached.engine.sendall(frame(b"x" * size_bytes))
        assert attached.read() == b"x" * size_bytes
    assert attached.pauses_s == []


def test_all_buffered_bytes_of_tls_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.cert, certificate.key)
    client = ssl.create_default_context(cafile=str(certificate.cert))
    near, far = socket.socketpair()
    with ThreadPoolExecutor() as pool:
        shaken = pool.submit(server.wrap_socket, far, server_side=True)
        ours = client.wrap_socket(near, server_hostname="localhost")
        engine = shaken.result(10)
    monkeypatch.setattr("reactorcide.runner.docker.output._socket_of", lambda _: ours)
    with closing(engine), closing(acknowledged(ours, engine)) as output:
        # More than a record holds.
        engine.sendall(frame(b"x" * 100_000))
        printed = output.read(20)
        assert printed
        assert b"".join(data for _, data in printed) == b"x" * 100_000
