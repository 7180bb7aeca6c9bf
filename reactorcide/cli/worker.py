"""``reactorcide worker``: run jobs of a service on another machine."""

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from reactorcide import logconfig
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import Number, settings_from, settings_options
from reactorcide.domain.errors import ConfigurationError
from reactorcide.lib.systemd import ServiceManager

log = logging.getLogger("reactorcide.worker")

_MAX_TOKEN_BYTES = 4096
_SETTINGS = (
    *("concurrency", "warm", "source_roots", "allow_addresses", "deny_addresses", "git_memory_bytes"),
    *("queues", "allow_images", "pull", "pids_limit", "max_disk_bytes", "job_network", "capabilities"),
    *("allow_new_privileges", "prepare_timeout_s", "collect_timeout_s", "drain", "min_free_disk_bytes"),
    *("log_format", "log_level"),
)
_HUP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _default_data_dir() -> Path:
    # Imported late, as in the settings.
    import platformdirs

    return Path(platformdirs.user_data_dir("reactorcide-worker", appauthor=False))


@click.command()
@click.option(
    "--server",
    metavar="URL",
    required=True,
    envvar="REACTORCIDE_SERVER",
    help="URL of the service, like https://ci.example.com.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="REACTORCIDE_TOKEN",
    help="Registration token from 'reactorcide workers add', or @FILE with it; needed at the first start.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="REACTORCIDE_CA_FILE",
    help="PEM file of certificates to trust for the service, besides those of the system.",
)
@click.option(
    "--lost-after",
    type=Number(1, 604_800),
    metavar="SECONDS",
    default=300.0,
    show_default=True,
    envvar="REACTORCIDE_LOST_AFTER",
    help="End the running jobs if the service was not reached for so long; it then may run them again.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    envvar="REACTORCIDE_DATA_DIR",
    help="Directory for the worker's secret and for logs on their way. By default the platform's directory "
    "for user data.",
)
@settings_options(*_SETTINGS)
def worker(
    server: str,
    token: str | None,
    ca_file: Path | None,
    lost_after: float,
    data_dir: Path | None,
    **options: Any,
) -> None:
    """Run jobs of a service on another machine: needs an engine and the service's URL."""
    settings = settings_from({**options, "data_dir": data_dir or _default_data_dir()})
    logconfig.configure(settings.log_format, settings.log_level)
    # Imported late: most commands need none of it.
    from reactorcide.app.worker import ServiceAddress, WorkerService

    address = ServiceAddress(url=server, token=_token(token), ca_file=ca_file, lost_after_s=lost_after)
    with lock_data_dir(settings.data_dir):
        ended, manager = _Ended(), ServiceManager()
        service = WorkerService(settings, address, os.environ, ended.give_up)
        signals = _Signals(service.stop, ended, service.drain if settings.drain else None, manager)
        signals.install()
        try:
            if service.start():
                manager.tell("READY=1")
                ended.wait()
        finally:
            service.stop()
    if ended.problem is not None:
        raise ConfigurationError(ended.problem)


class _Ended:
    """Whether the worker is to end, and why if it is not because of a signal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.problem: str | None = None

    def set(self) -> None:
        self._event.set()

    def give_up(self, problem: str) -> None:
        self.problem = problem
        self._event.set()

    def wait(self) -> None:
        # A signal handler runs between two waits.
        while not self._event.wait(0.5):
            pass


class _Signals:
    """SIGTERM, SIGINT and SIGHUP: stop; with ``drain`` the first one waits for the running jobs."""

    def __init__(self, stop: Any, ended: _Ended, drain: Any, manager: ServiceManager) -> None:
        self._stop = stop
        self._ended = ended
        self._drain = drain
        self._manager = manager

    def install(self) -> None:
        for number in _HUP:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        drain, self._drain = self._drain, None
        # In a thread: the signal may have come while a lock was held.
        if drain is not None:
            threading.Thread(target=self._begin, args=(drain, self._ended.set), daemon=True).start()
        else:
            threading.Thread(target=self._begin, args=(self._stop,), daemon=True).start()
            self._ended.set()

    def _begin(self, work: Any, *arguments: Any) -> None:
        self._manager.tell("STOPPING=1")
        work(*arguments)


def _token(text: str | None) -> str | None:
    """Return a token, read from a file if it begins with ``@``; raises ``ConfigurationError``."""
    if text is None or not text.startswith("@"):
        return text
    try:
        with Path(text[1:]).open("rb") as file:
            value = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"the token {text} cannot be read: {exc}") from exc
    return value
