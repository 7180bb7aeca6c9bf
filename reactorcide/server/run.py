"""The processes of ``reactorcide serve``: gunicorn's configuration, and the start and stop of its worker."""

import contextlib
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from gunicorn.app.base import BaseApplication

from reactorcide.domain.errors import ConfigurationError, ReactorcideError
from reactorcide.imports import shortage_of
from reactorcide.lib.systemd import ServiceManager
from reactorcide.logconfig import printable
from reactorcide.server import worker
from reactorcide.settings import Settings

log = logging.getLogger("reactorcide.serve")

_GRACEFUL_TIMEOUT_S = 6
_EXIT_CANNOT_START = 3
"""gunicorn's exit code for a worker that cannot start: the master does not start another."""
# Few objects are in cycles. With 700, as by default, looking for them takes a sixteenth of the time.
_GC_THRESHOLD = 10_000
_TARGET_FILES = 4096
"""Open files: one for each client and each address, and those of the service itself."""
_MIN_FILES = 128
"""An idle service has 30, and each running job a few more. Clients may take half."""


def run(settings: Settings, local: socket.socket | None, remove_local: Callable[[], None]) -> None:
    """Serve until a signal ends it: at ``--host`` and ``--port``, and on ``local``, if there is one.

    ``remove_local`` is called when the service ends.
    """

    class Worker(worker.DrainingWorker if settings.drain else worker.Worker):  # type: ignore[misc]  # one of two
        pass

    Worker.settings = settings

    class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        """The master process: it imports neither Flask nor gRPC nor Docker, which saves their memory."""

        def load_config(self) -> None:
            """Set everything here, and read neither gunicorn's command line nor its files."""
            for name, value in _gunicorn_config(settings, Worker).items():
                # Older versions lack some settings, which turn off what only newer ones have.
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            """Build the application in the worker: threads and connections do not survive a fork."""
            # Objects of the start live to the end: to search them for garbage took a quarter of its time.
            gc.disable()
            with _sentences():
                from reactorcide.app.service import Service

                self.application = Service(settings, os.environ)
            return self.application.wsgi

        def run(self) -> None:
            """Run until a signal ends it."""
            (worker.DrainingArbiter if settings.drain else worker.Arbiter)(self).run()

    # gunicorn would tell systemd that it is ready before the service has started.
    manager = ServiceManager()

    def start(process: Any) -> None:
        _start(server.application, process, settings)
        manager.tell("READY=1")

    server = Server()
    server.cfg.set("post_worker_init", start)
    server.cfg.set("worker_exit", lambda _, process: _stop(process))
    if local is not None:
        # Not an address to bind: gunicorn can neither bind nor remove its path.
        server.cfg.set("when_ready", lambda master: master.LISTENERS.append(local))
        server.cfg.set("on_exit", lambda _: remove_local())
    server.run()


def _gunicorn_config(settings: Settings, worker_class: type[worker.Worker]) -> dict[str, Any]:
    return {
        "bind": _authority(settings.host, settings.port),
        "worker_class": worker_class,
        "workers": 1,
        "max_requests": 0,
        # The heartbeat comes from the loop, so this is no limit on requests.
        "timeout": 60,
        "graceful_timeout": _GRACEFUL_TIMEOUT_S,
        "preload_app": False,
        "control_socket_disable": True,
        "logger_class": worker.Logger,
        "proc_name": "reactorcide",
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108  # a heartbeat file
    }


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def raise_file_limit() -> None:
    """Raise the limit of open files as far as it is useful and allowed.

    Raises ``ConfigurationError`` if that is too low to serve any client.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _TARGET_FILES if hard == resource.RLIM_INFINITY else min(_TARGET_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= target:
        target = soft
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    if target != resource.RLIM_INFINITY and target < _MIN_FILES:
        raise ConfigurationError(
            f"this process may have {target} open files, and needs at least {_MIN_FILES}; "
            f"raise the limit: ulimit -n {_TARGET_FILES}, or LimitNOFILE={_TARGET_FILES} of a systemd unit"
        )


def _start(application: Any, process: Any, settings: Settings) -> None:
    """Start the service in the worker, just before it accepts requests."""
    with _sentences():
        # Imported in the worker alone: the master does without Flask.
        from reactorcide.web.address import LISTENS_ON, sign_in_url

        application.start()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    gc.enable()
    process.application = application
    if application.new_admin_token is not None:
        # Not to a file or a journal, which other users may read.
        if sys.stderr.isatty():
            _print(f"The admin's token, shown this once: {application.new_admin_token}")
        else:
            _print(f"The admin's token is in {settings.admin_token_path.absolute()}")
    host, port = process.sockets[0].getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    url = f"{scheme}://{_authority(host, port)}"
    own_url = settings.public_url or f"{scheme}://{_authority(_reachable(host), port)}"
    application.wsgi.config[LISTENS_ON] = own_url.rstrip("/")
    if sys.stderr.isatty() and (link := application.sign_in_link()) is not None:
        _print(f"Sign in, once and within ten minutes: {sign_in_url(own_url.rstrip('/'), link)}")
    # The last line: a reader that waits for it has the others.
    _print(f"Reactorcide listens on {url}")


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """End the worker with a sentence if the body, a part of its start, fails for a reason that is known."""
    try:
        yield
    except ReactorcideError as exc:
        _print(f"reactorcide: {exc}")
    except (OSError, ImportError, MemoryError) as exc:
        shortage = shortage_of(exc)
        if shortage is None:
            raise
        _print(f"reactorcide: cannot start: {shortage}; free some, or raise its limit (ulimit -n, ulimit -v)")
    else:
        return
    sys.exit(_EXIT_CANNOT_START)


def _reachable(host: str) -> str:
    """Return a host that reaches a service on this machine which listens on ``host``."""
    return "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104  # compared, not bound


def _print(text: str) -> None:
    """Write to standard error; the service runs even if that is closed."""
    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)


def _stop(process: Any) -> None:
    application = getattr(process, "application", None)
    if application is not None:
        application.stop()
