"""What gunicorn does differently for us.

It gives a thread only to a request that is all there, ends long answers when it stops, and logs our way.
"""

import errno
import json
import logging
import os
import selectors
import signal
import socket
import ssl
import struct
import sys
import threading
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from gunicorn import http, sock, util
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.gthread import ThreadWorker

from reactorcide.cli.arrival import Arrival, TooLong
from reactorcide.domain.ids import new_id
from reactorcide.settings import MOST_BODY_BYTES

_SWITCH_INTERVAL_S = 0.001
"""A request comes back from the disk, a socket or the queue many times, and waits for its turn each time.
With Python's own 5 ms eight clients submitted a tenth less."""

log = logging.getLogger("reactorcide.web")

_RECEIVE_BYTES = 64 << 10
_MOST_ARRIVING_BYTES = 64 << 20
_THREAD_WAITS_S = 30
"""For which a thread waits for a client to send, should it ever have to."""
_MESSAGES = {
    408: "the request did not arrive in time",
    413: "the body is larger than the service takes",
    431: "the header fields are larger than the service takes",
    503: "too many requests are on their way just now; send this one again",
}


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gthread worker whose threads slow clients cannot occupy, and followers cannot hold at the end.

    Requests arrive in the main loop, which waits for many at once; those that take too long are cut off,
    the oldest also where they become too many.
    """

    application: Any = None
    request_timeout_s = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The one that came first at the beginning. Only the main loop looks at it.
        self._arriving: dict[Any, Arrival] = {}

    def enqueue_req(self, conn: Any) -> None:
        """Have a connection's next request arrive; then a thread gets it."""
        begun = b""
        if conn.parser is not None:
            begun = conn.parser.unreader.take_buffered()
        else:
            timeout = struct.pack("ll", _THREAD_WAITS_S, 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
            # What comes over the socket in the data directory crosses no network.
            if self.cfg.is_ssl and conn.sock.family != socket.AF_UNIX:
                try:
                    conn.sock = sock.ssl_wrap_socket(conn.sock, self.cfg)
                except OSError as exc:
                    # The certificate is just being replaced, say. It must not end the main loop.
                    log.error("no TLS for %s: %s", conn.client[0], exc)
                    self.nr_conns -= 1
                    conn.close()
                    return
        conn.sock.setblocking(False)
        self._arriving[conn] = Arrival(begun, deadline=monotonic() + self.request_timeout_s)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._receive, conn))
        self._receive(conn, conn.sock)

    def _receive(self, conn: Any, _: Any) -> None:
        """Take what a client has sent by now."""
        arrival = self._arriving.get(conn)
        if arrival is None:
            # Cut off by an event of the same moment.
            return
        try:
            while arrival.is_refused or not arrival.is_whole():
                data = conn.sock.recv(_RECEIVE_BYTES)
                if not data:
                    self._forget(conn)
                    return
                if not arrival.is_refused:
                    arrival.add(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._ask_for_body(conn, arrival)
            self._make_room()
        except TooLong as exc:
            self._refuse(conn, arrival, exc.status)
        except OSError:
            self._forget(conn)
        else:
            del self._arriving[conn]
            self.poller.unregister(conn.sock)
            if conn.parser is None:
                conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader.unread(bytes(arrival.data))
            conn.data_ready = True
            super().enqueue_req(conn)

    def _ask_for_body(self, conn: Any, arrival: Arrival) -> None:
        if arrival.wants_continue:
            arrival.wants_continue = False
            self._send(conn, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _make_room(self) -> None:
        """Let nobody fill the memory, or take every place, with requests that do not end."""
        while len(self._arriving) > self.worker_connections // 2 or (
            len(self._arriving) > 1
            and sum(len(arrival.data) for arrival in self._arriving.values()) > _MOST_ARRIVING_BYTES
        ):
            self._cut_off(next(iter(self._arriving)), 503)

    def murder_pending(self) -> None:
        """Cut off what takes too long, and when stopping what has not begun."""
        super().murder_pending()
        now = monotonic()
        for conn, arrival in list(self._arriving.items()):
            if arrival.deadline <= now:
                self._cut_off(conn, 408)
            elif not self.alive and not arrival.data:
                self._forget(conn)

    def _refuse(self, conn: Any, arrival: Arrival, status: int) -> None:
        """Answer a request that is too long, and let the client finish: a reset would destroy the answer."""
        self._answer(conn, status)
        arrival.is_refused = True
        arrival.data.clear()
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._forget(conn)

    def _cut_off(self, conn: Any, status: int) -> None:
        """Refuse a request that is not all there, and close its connection."""
        self._answer(conn, status)
        self._forget(conn)

    def _answer(self, conn: Any, status: int) -> None:
        if self._arriving[conn].data:
            phrase, request_id = HTTPStatus(status).phrase, new_id()
            log.info(
                "a request from %s was cut off: %s", conn.client[0], phrase, extra={"request_id": request_id}
            )
            self._send(conn, _error(status, phrase, _MESSAGES[status], request_id))

    def _send(self, conn: Any, data: bytes) -> None:
        """Send a few bytes; whoever has no room for them goes without."""
        try:
            conn.sock.send(data)
        except OSError as exc:
            log.debug("%s does not take an answer: %s", conn.client[0], exc)

    def _forget(self, conn: Any) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def init_process(self) -> None:
        """Have threads take turns more often than Python does by itself."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        super().init_process()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: end followers first, or gunicorn would wait for them to the end of its patience."""
        self._release_waiters()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT and SIGQUIT, as Ctrl-C sends them to the whole group: the same as SIGTERM."""
        self.handle_exit(sig, frame)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Announce the end of a connection whose request's body will not be read to its end."""
        length = dict(req.headers).get("CONTENT-LENGTH", "")
        if length.isdigit() and int(length) > MOST_BODY_BYTES:
            req.force_close()
        try:
            return super().handle_request(req, conn)
        except BlockingIOError as exc:
            # The socket's own limit on sending: a client that takes nothing is as good as gone.
            raise ConnectionResetError(errno.ECONNRESET, "the client takes nothing") from exc

    def _release_waiters(self) -> None:
        if self.application is not None:
            # In a thread: the signal may have come while this very thread held the lock.
            threading.Thread(target=self.application.release_waiters, daemon=True).start()


class DrainingArbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """A master that has its worker finish the running jobs before it stops.

    The second signal stops at once.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._draining = False

    def handle_term(self) -> None:
        """SIGTERM and Ctrl-C. The worker sends another SIGTERM when it is done."""
        if self._draining:
            super().handle_term()
        self._draining = True
        self.kill_workers(signal.SIGUSR1)

    def handle_int(self) -> None:
        """Ctrl-C: the same as SIGTERM."""
        self.handle_term()

    def stop(self, graceful: bool = True) -> None:
        """Stop the worker by SIGQUIT: it ignores SIGTERM, which may be meant for the whole group."""
        super().stop(graceful=False)


class DrainingWorker(Worker):
    """The worker of a ``DrainingArbiter``, which alone decides when it ends."""

    def init_signals(self) -> None:
        """Leave what a terminal or a service manager sends to the whole group to the master."""
        super().init_signals()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Drain, then have the master stop us."""
        master = self.ppid
        if self.application is not None:
            # In a thread: the signal may have come while this very thread held a lock.
            threading.Thread(
                target=self.application.drain, args=[lambda: os.kill(master, signal.SIGTERM)], daemon=True
            ).start()


def _error(status: int, reason: str, message: str, request_id: str) -> bytes:
    """Return an answer like every other error, for what the application never sees."""
    # Flask is here by now, but not in the master, which imports this module, too.
    from reactorcide.web.errors import code_of
    from reactorcide.web.requests import HEADERS

    body = json.dumps({"error": code_of(status), "message": message or reason.lower()}).encode()
    fields = {
        **HEADERS,
        "X-Request-ID": request_id,
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _write_error(client: Any, status: int, reason: str, message: str) -> None:
    """Answer what is no request at all; gunicorn would send a page of HTML."""
    request_id = new_id()
    # What is wrong with it gunicorn has logged by now, without the id.
    log.info("a request was refused: %s", reason, extra={"request_id": request_id})
    util.write_nonblock(client, _error(status, reason, message, request_id))


# The one way to it: gunicorn judges in a long method, and ends with a call of this.
util.write_error = _write_error


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's own messages to the service's log; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        """Leave the handlers as the service has set them."""
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True
