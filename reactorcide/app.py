"""The composition root: the one place where the parts are created and wired."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from reactorcide.accounts import AccountContext, sessions, tokens, users
from reactorcide.corndogs.connect import connect
from reactorcide.corndogs.direct import DirectCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import Corndogs
from reactorcide.deliveries import receive
from reactorcide.domain.deliveries import MAX_LARGE_AT_ONCE
from reactorcide.domain.errors import ConfigurationError, NotFound, ReactorcideError
from reactorcide.jobs import JobContext, StoredJobs, caches, place, sources
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.jobs.hints import WorkerHints
from reactorcide.jobs.retention import Policy
from reactorcide.jobs.upkeep import QueueUpkeep
from reactorcide.lib.deferred import Deferred
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.logs.local import LocalLogStore
from reactorcide.metrics import Metrics
from reactorcide.network import Http
from reactorcide.network.addresses import AddressRules
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore, check_room
from reactorcide.outbox.commit_statuses import CommitStatuses
from reactorcide.outbox.sender import Sender
from reactorcide.outbox.webhooks import Announcer, WebhookMessages
from reactorcide.runner import Runner
from reactorcide.runs import RunContext
from reactorcide.runs.evaluate import Evaluator
from reactorcide.runs.upkeep import RunUpkeep
from reactorcide.schedules.start import Due
from reactorcide.settings import Settings
from reactorcide.sources.git import GitLimits
from reactorcide.sources.roots import SourceRoots
from reactorcide.store import Store
from reactorcide.store.accounts import Accounts
from reactorcide.store.database import Database
from reactorcide.store.outbox import STATUSES, WEBHOOKS
from reactorcide.store.vault import Vault
from reactorcide.worker.attempt import Limits
from reactorcide.worker.deliverer import Deliverer
from reactorcide.worker.janitor import Janitor
from reactorcide.worker.local import LocalPort, queue_duties, run_duties
from reactorcide.worker.loop import Worker
from reactorcide.worker.prepare import Preparation
from reactorcide.worker.scheduler import Scheduler

if TYPE_CHECKING:
    from flask import Flask

    from reactorcide.runner.docker import DockerRunner

log = logging.getLogger("reactorcide.app")

_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


class Service:
    """API, worker and queue. ``start`` once, ``stop`` any number of times; ``stop`` leaves nothing open."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        """Wire the parts together; nothing is started, opened or connected yet.

        ``environment`` has the engine's address and git's certificates. Raises ``ConfigurationError`` for
        invalid settings.
        """
        settings = replace(settings, data_dir=settings.data_dir.absolute())
        self._settings = settings
        self._notifier = LocalNotifier()
        metrics = Metrics()
        self._queue = _queue(settings, metrics)
        self._database = Database(settings.database_path)
        self._store = Store(self._database, Vault.beside(settings.database_path))
        self._accounts = AccountContext(self._store)
        self._objects = _object_store(settings, settings.objects, environment)
        self._logs = LocalLogStore(settings.logs_dir, self._objects)
        self._runner = _deferred_runner(settings, environment)
        preparation = _preparation(settings, environment, self._store.accounts)
        self._context = JobContext(
            store=self._store,
            objects=self._objects,
            logs=self._logs,
            notifier=self._notifier,
            metrics=metrics,
            corndogs=self._queue.corndogs,
            rules=preparation.rules,
            hints=WorkerHints(),
        )
        self._runs = RunContext(
            jobs=self._context,
            commits=preparation,
            evaluator=Evaluator(),
            defaults=_defaults(settings),
        )
        self._worker = Worker(
            LocalPort(self._context, lease_s=settings.lease_s),
            self._runner,
            preparation,
            _limits(settings),
            concurrency=settings.concurrency,
            queues=settings.queues,
            check_disk=self._check_room,
            duties=[
                *queue_duties(QueueUpkeep(self._context, lease_s=settings.lease_s)),
                *run_duties(RunUpkeep(self._context)),
            ],
        )
        self._scheduler = Scheduler(Due(self._runs))
        self._deliverer = Deliverer(self._runs)
        self._janitor = Janitor(
            self._context,
            self._runner,
            keep_policy(settings),
            keep_image_days=settings.keep_image_days,
            keep_source_days=settings.keep_source_days,
            max_cache_bytes=settings.max_cache_bytes,
        )
        self._http = _deferred_http(AddressRules(settings.allow_addresses, settings.deny_addresses))
        public_url = None if settings.public_url is None else settings.public_url.rstrip("/")
        self._sender = Sender(
            self._store,
            {
                STATUSES: CommitStatuses(self._store, self._http, public_url),
                WEBHOOKS: WebhookMessages(self._store, _deferred_http(_webhook_rules(settings))),
            },
            self._notifier,
            metrics,
            announce=Announcer(self._store, public_url).announce,
        )
        metrics.add_job_counts(self._store.queues.counts)
        metrics.add_owed_counts(self._store.outbox.counts)
        metrics.add_warm_counts(self._warm_counts)
        self.wsgi: Flask = self._web(metrics)
        self.new_admin_token: str | None = None
        """The admin's token, if this start created it."""

    def start(self) -> None:
        """Start all parts; raises ``ConfigurationError`` if one of them cannot start."""
        self._database.migrate()
        self._store.instance.id(new_id())
        if place.check(self._context, self._settings.objects, self._settings.objects_dir):
            self._remove_leftovers()
        self._store.instance.open_vault()
        self._store.tasks.submit_interrupted()
        self.new_admin_token = users.bootstrap(self._accounts, self._settings.admin_token_path)
        self._queue.start()
        self._worker.start()
        self._janitor.start()
        self._scheduler.start()
        self._deliverer.start()
        self._sender.start()

    def sign_in_link(self) -> str | None:
        """Create a one-time link for the admin whose token is in the data directory, and return its value.

        ``None`` if there is no web page, or no such token (any more).
        """
        if self._settings.no_ui:
            return None
        try:
            value = self._settings.admin_token_path.read_text("ascii").strip()
            return sessions.create_link(self._accounts, tokens.authenticate(self._accounts, value))[0]
        except (OSError, ValueError, ReactorcideError):
            return None

    def drain(self, drained: Callable[[], None]) -> None:
        """Claim no more jobs, and call ``drained`` when the last running job has ended; all else
        continues."""
        self._worker.drain(drained)

    def release_waiters(self) -> None:
        """End followers and long polls, because the service is about to stop."""
        self._notifier.close()

    def stop(self, deadline_s: float = 3.0) -> None:
        """Stop all parts within about ``deadline_s``; running containers continue."""
        deadline = monotonic() + deadline_s
        self.release_waiters()
        for stop in (
            self._scheduler.stop,
            self._deliverer.stop,
            self._worker.stop,
            self._janitor.stop,
            self._sender.stop,
            self._queue.stop,
            lambda _: self._runner.close(),
            lambda _: self._database.close(),
        ):
            try:
                stop(max(0.1, deadline - monotonic()))
            except ReactorcideError as exc:
                log.warning("while stopping: %s", exc)

    def _warm_counts(self) -> tuple[int, int, int]:
        view = self._runner.warm_view()
        return view.waiting, view.jobs_warm, view.jobs_cold

    def _web(self, metrics: Metrics) -> "Flask":
        """Return the WSGI application."""
        # Imported late: Flask and pydantic take most of the import time, and the operator's commands need
        # neither.
        from reactorcide.web import create_app
        from reactorcide.web.probes import Probes
        from reactorcide.web.ratelimit import FailureLimiter
        from reactorcide.web.services import RETENTION, Services
        from reactorcide.web.streams import StreamSlots

        settings = self._settings
        services = Services(
            jobs=self._context,
            runs=self._runs,
            accounts=self._accounts,
            defaults=self._runs.defaults,
            max_source_bytes=settings.max_source_bytes,
            slots=StreamSlots(settings.stream_slots),
            delivery_slots=StreamSlots(MAX_LARGE_AT_ONCE),
            metrics=metrics,
            bad_tokens=FailureLimiter(settings.bad_tokens),
            probes=Probes(
                {
                    "database": self._database.check,
                    "corndogs": self._queue.corndogs.check_health,
                    # A lambda: reading the method from the deferred runner would create the runner.
                    "docker": lambda: self._runner.check(),
                    "object_store": self._check_objects,
                    "worker": self._worker.check,
                }
            ),
            workers=lambda: [self._worker.view()],
            http=self._http,
            public_url=settings.public_url,
            retention={name: getattr(settings, name) for name in RETENTION},
        )
        return create_app(
            services,
            trusted_proxies=settings.trusted_proxies,
            cors_origins=settings.cors_origins,
            allowed_hosts=settings.allowed_hosts,
            public_url=settings.public_url,
            has_ui=not settings.no_ui,
        )

    def _check_room(self) -> None:
        """Raise ``ObjectStoreError`` if the output of another job could not be stored."""
        settings = self._settings
        if settings.objects is None:
            check_room(settings.objects_dir, settings.min_free_disk_bytes)
        else:
            self._check_objects()

    def _check_objects(self) -> None:
        """Raise ``ObjectStoreError`` unless logs and objects can be written."""
        settings = self._settings
        self._objects.check()
        if settings.objects is not None:
            check_room(settings.logs_dir, settings.min_free_disk_bytes)

    def _remove_leftovers(self) -> None:
        """Remove incomplete files of a killed service; call it before anything is written."""
        try:
            if self._settings.objects is None:
                # The janitor removes old incomplete uploads from a bucket.
                self._objects.remove_leftovers()
            self._logs.remove_leftovers()
            sources.remove_orphans(self._context)
            caches.remove_orphans(self._context)
            receive.remove_orphans(self._context)
            if self._settings.workspaces_dir.exists():
                shutil.rmtree(self._settings.workspaces_dir)
        except (ReactorcideError, OSError) as exc:
            log.warning("incomplete files of an earlier service were not removed: %s", exc)


@dataclass(frozen=True, slots=True)
class _Queue:
    """The queue of the service, with its start and stop."""

    corndogs: Corndogs
    start: Callable[[], None]
    stop: Callable[[float], None]


def _queue(settings: Settings, metrics: Metrics) -> _Queue:
    """Choose the queue: an external one, or the embedded one, which is called directly and may also listen.

    gRPC is imported only if it is used. Raises ``ConfigurationError``.
    """
    on_call = metrics.observe_corndogs_call
    if settings.corndogs_address is not None:
        if settings.corndogs_listen is not None:
            raise ConfigurationError(
                "--corndogs-listen is for the embedded Corndogs, and --corndogs-address names another one: "
                "leave out one of the two"
            )
        client = connect(settings.corndogs_address, on_call=on_call)
        return _Queue(client, start=lambda: None, stop=lambda _: client.close())
    if settings.corndogs_listen is None:
        storage = TaskStorage(settings.corndogs_path, time.time_ns)
        direct = DirectCorndogs(storage, on_call=on_call)

        def stop(_: float) -> None:
            direct.close()
            storage.close()

        return _Queue(direct, start=storage.open, stop=stop)
    from reactorcide.corndogs.server import EmbeddedCorndogs

    host, _, port = settings.corndogs_listen.rpartition(":")
    # Few threads for its calls: concurrent calls share a transaction, and more threads only contend for
    # Python's lock.
    server = EmbeddedCorndogs(settings.corndogs_path, host=host.strip("[]"), port=int(port), max_workers=4)
    served = DirectCorndogs(server.storage, on_call=on_call)

    def start_server() -> None:
        server.start()
        log.info(
            "Corndogs listens on %s; every client that reaches it can claim and create any task",
            server.address,
        )

    def stop_server(deadline_s: float) -> None:
        served.close()
        server.stop(deadline_s)

    return _Queue(served, start=start_server, stop=stop_server)


def _object_store(settings: Settings, url: str | None, environment: Mapping[str, str]) -> ObjectStore:
    """Return the object store at ``url``; ``None`` is the data directory. Raises ``ConfigurationError``."""
    if url is None:
        return FilesystemObjectStore(settings.objects_dir, min_free_bytes=settings.min_free_disk_bytes)
    try:
        from reactorcide.objects.s3 import S3ObjectStore
    except ImportError as exc:
        raise ConfigurationError(
            f"the object store {url} needs boto3: install it with pip install 'reactorcide[scale]'"
        ) from exc
    # Other AWS tools use this name, too.
    return S3ObjectStore(url, region=environment.get("AWS_REGION"))


def _is_admin(accounts: Accounts, user_id: str) -> bool:
    """Return whether a user is an active admin according to the database; a removed user is not."""
    try:
        user = accounts.user(user_id)
    except NotFound:
        return False
    return user.is_active and user.is_admin


def _preparation(settings: Settings, environment: Mapping[str, str], accounts: Accounts) -> Preparation:
    return Preparation(
        SourceRoots(settings.source_roots, settings.data_dir),
        settings.workspaces_dir,
        environment,
        settings.allow_images,
        is_admin=lambda user_id: _is_admin(accounts, user_id),
        addresses=AddressRules(settings.allow_addresses, settings.deny_addresses),
        git_limits=GitLimits(memory_bytes=settings.git_memory_bytes, disk_bytes=settings.max_disk_bytes),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        prepare_timeout_s=settings.prepare_timeout_s,
        collect_timeout_s=settings.collect_timeout_s,
        cancel_grace_s=settings.cancel_grace_s,
        pids=settings.pids_limit,
        artifact_bytes=settings.max_artifact_bytes,
        artifacts=settings.max_artifacts,
        pull=settings.pull,
        max_disk_bytes=settings.max_disk_bytes,
        log_bytes=settings.max_log_bytes,
        cache_bytes=settings.max_cache_bytes,
    )


def _defaults(settings: Settings) -> JobDefaults:
    return JobDefaults(
        image=settings.default_image,
        cpu_limit=settings.default_cpu_limit,
        max_cpu_limit=settings.max_cpu_limit,
        memory_limit_bytes=settings.default_memory_limit_bytes,
        max_memory_limit_bytes=settings.max_memory_limit_bytes,
        is_run_local=settings.run_local,
        buildkit_address=settings.buildkit_address,
    )


def keep_policy(settings: Settings) -> Policy:
    """Return which jobs retention keeps."""
    return Policy(
        keep_jobs=settings.keep_jobs,
        keep_days=settings.keep_days,
        keep_bytes=settings.keep_bytes,
    )


@contextmanager
def open_accounts(settings: Settings) -> Iterator[AccountContext]:
    """Give access to the users and tokens of a data directory, also while a service works on it.

    Raises ``ConfigurationError`` if there is no database: only the service creates one.
    """
    with _existing_database(settings) as database:
        yield AccountContext(Store(database, Vault.beside(database.path)))


@contextmanager
def open_jobs(settings: Settings) -> Iterator[StoredJobs]:
    """Give access to the jobs of a data directory, as ``open_accounts`` does."""
    with _existing_database(settings) as database:
        store = Store(database, Vault.beside(database.path))
        objects = _object_store(settings, store.instance.objects_url(), os.environ)
        yield StoredJobs(
            store=store,
            objects=objects,
            logs=LocalLogStore(settings.logs_dir, objects),
            notifier=LocalNotifier(),
        )


@contextmanager
def _existing_database(settings: Settings) -> Iterator[Database]:
    if not settings.database_path.is_file():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}; start 'reactorcide serve' there once, "
            "or name the service's directory with --data-dir"
        )
    database = Database(settings.database_path)
    try:
        yield database
    finally:
        database.close()


def probe_docker(environment: Mapping[str, str]) -> tuple[str, int | None]:
    """Return the version of the Docker Engine that the environment names, and how many warm containers wait.

    These are of all services; ``None`` if there can be none. Raises ``InfrastructureError`` unless it
    answers.
    """
    runner = _docker_runner(environment)
    try:
        # Only this function needs it, so it is not part of the runner protocol.
        return runner.version(), runner.count_warm() if runner.keeps_connections() else None
    finally:
        runner.close()


def probe_corndogs(address: str) -> None:
    """Raise ``ReactorcideError`` unless the Corndogs at an address is healthy."""
    corndogs = connect(address)
    try:
        corndogs.check_health()
    finally:
        corndogs.close()


def probe_objects(url: str, environment: Mapping[str, str]) -> None:
    """Raise ``ReactorcideError`` unless an object can be written to the bucket."""
    _object_store(Settings(), url, environment).check()


def _docker_runner(environment: Mapping[str, str], **options: Any) -> "DockerRunner":
    from reactorcide.runner.docker import DockerRunner

    named = {name: environment[name] for name in _DOCKER_VARIABLES if name in environment}
    return DockerRunner(named, **options)


def _webhook_rules(settings: Settings) -> AddressRules:
    return AddressRules(
        settings.allow_addresses, settings.deny_addresses, internal=settings.allow_internal_webhooks
    )


def _deferred_http(rules: AddressRules) -> Http:
    """Return the HTTP sender, created when it is first used, because importing its library takes long."""

    def make() -> Http:
        from reactorcide.network.http import HttpClient

        return HttpClient(rules.refusal)

    return cast(Http, Deferred(make))


def _deferred_runner(settings: Settings, environment: Mapping[str, str]) -> Runner:
    """Return the runner, created when it is first used.

    Importing the Docker SDK takes a large part of the start, and the first request does not need it.
    """

    def make() -> "DockerRunner":
        return _docker_runner(
            environment,
            max_connections=2 * settings.concurrency + 8,
            network=settings.job_network,
            capabilities=settings.capabilities,
            allow_new_privileges=settings.allow_new_privileges,
            warm=settings.warm_containers,
        )

    return cast(Runner, Deferred(make))
