"""Webhooks: who is told of runs and jobs, and what they were told. Times are Unix milliseconds in UTC."""

from dataclasses import dataclass
from enum import StrEnum


class WebhookEvent(StrEnum):
    """What a webhook is told of."""

    RUN = "run"
    """Each status of a run."""
    JOB = "job"
    """Each status of a job of a run."""
    FAILURE = "failure"
    """A run has failed."""
    RECOVERY = "recovery"
    """A run has completed, of a workflow whose run before had failed for the same branch and event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that is told of runs and jobs of projects."""

    webhook_id: str
    user_id: str
    """Who has created it, and has to be an owner of the projects still, or an admin."""
    url: str
    events: tuple[WebhookEvent, ...]
    project_ids: tuple[str, ...] | None
    """``None``: all projects."""
    created_at_ms: int
    disabled_at_ms: int | None = None
    """Since when it is told nothing, because its address is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
    """What a webhook is told, as the database has it."""

    message_id: str
    webhook_id: str
    type: str
    """Like ``run.failed``, ``job.completed``, ``failure``."""
    body: str
    """JSON, as it is sent."""
    created_at_ms: int
    version: int
    """Counts how often it was to be sent."""
    owed_since_ms: int | None
    """``None``: it is not to be sent (any more)."""
    next_at_ms: int | None
    failures: int
    problem: str | None
    sent_at_ms: int | None
