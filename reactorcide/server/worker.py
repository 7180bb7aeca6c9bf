"""The classes for gunicorn: a master that restarts one worker, and their signal handlers."""

import ctypes
import logging
import os
import signal
import sys
from time import monotonic
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter as GunicornArbiter
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.workers.base import Worker as GunicornWorker

from reactorcide.domain.deliveries import MAX_LARGE_AT_ONCE
from reactorcide.objects import MAX_READS_AT_ONCE
from reactorcide.server.front import Front
from reactorcide.server.tls import Certificate
from reactorcide.settings import Settings

log = logging.getLogger("reactorcide.serve")

SHORT_THREADS = 16
"""Threads beside those for followers, long polls, uploads and reads from a bucket."""
_SWITCH_INTERVAL_S = 0.001
"""A request waits for Python's lock after each use of the disk, a socket or the queue.
With Python's own 5 ms eight clients submitted a tenth less."""
_M_ARENA_MAX, _MAX_ARENAS = -8, 2
"""Else glibc has eight arenas per processor, each of which keeps the memory that its threads once needed."""
_TURN_S = 0.5
_STOP_S = 4.0
"""How long requests may take after the service was told to stop; less than gunicorn's timeout for it."""
_MEANINGLESS = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals for gunicorn to change its number of workers, reopen its logs or replace itself: ignored here."""


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike ``SIG_IGN``, child processes do not inherit this."""


class Worker(GunicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """The process that serves: gunicorn's own interface for workers around our loop."""

    application: Any = None
    """The service, after it has started."""
    settings: Settings
    _front: Front | None = None

    def init_process(self) -> None:
        """Shorten the interval at which Python switches threads, and have them share their memory."""
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        if hasattr(libc := ctypes.CDLL(None), "mallopt"):
            libc.mallopt(_M_ARENA_MAX, _MAX_ARENAS)
        super().init_process()

    def init_signals(self) -> None:
        """Stop on SIGTERM, SIGINT, SIGQUIT and, unless it was ignored, SIGHUP."""
        ignores_hup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().init_signals()
        for number in _MEANINGLESS:
            signal.signal(number, _ignore)
        signal.signal(signal.SIGINT, self.handle_exit)
        signal.signal(signal.SIGQUIT, self.handle_exit)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignores_hup else self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. All but this is done by the loop: the signal may have come while a lock was held."""
        self.alive = False
        self.wake()

    def wake(self) -> None:
        """End the loop's waiting, if it waits. For signal handlers."""
        if self._front is not None:
            self._front.wake()

    def after_turn(self) -> None:
        """Carry out the request of a signal."""

    def run(self) -> None:
        """Serve until a signal arrives, or the master is gone."""
        self._front = front = Front(
            [listener.sock for listener in self.sockets],
            self.wsgi,
            certificate=certificate_of(self.settings),
            request_timeout_s=self.settings.request_timeout_s,
            max_threads=self.settings.stream_slots + MAX_LARGE_AT_ONCE + MAX_READS_AT_ONCE + SHORT_THREADS,
            max_short=SHORT_THREADS,
            cors_origins=self.settings.cors_origins,
        )
        front.pool.start()
        while self.alive and self.ppid == os.getppid():
            self.notify()
            front.turn(_TURN_S)
            self.after_turn()
        # Followers would delay the stop.
        self.application.release_waiters()
        front.begin_to_stop()
        deadline = monotonic() + _STOP_S
        while not front.is_done and monotonic() < deadline:
            self.notify()
            front.turn(0.1)
        front.close()


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate of the settings, if any; raises ``OSError`` if it cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


class Arbiter(GunicornArbiter):  # type: ignore[misc]  # gunicorn has no types
    """The master. It ignores SIGHUP if it was started so, as by ``nohup``."""

    def init_signals(self) -> None:
        """Handle the signals that stop the service, and no others."""
        ignores_hup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().init_signals()
        for number in _MEANINGLESS:
            signal.signal(number, _ignore)
        if ignores_hup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_hup(self) -> None:
        """Stop as on SIGTERM: the terminal is gone."""
        self.handle_term()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """Stop; where the worker could not start, without a word: it has said why."""
        if exit_status == self.WORKER_BOOT_ERROR:
            self.log.error_log.setLevel(logging.CRITICAL)
        super().halt(reason, exit_status)


class DrainingArbiter(Arbiter):
    """A master whose worker finishes the running jobs before it stops.

    A second signal stops at once.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._draining = False

    def handle_term(self) -> None:
        """SIGTERM, SIGHUP and Ctrl-C. The worker sends another SIGTERM when it is done."""
        if self._draining:
            super().handle_term()
        self._draining = True
        self.kill_workers(signal.SIGUSR1)

    def handle_int(self) -> None:
        """Ctrl-C: the same as SIGTERM."""
        self.handle_term()

    def stop(self, graceful: bool = True) -> None:
        """Stop the worker with SIGQUIT: it ignores SIGTERM, which may have been sent to the whole group."""
        super().stop(graceful=False)


class DrainingWorker(Worker):
    """The worker of a ``DrainingArbiter``, which alone ends it."""

    _must_drain = False

    def init_signals(self) -> None:
        """Ignore what a terminal or a service manager sends to the whole group: the master handles it."""
        super().init_signals()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self._drain)

    def _drain(self, sig: int, frame: FrameType | None) -> None:
        self._must_drain = True
        self.wake()

    def after_turn(self) -> None:
        """Drain if a signal requested it, then signal the master to stop."""
        if self._must_drain:
            self._must_drain = False
            master = self.ppid
            self.application.drain(lambda: os.kill(master, signal.SIGTERM))


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn has no types
    """Sends gunicorn's own messages to the service's log; requests are logged by the application."""

    def setup(self, cfg: Any) -> None:
        """Keep the handlers that the service has set."""
        self.error_log = logging.getLogger("gunicorn.error")
        # gunicorn turns this off; then Python would print the messages itself.
        self.error_log.propagate = True
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.setLevel(logging.WARNING)
        self.access_log.disabled = True

    def error(self, msg: str, *args: object, **kwargs: Any) -> None:
        """Log an error; see ``Arbiter.halt``."""
        if args[1:] != (Arbiter.WORKER_BOOT_ERROR,):
            super().error(msg, *args, **kwargs)
