"""The composition root: every part is made and wired here, and nowhere else."""

import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, cast

from flask import Flask

from reactorcide.accounts import AccountContext, users
from reactorcide.corndogs.client import GrpcCorndogs
from reactorcide.corndogs.server import EmbeddedCorndogs
from reactorcide.domain.errors import ConfigurationError, ReactorcideError
from reactorcide.domain.ids import new_id
from reactorcide.domain.sizes import parse_size
from reactorcide.jobs import JobContext
from reactorcide.metrics import Metrics
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.runner import Runner
from reactorcide.settings import Settings
from reactorcide.signals import Signals
from reactorcide.sources.roots import SourceRoots
from reactorcide.store.accounts import AccountStore
from reactorcide.store.audit import AuditStore
from reactorcide.store.database import Database
from reactorcide.store.jobs import JobStore
from reactorcide.web import create_app
from reactorcide.web.ratelimit import FailureLimiter
from reactorcide.web.services import JobDefaults, Services
from reactorcide.web.streams import StreamSlots
from reactorcide.worker.execute import Limits
from reactorcide.worker.loop import Worker
from reactorcide.worker.prepare import Preparation

if TYPE_CHECKING:
    from reactorcide.runner.docker import DockerRunner

log = logging.getLogger("reactorcide.app")

_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


class Application:
    """One service. ``start`` once, ``stop`` any number of times; then nothing of it is left."""

    def __init__(
        self,
        wsgi: Flask,
        *,
        start: Callable[[], None],
        stop_order: list[Callable[[float], None]],
        signals: Signals,
        drain: Callable[[Callable[[], None]], None],
        admin_token: Callable[[], str | None],
    ) -> None:
        self.wsgi = wsgi
        self._start = start
        self._stop_order = stop_order
        self._signals = signals
        self._drain = drain
        self._admin_token = admin_token

    def start(self) -> None:
        """Bring everything up; raises ``ConfigurationError`` with a sentence where that can't be."""
        self._start()

    @property
    def new_admin_token(self) -> str | None:
        """The admin's token, where this start has made it."""
        return self._admin_token()

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no more jobs, and call ``drained`` when none runs any more; everything else goes on."""
        self._drain(drained)

    def release_waiters(self) -> None:
        """End followers and long polls: the service is about to stop. Safe in a signal handler's thread."""
        self._signals.close()

    def stop(self, deadline_s: float = 3.0) -> None:
        """Bring everything down within about ``deadline_s``; running containers go on."""
        deadline = monotonic() + deadline_s
        self.release_waiters()
        for stop in self._stop_order:
            try:
                stop(max(0.1, deadline - monotonic()))
            except ReactorcideError as exc:
                log.warning("while stopping: %s", exc)


def build(settings: Settings, environment: Mapping[str, str]) -> Application:
    """Make a service of ``settings``; nothing is started, opened or connected yet.

    ``environment`` is where the engine's address and git's certificates are looked up. Raises
    ``ConfigurationError`` for settings that can't be.
    """
    metrics, signals = Metrics(), Signals()
    settings = replace(settings, data_dir=settings.data_dir.absolute())
    database = Database(settings.database_path)
    store = JobStore(database)
    accounts = AccountContext(AccountStore(database), AuditStore(database))
    objects = FilesystemObjectStore(
        settings.objects_dir, least_free_bytes=_size("min-free-disk", settings.min_free_disk) or 0
    )
    embedded = None if settings.corndogs_address else EmbeddedCorndogs(settings.corndogs_path)
    roots = SourceRoots(settings.source_roots, settings.data_dir)
    preparation = Preparation(roots, settings.workspaces_dir, environment)
    # Importing the Docker SDK is a good part of the start, and the first request does not need it.
    runner = cast(
        Runner, _Deferred(lambda: _docker_runner(environment, max_connections=2 * settings.concurrency + 8))
    )
    context = JobContext(
        store=store,
        objects=objects,
        signals=signals,
        metrics=metrics,
        check_source=preparation.check,
    )
    worker = Worker(
        context,
        runner,
        preparation,
        Limits(
            prepare_timeout_s=settings.prepare_timeout_s,
            cancel_grace_s=settings.cancel_grace_s,
            pids=settings.pids_limit,
        ),
        worker_id=f"{socket.gethostname()}-{new_id()[-8:]}",
        concurrency=settings.concurrency,
        lease_s=settings.lease_s,
        queues=settings.queues,
        lost_after_s=settings.lost_after_s or (math.inf if embedded else 2 * settings.lease_s),
        check_disk=objects.check_room,
    )
    context.wake_worker = worker.wake
    context.stop_attempt = worker.stop_attempt
    services = Services(
        jobs=context,
        accounts=accounts,
        defaults=_defaults(settings),
        slots=StreamSlots(settings.stream_slots),
        metrics=metrics,
        bad_tokens=FailureLimiter(settings.bad_tokens),
        probes={
            "database": database.check,
            "corndogs": lambda: context.corndogs.check_health(),
            "docker": runner.check,
            "object_store": objects.check,
            "worker": worker.check,
        },
        workers=lambda: [worker.view()],
    )
    metrics.add_job_counts(store.counts)
    made: list[str] = []

    def start() -> None:
        database.migrate()
        context.instance_id = store.instance_id(new_id())
        store.submit_interrupted()
        admin_token = users.bootstrap(accounts, settings.admin_token_path)
        if admin_token is not None:
            made.append(admin_token)
        address = settings.corndogs_address
        if embedded is not None:
            embedded.start()
            address = embedded.address
        context.corndogs = GrpcCorndogs(address or "", on_call=metrics.observe_corndogs_call)
        worker.start()

    stop_order: list[Callable[[float], None]] = [
        worker.stop,
        lambda _: context.corndogs.close(),
        lambda _: runner.close(),
        lambda _: database.close(),
    ]
    if embedded is not None:
        stop_order.insert(2, embedded.stop)
    return Application(
        create_app(services),
        start=start,
        stop_order=stop_order,
        signals=signals,
        drain=worker.drain,
        admin_token=lambda: made[0] if made else None,
    )


def _defaults(settings: Settings) -> JobDefaults:
    return JobDefaults(
        image=settings.default_image,
        cpu_limit=settings.default_cpu_limit,
        max_cpu_limit=settings.max_cpu_limit,
        memory_limit_bytes=_size("default-memory-limit", settings.default_memory_limit),
        max_memory_limit_bytes=_size("max-memory-limit", settings.max_memory_limit),
    )


def _size(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_size(text)
    except ValueError as exc:
        raise ConfigurationError(f"--{option}: {exc}") from exc


@contextmanager
def open_accounts(settings: Settings) -> Iterator[AccountContext]:
    """Give access to the users and tokens of a data directory, also while a service works on it.

    Raises ``ConfigurationError`` where there is no database: making one is the service's business.
    """
    if not settings.database_path.is_file():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}; start 'reactorcide serve' there once, "
            "or name the service's directory with --data-dir"
        )
    database = Database(settings.database_path)
    try:
        yield AccountContext(AccountStore(database), AuditStore(database))
    finally:
        database.close()


def probe_docker(environment: Mapping[str, str]) -> str:
    """Return the version of the Docker Engine that the environment names.

    Raises ``InfrastructureError`` unless it answers.
    """
    runner = _docker_runner(environment)
    try:
        # Only this asks for it, so the protocol of runners goes without.
        return runner.version()
    finally:
        runner.close()


def probe_corndogs(address: str) -> None:
    """Raise ``InfrastructureError`` unless the Corndogs at ``host:port`` is in good health."""
    corndogs = GrpcCorndogs(address)
    try:
        corndogs.check_health()
    finally:
        corndogs.close()


def _docker_runner(environment: Mapping[str, str], *, max_connections: int = 8) -> "DockerRunner":
    from reactorcide.runner.docker import DockerRunner

    named = {name: environment[name] for name in _DOCKER_VARIABLES if name in environment}
    return DockerRunner(named, max_connections=max_connections)


class _Deferred:
    """Stands for a collaborator that is made when it is first used. Thread-safe."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: object = None

    def __getattr__(self, name: str) -> object:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)
