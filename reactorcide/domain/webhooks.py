"""Webhooks, which get messages about runs and jobs. Times are Unix milliseconds in UTC."""

from enum import StrEnum

from reactorcide.lib.records import record


class WebhookEvent(StrEnum):
    """A kind of message that a webhook gets."""

    RUN = "run"
    """Each status of a run."""
    JOB = "job"
    """Each status of a job of a run."""
    FAILURE = "failure"
    """A run has failed."""
    RECOVERY = "recovery"
    """A run has completed after the previous one of the same workflow, branch and event had failed."""


@record(kw_only=True)
class Webhook:
    """A URL that gets messages about the runs and jobs of projects."""

    webhook_id: str
    user_id: str
    """The creator, who must still be an owner of the projects, or an admin."""
    url: str
    events: tuple[WebhookEvent, ...]
    project_ids: tuple[str, ...] | None
    """``None``: all projects."""
    created_at_ms: int
    disabled_at_ms: int | None = None
    """When it was disabled because its URL answered 410 Gone."""


@record(kw_only=True)
class WebhookMessage:
    """A message of a webhook, from the database."""

    message_id: str
    webhook_id: str
    type: str
    """Like ``run.failed``, ``job.completed``, ``failure``."""
    body: str
    """JSON, as it is sent."""
    created_at_ms: int
    version: int
    """Increases each time it has to be sent."""
    owed_since_ms: int | None
    """``None``: it is not to be sent, or no longer."""
    next_at_ms: int | None
    failures: int
    problem: str | None
    sent_at_ms: int | None
