"""Access for the operator's commands: the database of a data directory, and probes of other parts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from reactorcide.accounts import AccountContext
from reactorcide.app.parts import database, docker_runner, hint_line, log_store, object_store
from reactorcide.corndogs.connect import connect
from reactorcide.domain.errors import ConfigurationError
from reactorcide.jobs import StoredJobs
from reactorcide.lib.notifier import LocalNotifier
from reactorcide.settings import Settings
from reactorcide.store import Store
from reactorcide.store.connection import JobDatabase
from reactorcide.store.vault import Vault


@contextmanager
def open_accounts(settings: Settings) -> Iterator[AccountContext]:
    """Give access to the users and tokens of a data directory, also while a service works on it.

    Raises ``ConfigurationError`` if there is no database: only the service creates one.
    """
    with _existing_database(settings) as opened:
        yield AccountContext(Store(opened, Vault.beside(settings.database_path)))


@contextmanager
def open_jobs(settings: Settings) -> Iterator[StoredJobs]:
    """Give access to the jobs of a data directory, as ``open_accounts`` does."""
    with _existing_database(settings) as opened:
        store = Store(opened, Vault.beside(settings.database_path))
        objects = object_store(settings, store.instance.objects_url(), os.environ)
        yield StoredJobs(
            store=store,
            objects=objects,
            logs=log_store(settings, store.log_pieces, objects),
            notifier=LocalNotifier(),
        )


def check_nothing_runs(settings: Settings) -> None:
    """Raise ``ConfigurationError`` if a service works on the PostgreSQL database, on whichever machine."""
    make_line = hint_line(settings)
    if make_line is not None and make_line(lambda hint: None).running():
        raise ConfigurationError(
            "a service works on this database: stop it, and all others there, on every machine"
        )


@contextmanager
def _existing_database(settings: Settings) -> Iterator[JobDatabase]:
    if settings.database is None and not settings.database_path.is_file():
        raise ConfigurationError(
            f"there is no database in {settings.data_dir}; start 'reactorcide serve' there once, "
            "or name the service's directory with --data-dir"
        )
    opened = database(settings)
    try:
        yield opened
    finally:
        opened.close()


def probe_docker(environment: Mapping[str, str]) -> tuple[str, int | None]:
    """Return the version of the Docker Engine that the environment names, and how many warm containers wait.

    These are of all services; ``None`` if there can be none. Raises ``InfrastructureError`` unless it
    answers.
    """
    runner = docker_runner(environment)
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


def probe_database(settings: Settings) -> None:
    """Raise ``ReactorcideError`` unless the job database takes a write. Changes nothing."""
    opened = database(settings)
    try:
        opened.check()
    finally:
        opened.close()


def probe_objects(url: str, environment: Mapping[str, str]) -> None:
    """Raise ``ReactorcideError`` unless an object can be written to the bucket."""
    object_store(Settings(), url, environment).check()
