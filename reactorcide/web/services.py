"""The collaborators of the web layer."""

from collections.abc import Callable, Mapping
from typing import cast

from flask import Flask, current_app

from reactorcide.accounts import AccountContext
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import JobContext
from reactorcide.jobs.defaults import JobDefaults
from reactorcide.jobs.remote.attempts import LeasedAttempts
from reactorcide.jobs.remote.dispatch import Dispatcher
from reactorcide.lib.records import record
from reactorcide.metrics import Metrics
from reactorcide.network import Http
from reactorcide.runs import RunContext
from reactorcide.web.probes import Probes
from reactorcide.web.ratelimit import FailureLimiter
from reactorcide.web.streams import StreamSlots

RETENTION = ("keep_jobs", "keep_days", "keep_bytes", "keep_image_days", "keep_source_days", "max_cache_bytes")


@record(kw_only=True)
class RemoteWorkers:
    """What workers on other machines need of the service."""

    dispatcher: Dispatcher
    attempts: LeasedAttempts
    lease_s: float
    limits: Mapping[str, float]
    """The limits that the service sets to them, by their names in the answer."""


@record(kw_only=True)
class Services:
    """The collaborators of the routes."""

    jobs: JobContext
    runs: RunContext
    accounts: AccountContext
    defaults: JobDefaults
    max_source_bytes: int
    """The maximum size of an uploaded source, packed and unpacked."""
    slots: StreamSlots
    delivery_slots: StreamSlots
    """For large deliveries, by address: strangers can send them, and slowly."""
    metrics: Metrics
    bad_tokens: FailureLimiter
    probes: Probes
    """The checks of the parts that the service needs."""
    workers: Callable[[], list[WorkerView]]
    remote: RemoteWorkers
    is_admin: Callable[[str], bool]
    """Whether the user with an id is an active admin."""
    http: Http
    """Sends requests to forges."""
    public_url: str | None
    """The URL at which users reach the service, if the operator has named it."""
    retention: Mapping[str, int]
    """The values of the settings named in ``RETENTION``."""


_EXTENSION = "reactorcide.services"


def install_services(app: Flask, collaborators: Services) -> None:
    """Give ``app`` the collaborators of its routes."""
    app.extensions[_EXTENSION] = collaborators


def services() -> Services:
    """Return the collaborators of the current application."""
    return cast(Services, current_app.extensions[_EXTENSION])
