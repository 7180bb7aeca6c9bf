"""One request and its answer, by the rules of WSGI (PEP 3333)."""

import contextvars
import io
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import h11

from reactorcide.server.connection import Connection

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger("reactorcide.web")

Environ = dict[str, Any]

IS_A_QUESTION = "reactorcide.asks"
"""Set for a request whose body is still to be permitted: the application answers 100 if it wants it."""
MAX_BODY_BYTES = "reactorcide.max_body_bytes"
"""Set by the application: how much of it, or ``None`` to read it while it arrives."""
CLIENT_HAS_CLOSED = "reactorcide.client_has_closed"
"""A function: whether the client has closed the connection."""
CLIENT_HAS_ENDED = "reactorcide.client_has_ended"
"""A function: whether the client has closed the connection or ended its stream."""
TAKES_LONG = "reactorcide.takes_long"
"""A function to call for a request that mostly waits, such as a follower's."""

PARK = "reactorcide.park"
"""A function for an answer that waits: called while the application yields ``b""``, it frees the thread.

It returns another function, which has the answer continued; that may be called early, and repeatedly."""


class Exchange:
    """Calls the application and sends its answer, in one thread after another as the client reads it."""

    def __init__(self, connection: Connection, application: "WSGIApplication", environ: Environ) -> None:
        self._connection = connection
        self._application = application
        self._environ = environ
        self._context = contextvars.copy_context()
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._result: Iterable[bytes] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._has_started = False
        self._takes_long = False
        self._is_parking = False
        environ[TAKES_LONG] = self._takes_long_now
        environ[PARK] = self._park
        self._has_body = environ["REQUEST_METHOD"] != "HEAD"

    def __call__(self) -> None:
        """Run until the answer is complete, or so much of it is unsent that the client has to catch up."""
        while not self._context.run(self._run):
            # Only now that this thread has left the context may another one enter it.
            is_parking, self._is_parking = self._is_parking, False
            if self._connection.park(self) if is_parking else self._connection.pause(self):
                return

    def _park(self) -> Callable[[], None]:
        self._is_parking = True
        self._connection.begin_to_park()
        return self._connection.unpark

    def _takes_long_now(self) -> None:
        self._takes_long = True
        self._connection.front.pool.takes_long()

    def _run(self) -> bool:
        """Send more of the answer; return whether it is over, complete or not."""
        if self._takes_long:
            self._takes_long_now()
        try:
            if self._result is None:
                self._result = self._application(self._environ, self._start_response)
                self._chunks = iter(self._result)
                if self._status.startswith("100 "):
                    self._close()
                    self._connection.permit(self._environ[MAX_BODY_BYTES])
                    return True
                if IS_A_QUESTION in self._environ:
                    self._connection.deny()
            while not self._connection.is_full:
                chunk = next(self._chunks, None)
                if chunk is None:
                    self._begin()
                    # The application ends its work before the client sees the end.
                    self._close()
                    self._connection.end_answer()
                    return True
                self._begin()
                self._connection.write(chunk if self._has_body else b"")
                if self._is_parking:
                    break
        except ConnectionError as exc:
            log.debug("an answer broke off: %s", exc)
            self._abort()
        except BaseException:
            # An exit, too, is the end of this answer alone.
            log.exception("an answer failed unexpectedly")
            self._abort()
        else:
            return False
        return True

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        if exc_info is not None and self._has_started:
            raise exc_info[1].with_traceback(exc_info[2])
        self._status, self._headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        self._begin()
        self._connection.write(data)

    def _begin(self) -> None:
        if not self._has_started:
            self._has_started = True
            code, _, reason = self._status.partition(" ")
            if code in ("204", "304"):
                self._has_body = False
            self._connection.begin_answer(int(code), reason, self._headers, self._has_body)

    def _abort(self) -> None:
        self._connection.abort()
        try:
            self._close()
        except Exception:
            log.exception("an answer failed to end")

    def _close(self) -> None:
        result, self._result = self._result, ()
        close = getattr(result, "close", None)
        if close is not None:
            close()


class _Body:
    """The body of a request, read while it arrives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, all that are left if negative; none at the end."""
        if size >= 0:
            return self._connection.read(size)
        return b"".join(iter(lambda: self._connection.read(1 << 16), b""))


def make_environ(
    connection: Connection, request: h11.Request, body: bytes | None, *, server: tuple[str, int]
) -> Environ:
    """Return the environment of a request; without ``body`` it is read while it arrives."""
    target = request.target
    if not target.startswith(b"/") and b"://" in target:
        # The absolute form (RFC 9112, 3.2.2). The Host field says which host is meant.
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.partition(b"?")
    environ: Environ = {
        "REQUEST_METHOD": request.method.decode("ascii"),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": request.target.decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{request.http_version.decode('ascii')}",
        "REMOTE_ADDR": connection.address[0],
        "REMOTE_PORT": str(connection.address[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": connection.scheme,
        "wsgi.input": _Body(connection) if body is None else io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        CLIENT_HAS_CLOSED: connection.client_has_closed,
        CLIENT_HAS_ENDED: connection.client_has_ended,
    }
    for name, value in request.headers:
        if b"_" in name:
            # It would pass for the field with dashes, which proxies may have removed.
            continue
        key = name.decode("ascii").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
