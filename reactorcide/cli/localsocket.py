"""The socket in the data directory, by which the command line reaches its own user's service.

The service listens on it in addition to ``--host`` and ``--port``, with the same API and tokens. Unlike on a
port, the client can check which user's process listens.

A socket's path has at most 107 bytes, and the data directory's may be longer. So the directory is opened, and
the socket is named below ``/proc/self/fd``.
"""

import contextlib
import errno
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from reactorcide.domain.errors import ReactorcideError
from reactorcide.settings import Settings

PEER = ("unix", 0)
"""The address of all clients of the socket, as a host and a port."""

_BACKLOG = 128


class Listener(socket.socket):
    """The listening socket, for a server that expects a host and a port as an address.

    With a path as its name, gunicorn would remove the socket's file, and fail if it is missing.
    """

    @property
    def sock(self) -> "Listener":
        """Return itself: gunicorn expects the socket in this attribute."""
        return self

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a connection and ``PEER``."""
        connection, _ = super().accept()
        return connection, PEER

    def getsockname(self) -> tuple[str, int]:
        """Return ``PEER``."""
        return PEER


class Stranger(ReactorcideError):
    """The socket belongs to another user, or another user's process listens on it."""


def listen(data_dir: Path) -> Listener:
    """Return a socket that listens in the data directory, accessible to its user only.

    Only for the process that holds the directory's lock: it replaces an existing socket as that of a killed
    service. Raises ``OSError`` if the file system has no sockets, or another file has the socket's name.
    """
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _opened(data_dir) as path:
            _remove(path)
            # The directory may be open to others, and write permission on a socket allows to connect.
            before = os.umask(0o177)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def remove(data_dir: Path) -> None:
    """Remove the socket, if there is one. Only for the process that holds the directory's lock."""
    with contextlib.suppress(OSError), _opened(data_dir) as path:
        _remove(path)


def connect(data_dir: Path, timeout_s: float | None) -> socket.socket:
    """Return a connection to the service of the data directory.

    Raises ``OSError`` if none listens, and ``Stranger`` if the listening process is not this user's or
    root's: it would receive this user's token.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout_s is not None:
            # The kernel waits while the backlog is full; with Python's timeout that would be an error.
            limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        with _opened(data_dir) as path:
            connection.connect(path)
        _check_peer(connection, data_dir)
        connection.settimeout(timeout_s)
    except PermissionError as exc:
        connection.close()
        raise Stranger(
            f"the service in {data_dir} is another user's: set REACTORCIDE_API_URL to its address, and "
            "REACTORCIDE_API_TOKEN to a token of yours"
        ) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _check_peer(connection: socket.socket, data_dir: Path) -> None:
    """Raise ``Stranger`` unless the listening process is this user's or root's."""
    size_bytes = struct.calcsize("iii")
    _, uid, _ = struct.unpack("iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size_bytes))
    if uid not in (0, os.geteuid()):
        raise Stranger(
            f"the user {_name_of(uid)} listens in {data_dir}, and is sent no token of yours: run this "
            "command as that user, or set REACTORCIDE_API_URL and REACTORCIDE_API_TOKEN"
        )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def _opened(data_dir: Path) -> Iterator[str]:
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{Settings(data_dir=data_dir).socket_path.name}"
    finally:
        os.close(directory)


def _remove(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, f"there is something else called {os.path.basename(path)}")
    os.unlink(path)
