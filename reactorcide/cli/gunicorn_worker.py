"""What gunicorn does differently for us: it ends long answers when it stops, logs and refuses our way."""

import errno
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.gthread import ThreadWorker

from reactorcide.settings import MOST_BODY_BYTES

_SWITCH_INTERVAL_S = 0.001
"""A request comes back from the disk, a socket or the queue many times, and waits for its turn each time.
With Python's own 5 ms eight clients submitted a tenth less."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gthread worker that stops in time although somebody follows a log."""

    application: Any = None

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


def _write_error(client: Any, status: int, reason: str, message: str) -> None:
    """Answer what is no request at all like every other error; gunicorn would send a page of HTML."""
    # Flask is here by now, but not in the master, which imports this module, too.
    from reactorcide.web.requests import HEADERS

    code = "internal_error" if status >= 500 else "invalid_input"
    body = json.dumps({"error": code, "message": message or reason.lower()}).encode()
    headers = HEADERS | {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    util.write_nonblock(client, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)


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
