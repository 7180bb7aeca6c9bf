"""The socket in the data directory: who may listen there, who may connect, and what is in its way."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from reactorcide.cli import localsocket
from reactorcide.cli.client import Client
from reactorcide.cli.session import ServiceAway
from tests.support.waiting import wait_until

_NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def test_socket_is_private_to_its_user(tmp_path: Path) -> None:
    with closing(localsocket.listen(tmp_path)):
        assert stat.S_IMODE((tmp_path / "api.sock").stat().st_mode) == 0o600
    localsocket.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
    localsocket.remove(tmp_path)
    localsocket.remove(tmp_path / "nothing")


def test_long_data_directory_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with closing(localsocket.listen(deep)) as listener, closing(localsocket.connect(deep, 5)) as client:
        connection, peer = listener.accept()
        with connection:
            assert peer == ("unix", 0)
            client.sendall(b"hello")
            assert connection.recv(5) == b"hello"


def test_the_socket_of_a_killed_service_is_replaced(tmp_path: Path) -> None:
    localsocket.listen(tmp_path).close()
    with pytest.raises(ConnectionRefusedError):
        localsocket.connect(tmp_path, 5)
    with closing(localsocket.listen(tmp_path)):
        localsocket.connect(tmp_path, 5).close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_file_that_is_not_a_socket_is_not_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "api.sock"
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("elsewhere")
    else:
        path.write_text("somebody's")
    with pytest.raises(FileExistsError, match="something else"):
        localsocket.listen(tmp_path)
    localsocket.remove(tmp_path)
    assert path.is_symlink() or path.exists()


def test_a_file_system_without_sockets_is_an_error() -> None:
    with pytest.raises(OSError, match=r"Operation not permitted|Permission denied"):
        localsocket.listen(Path("/sys/kernel"))


def test_service_that_does_not_accept_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localsocket, "_BACKLOG", 0)
    with closing(localsocket.listen(tmp_path)), closing(localsocket.connect(tmp_path, 5)):
        with pytest.raises(BlockingIOError):
            localsocket.connect(tmp_path, 0.2)
        monkeypatch.setattr("reactorcide.cli.session.CONNECT_S", 0.2)
        with Client(tmp_path, "t", "") as client, pytest.raises(ServiceAway, match="no service runs"):
            client.health()


@contextmanager
def somebody_else_listening(directory: Path, received: Path) -> Iterator[None]:
    """Have another user listen in a directory, and note all that they are sent."""
    os.chown(directory, _NOBODY, _NOBODY)
    script = (
        "import os, socket, sys\n"
        f"listener = socket.socket(socket.AF_UNIX); os.setuid({_NOBODY})\n"
        "listener.bind('api.sock'); listener.listen()\n"
        "print('listens', flush=True)\n"
        "while True:\n"
        "    connection, _ = listener.accept()\n"
        "    connection.settimeout(5)\n"
        "    print('received', connection.recv(65536), flush=True)\n"
    )
    with (
        received.open("wb") as output,
        subprocess.Popen([sys.executable, "-c", script], cwd=directory, stdout=output) as process,
    ):
        try:
            wait_until(lambda: b"listens" in received.read_bytes(), 10, "the other user listens")
            yield
        finally:
            process.kill()


@as_root
def test_nothing_is_sent_to_a_socket_of_another_user(tmp_path: Path) -> None:
    received = tmp_path / "received"
    directory = tmp_path / "data"
    directory.mkdir()
    with somebody_else_listening(directory, received), Client(directory, "rct_secret", "") as client:
        with pytest.raises(localsocket.Stranger, match="the user nobody listens"):
            client.health()
        wait_until(lambda: b"received" in received.read_bytes(), 10, "the other user was called")
    assert received.read_bytes() == b"listens\nreceived b''\n"


@as_root
def test_client_of_another_user_is_refused_with_advice(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with closing(localsocket.listen(tmp_path)), Client(tmp_path, None, "") as client:
        # Whatever is imported late must be there by now: the other user may not read it.
        localsocket.connect(tmp_path, 5).close()
        for mode in (0o700, 0o755):
            tmp_path.chmod(mode)
            os.seteuid(_NOBODY)
            try:
                with pytest.raises(localsocket.Stranger, match="REACTORCIDE_API_URL"):
                    client.health()
            finally:
                os.seteuid(0)


@as_root
def test_socket_of_root_is_trusted_by_all_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(localsocket.listen(tmp_path)):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        localsocket.connect(tmp_path, 5).close()


def test_gunicorn_does_not_remove_the_socket() -> None:
    with closing(localsocket.Listener(socket.AF_UNIX)) as listener:
        assert listener.getsockname() == localsocket.PEER
