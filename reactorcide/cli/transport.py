"""HTTP with limits on what a server can send, also over the socket in the data directory.

A separate module, because it is imported late, like the library.
"""

import io
import socket
from http.client import HTTPResponse
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from reactorcide.cli import localsocket

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_HEAD_BYTES = 256 << 10


class TooLong(Exception):
    """The server exceeded a limit; the connection cannot be used any more."""

    def __init__(self, what: str, max_bytes: int) -> None:
        super().__init__(what)
        self.what = what
        self.max_bytes = max_bytes


class HttpSession(requests.Session):
    """A session that follows no redirect: a redirected POST would arrive as a GET.

    With ``allow_redirects=False`` the library would still read the whole body of a redirect.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target."""


class Adapter(HTTPAdapter):
    """Bounds each answer: its head by bytes and the read timeout as a whole, its body by ``limit_body``."""

    def cert_verify(self, conn: Any, *args: Any, **kwargs: Any) -> None:
        """Prepare a pool of connections for a request; called by the library."""
        super().cert_verify(conn, *args, **kwargs)  # type: ignore[no-untyped-call]  # types-requests has no types
        if conn.ConnectionCls.response_class is not _Answer:
            # A subclass of each class: those for proxies differ.
            conn.ConnectionCls = type("Connection", (conn.ConnectionCls,), {"response_class": _Answer})


class LocalAdapter(Adapter):
    """Connects to the service that works on ``data_dir``, whatever host a URL names."""

    def __init__(self, data_dir: Path, connect_s: float) -> None:
        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = localsocket.connect(data_dir, connect_s)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        self._pool = Pool
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of connections; called by the library."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": self._pool}


def limit_body(response: requests.Response, max_bytes: int, within_s: float = float("inf")) -> None:
    """Limit what is received from now on, before it is decoded; past it ``TooLong`` or a timeout is raised.

    That includes what the library reads and drops: the sizes of chunks, trailers, empty compressed blocks.
    """
    answer: Any = response.raw._original_response
    answer.reader.limit("a body", max_bytes, within_s)


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.reader = _Reader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self.reader)


class _Reader(io.RawIOBase):
    """Reads from a socket up to a number of bytes and a deadline; each read has the socket's timeout, too."""

    def __init__(self, sock: socket.socket, file: io.RawIOBase) -> None:
        self._sock = sock
        self._file = file
        # Every request has a timeout.
        self._silence_s = sock.gettimeout() or 0.0
        self.limit("a head", _MAX_HEAD_BYTES, self._silence_s)

    def limit(self, what: str, max_bytes: int, within_s: float) -> None:
        self._what = what
        self._max_bytes = self._remaining_bytes = max_bytes
        self._ends_at = monotonic() + within_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        if self._remaining_bytes <= 0:
            raise TooLong(self._what, self._max_bytes)
        timeout_s = min(self._silence_s, self._ends_at - monotonic())
        if timeout_s <= 0:
            raise TimeoutError
        self._sock.settimeout(timeout_s)
        try:
            size = self._file.readinto(buffer)
        finally:
            # The next request on this connection is sent with it.
            self._sock.settimeout(self._silence_s)
        self._remaining_bytes -= size or 0
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
