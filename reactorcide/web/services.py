"""What the web layer is given to work with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from reactorcide.accounts import AccountContext
from reactorcide.domain.workers import WorkerView
from reactorcide.jobs import JobContext
from reactorcide.metrics import Metrics
from reactorcide.web.probes import Probes
from reactorcide.web.ratelimit import FailureLimiter
from reactorcide.web.streams import StreamSlots


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDefaults:
    """What a job gets that does not say, and the most that it may ask for; ``None`` is no limit."""

    image: str
    cpu_limit: float | None
    max_cpu_limit: float | None
    memory_limit_bytes: int | None
    max_memory_limit_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The collaborators of the routes."""

    jobs: JobContext
    accounts: AccountContext
    defaults: JobDefaults
    max_source_bytes: int
    """What an uploaded source may measure, packed and unpacked."""
    slots: StreamSlots
    metrics: Metrics
    bad_tokens: FailureLimiter
    probes: Probes
    """What has to work for the service to be ready."""
    workers: Callable[[], list[WorkerView]]


_EXTENSION = "reactorcide.services"


def install_services(app: Flask, given: Services) -> None:
    """Have the routes of ``app`` work with what is ``given``."""
    app.extensions[_EXTENSION] = given


def services() -> Services:
    """Return what the application of this request works with."""
    return cast(Services, current_app.extensions[_EXTENSION])
