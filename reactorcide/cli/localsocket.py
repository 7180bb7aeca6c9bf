"""The socket in the data directory: how the command line reaches the service of its own user.

The service listens here beside ``--host`` and ``--port``, and answers the same: a token is needed here, too.
But the client can find out whose process listens, which a port does not tell.

The path of a socket has at most 107 bytes, and a data directory may lie deeper. So the directory is opened,
and the socket is named below ``/proc/self/fd``.
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
"""The address of everybody who comes over the socket, for what knows addresses as a host and a port."""

_BACKLOG = 128


class Listener(socket.socket):
    """The listening socket, for a server that expects a host and a port as an address.

    gunicorn would remove the file of a socket with a path for its name, and fail where it is gone already.
    """

    @property
    def sock(self) -> "Listener":
        """Return itself: gunicorn's own listeners have the socket there."""
        return self

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a connection and ``PEER``."""
        connection, _ = super().accept()
        return connection, PEER

    def getsockname(self) -> tuple[str, int]:
        """Return ``PEER``."""
        return PEER


class Stranger(ReactorcideError):
    """The socket is not for this user, or somebody else than its owner listens on it."""


def listen(data_dir: Path) -> Listener:
    """Return a socket that listens in the data directory, for its user alone.

    Only for the process that has locked the directory, for a socket that is there already is taken for the
    remains of a service that was killed. Raises ``OSError`` where the file system has no sockets, or
    something else is in its place.
    """
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _opened(data_dir) as path:
            _remove(path)
            # The directory may be open to others; whoever may write to a socket may connect to it.
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
    """Remove the socket, if there is one. Only for the process that has locked the directory."""
    with contextlib.suppress(OSError), _opened(data_dir) as path:
        _remove(path)


def connect(data_dir: Path, timeout_s: float | None) -> socket.socket:
    """Return a connection to the service that works on the data directory.

    Raises ``OSError`` where none listens, and ``Stranger`` where it is not this user's or root's: whoever
    listens there would be sent this user's token.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout_s is not None:
            # A full queue is waited for in the kernel; with a timeout of Python's own it would be an error.
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
    """Raise ``Stranger`` unless the process that listens is of this user, or root's."""
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
