"""The parts of the service, each created from the settings."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from reactorcide.corndogs.connect import connect
from reactorcide.corndogs.direct import DirectCorndogs
from reactorcide.corndogs.storage import TaskStorage
from reactorcide.corndogs.task import Corndogs
from reactorcide.domain.errors import ConfigurationError, NotFound
from reactorcide.imports import late_imports
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.jobs.retention import Policy
from reactorcide.lib.deferred import Deferred
from reactorcide.lib.records import record
from reactorcide.logs.local import LocalLogStore
from reactorcide.logs.rows import RowLogStore
from reactorcide.metrics import Metrics
from reactorcide.network import Http
from reactorcide.network.addresses import AddressRules
from reactorcide.objects import ObjectStore
from reactorcide.objects.filesystem import FilesystemObjectStore
from reactorcide.runner import Runner
from reactorcide.settings import Settings
from reactorcide.sources.git import GitLimits
from reactorcide.sources.roots import SourceRoots
from reactorcide.store.accounts import Accounts
from reactorcide.store.connection import JobDatabase
from reactorcide.store.database import Database
from reactorcide.store.log_pieces import LogPieces
from reactorcide.worker.attempt import Limits
from reactorcide.worker.prepare import Preparation

if TYPE_CHECKING:
    from reactorcide.runner.docker import DockerRunner
    from reactorcide.store.hints import HintLine

log = logging.getLogger("reactorcide.app")

_DOCKER_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


@record
class Queue:
    """The queue of the service, with its start and stop."""

    corndogs: Corndogs
    start: Callable[[], None]
    stop: Callable[[float], None]


def queue(settings: Settings, metrics: Metrics) -> Queue:
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
        return Queue(client, start=lambda: None, stop=lambda _: client.close())
    if settings.corndogs_listen is None:
        storage = TaskStorage(settings.corndogs_path, time.time_ns)
        direct = DirectCorndogs(storage, on_call=on_call)

        def stop(_: float) -> None:
            direct.close()
            storage.close()

        return Queue(direct, start=storage.open, stop=stop)
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

    return Queue(served, start=start_server, stop=stop_server)


def database(settings: Settings) -> JobDatabase:
    """Return the job database; PostgreSQL's driver is imported only if it is used.

    Raises ``ConfigurationError``.
    """
    if settings.database is None:
        return Database(settings.database_path)
    try:
        from reactorcide.store.postgresql import PostgreSQLDatabase
    except ImportError as exc:
        raise ConfigurationError(
            f"--database needs psycopg: install it with pip install 'reactorcide[scale]' ({exc})"
        ) from exc
    return PostgreSQLDatabase(settings.database)


def hint_line(settings: Settings) -> "Callable[[Callable[[str], None]], HintLine] | None":
    """Return a function that makes the connection to other services; ``None`` if there can be none."""
    url = settings.database
    if url is None:
        return None

    def make(heard: Callable[[str], None]) -> "HintLine":
        from reactorcide.store.hints import HintLine

        return HintLine(url, heard)

    return make


def log_store(settings: Settings, pieces: LogPieces, objects: ObjectStore) -> LocalLogStore | RowLogStore:
    """Return the store of growing logs: files, or rows of a database that other services can have, too."""
    if settings.database is None:
        return LocalLogStore(settings.logs_dir, objects)
    return RowLogStore(pieces, objects)


def object_store(
    settings: Settings, url: str | None, environment: Mapping[str, str], *, is_quick: bool = False
) -> ObjectStore:
    """Return the object store at ``url``; ``None`` is the data directory. Raises ``ConfigurationError``.

    ``is_quick``: one that does not wait long for a bucket that hangs.
    """
    if url is None:
        return FilesystemObjectStore(settings.objects_dir, min_free_bytes=settings.min_free_disk_bytes)
    try:
        from reactorcide.objects.s3 import S3ObjectStore
    except ImportError as exc:
        raise ConfigurationError(
            f"the object store {url} needs boto3: install it with pip install 'reactorcide[scale]'"
        ) from exc
    # Other AWS tools use this name, too.
    return S3ObjectStore(url, region=environment.get("AWS_REGION"), is_quick=is_quick)


def admins(accounts: Accounts) -> Callable[[str], bool]:
    """Return a function: whether a user is an active admin by the database; a removed user is not."""

    def is_admin(user_id: str) -> bool:
        try:
            user = accounts.user(user_id)
        except NotFound:
            return False
        return user.is_active and user.is_admin

    return is_admin


def limits_of_remote_workers(settings: Settings) -> dict[str, float]:
    """Return what the service sets to workers on other machines, because it stores it or waits for it."""
    return {
        "cancel_grace": settings.cancel_grace_s,
        "max_artifact_bytes": settings.max_artifact_bytes,
        "max_artifacts": settings.max_artifacts,
        "max_log_bytes": settings.max_log_bytes,
        "max_cache_bytes": settings.max_cache_bytes,
    }


def preparation(
    settings: Settings, environment: Mapping[str, str], is_admin: Callable[[str], bool]
) -> Preparation:
    return Preparation(
        SourceRoots(settings.source_roots, settings.data_dir),
        settings.workspaces_dir,
        environment,
        settings.allow_images,
        is_admin=is_admin,
        addresses=AddressRules(settings.allow_addresses, settings.deny_addresses),
        git_limits=GitLimits(memory_bytes=settings.git_memory_bytes, disk_bytes=settings.max_disk_bytes),
    )


def limits(settings: Settings) -> Limits:
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


def job_defaults(settings: Settings) -> JobDefaults:
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


def docker_runner(environment: Mapping[str, str], **options: Any) -> "DockerRunner":
    with late_imports():
        from reactorcide.runner.docker import DockerRunner

    named = {name: environment[name] for name in _DOCKER_VARIABLES if name in environment}
    return DockerRunner(named, **options)


def webhook_rules(settings: Settings) -> AddressRules:
    return AddressRules(
        settings.allow_addresses, settings.deny_addresses, internal=settings.allow_internal_webhooks
    )


def deferred_http(rules: AddressRules) -> Http:
    """Return the HTTP sender, created when it is first used, because importing its library takes long."""

    def make() -> Http:
        with late_imports():
            from reactorcide.network.http import HttpClient

        return HttpClient(rules.refusal)

    return cast(Http, Deferred(make))


def deferred_runner(settings: Settings, environment: Mapping[str, str]) -> Runner:
    """Return the runner, created when it is first used.

    Importing the Docker SDK takes a large part of the start, and the first request does not need it.
    """

    def make() -> "DockerRunner":
        return docker_runner(
            environment,
            max_connections=2 * settings.concurrency + 8,
            network=settings.job_network,
            capabilities=settings.capabilities,
            allow_new_privileges=settings.allow_new_privileges,
            warm=settings.warm_containers,
        )

    return cast(Runner, Deferred(make))
