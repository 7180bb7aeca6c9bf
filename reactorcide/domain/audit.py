"""Audit entries: who did what to which subject. They have no secrets and no request bodies."""

import socket
from enum import StrEnum

from reactorcide.lib.records import record


class Action(StrEnum):
    """The action; the part before the dot is the kind of the subject."""

    JOB_SUBMIT = "job.submit"
    JOB_RERUN = "job.rerun"
    """The subject is the new job."""
    JOB_CANCEL = "job.cancel"
    JOB_DELETE = "job.delete"
    """By a user, or by retention."""
    JOB_PIN = "job.pin"
    JOB_UNPIN = "job.unpin"
    RUN_START = "run.start"
    RUN_APPROVE = "run.approve"
    """With all runs of the project that wait for approval at the same commit."""
    RUN_CANCEL = "run.cancel"
    RUN_RERUN = "run.rerun"
    RUN_DELETE = "run.delete"
    """With its jobs; by a user, or by retention."""
    RUN_PIN = "run.pin"
    RUN_UNPIN = "run.unpin"
    PROJECT_CREATE = "project.create"
    PROJECT_CHANGE = "project.change"
    PROJECT_DELETE = "project.delete"
    PROJECT_RENEW_WEBHOOK_SECRET = "project.renew_webhook_secret"  # noqa: S105  # no password
    PROJECT_FORGET_WEBHOOK_SECRET = "project.forget_webhook_secret"  # noqa: S105  # no password
    """The one before the last renewal."""
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_RENEW_SECRET = "webhook.renew_secret"  # noqa: S105  # no password
    WEBHOOK_DELETE = "webhook.delete"
    DELIVERY_REDELIVER = "delivery.redeliver"
    """The subject is the project and the delivery."""
    PROJECT_SET_MEMBER = "project.set_member"
    """The subject is the project and the user."""
    PROJECT_REMOVE_MEMBER = "project.remove_member"
    """The subject is the project and the user."""
    SCHEDULE_CREATE = "schedule.create"
    SCHEDULE_CHANGE = "schedule.change"
    SCHEDULE_DELETE = "schedule.delete"
    SCHEDULE_RUN = "schedule.run"
    """By hand."""
    PROJECT_RENEW_DEPLOY_KEY = "project.renew_deploy_key"
    PROJECT_REMOVE_DEPLOY_KEY = "project.remove_deploy_key"
    CACHE_DELETE = "cache.delete"
    SECRET_SET = "secret.set"  # noqa: S105  # no password
    """The subject is the project, if it is of one, and the name."""
    SECRET_REKEY = "secret.rekey"  # noqa: S105  # no password
    """The key of the database was renewed; the subject is the installation."""
    SECRET_DELETE = "secret.delete"  # noqa: S105  # no password
    """The subject is the project, if it is of one, and the name."""
    SOURCE_UPLOAD = "source.upload"
    TOKEN_CREATE = "token.create"  # noqa: S105  # no password
    TOKEN_REVOKE = "token.revoke"  # noqa: S105  # no password
    SESSION_OPEN = "session.open"
    """Somebody signed in to the web page; the subject is the token that the session is limited by."""
    SESSION_CLOSE = "session.close"
    """Somebody signed out; the subject is as above."""
    USER_CREATE = "user.create"
    USER_REGISTER = "user.register"
    """By invitation; the actor is the new user."""
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    USER_MAKE_ADMIN = "user.make_admin"
    USER_MAKE_USER = "user.make_user"
    USER_REMOVE = "user.remove"
    INVITATION_CREATE = "invitation.create"
    WORKER_ADD = "worker.add"
    """A worker on another machine."""
    WORKER_DRAIN = "worker.drain"
    WORKER_RESUME = "worker.resume"
    WORKER_FORGET = "worker.forget"


@record(kw_only=True)
class Actor:
    """The actor of an action, with its token, address and request, if known."""

    user_id: str
    """Or ``operator@HOST`` for the command line on the service's host, ``service@HOST`` for the service."""
    token_id: str | None = None
    address: str | None = None
    request_id: str | None = None


def operator() -> Actor:
    """Return the operator of this host, who needs no token."""
    return Actor(user_id=f"operator@{socket.gethostname()}")


def service() -> Actor:
    """Return the service itself, for actions by the operator's rules."""
    return Actor(user_id=f"service@{socket.gethostname()}")


@record(kw_only=True)
class AuditEntry:
    """An action, its actor and its subject: a job, cache, source, token, user or invitation."""

    at_ms: int
    by: Actor
    action: Action
    subject: str


@record(kw_only=True)
class AuditFilter:
    """A filter of audit entries; ``None`` matches any."""

    user_id: str | None = None
    action: Action | None = None
    subject: str | None = None
