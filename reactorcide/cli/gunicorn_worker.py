"""What gunicorn does differently for us: it ends long answers when it stops, and logs our way."""

import logging
import threading
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.gthread import ThreadWorker

from reactorcide.settings import MOST_BODY_BYTES


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A gthread worker that stops in time although somebody follows a log."""

    application: Any = None

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
        return super().handle_request(req, conn)

    def _release_waiters(self) -> None:
        if self.application is not None:
            # In a thread: the signal may have come while this very thread held the lock.
            threading.Thread(target=self.application.release_waiters, daemon=True).start()


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's own messages to the service's log; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        """Leave the handlers as the service has set them."""
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True
