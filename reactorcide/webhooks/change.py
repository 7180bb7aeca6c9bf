"""Create, read, change and remove webhooks, and send their messages again."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from reactorcide.domain.accounts import User
from reactorcide.domain.audit import Action, AuditEntry
from reactorcide.domain.errors import Conflict, InvalidInput, NotFound
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.webhooks import Webhook, WebhookEvent, WebhookMessage
from reactorcide.jobs import JobContext, access
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import new_id
from reactorcide.lib.notifier import OUTBOX
from reactorcide.lib.records import record
from reactorcide.outbox.webhooks import SECRET_PREFIX
from reactorcide.store.outbox import WEBHOOKS

_MAX_URL_CHARS = 2048
_MAX_WEBHOOKS = 100
"""Maximum number of one user: they are listed in one answer, and each status change is compared with all."""
_SECRET_BYTES = 32


@record
class WebhookView:
    """A webhook, and why its last message was not delivered, if so."""

    webhook: Webhook
    problem: str | None


def create(
    context: JobContext, user: User, url: str, events: Sequence[str], projects: Sequence[str] | None
) -> tuple[WebhookView, str]:
    """Create a webhook, and return it with its secret, which is not shown again.

    ``projects`` are names or ids of projects that ``user`` is an owner of; ``None`` are all, for an admin.
    Raises ``InvalidInput``, ``NotFound``, ``Forbidden`` and ``Conflict``.
    """
    if len(context.store.webhooks.of_user(user.user_id)) >= _MAX_WEBHOOKS:
        raise Conflict(f"you have {_MAX_WEBHOOKS} webhooks already; remove one first")
    webhook = Webhook(
        webhook_id=new_id(),
        user_id=user.user_id,
        url=_checked_url(url),
        events=_events(events),
        project_ids=_project_ids(context, user, projects),
        created_at_ms=now_ms(),
    )
    secret = _new_secret()
    with context.store.transaction() as tx:
        tx.webhooks.add(webhook, secret)
        tx.audit.add(_entry(user, Action.WEBHOOK_CREATE, webhook))
    return WebhookView(webhook, None), secret


def list_own(context: JobContext, user: User) -> list[WebhookView]:
    """Return the webhooks of a user, all for an admin, newest first."""
    webhooks = context.store.webhooks.of_user(None if user.is_admin else user.user_id)
    return [_view(context, webhook) for webhook in webhooks]


def get(context: JobContext, user: User, webhook_id: str) -> WebhookView:
    """Return a webhook of the user, any for an admin; raises ``NotFound``."""
    webhook = context.store.webhooks.find(webhook_id)
    if webhook is None or (webhook.user_id != user.user_id and not user.is_admin):
        raise NotFound(f"there is no webhook {webhook_id}")
    return _view(context, webhook)


def change(
    context: JobContext,
    user: User,
    webhook_id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    projects: Sequence[str] | None = None,
) -> WebhookView:
    """Change the fields that are not ``None`` and return the webhook; pending messages are sent at once.

    A disabled webhook is enabled again, for events from now on.
    """
    before = get(context, user, webhook_id).webhook
    webhook = replace(
        before,
        url=before.url if url is None else _checked_url(url),
        events=before.events if events is None else _events(events),
        project_ids=before.project_ids if projects is None else _project_ids(context, user, projects),
        disabled_at_ms=None,
    )
    with context.store.transaction() as tx:
        tx.webhooks.save(webhook)
        tx.outbox.resume(WEBHOOKS, webhook_id, now_ms=now_ms())
        tx.audit.add(_entry(user, Action.WEBHOOK_CHANGE, webhook))
    context.notifier.announce(OUTBOX)
    return get(context, user, webhook_id)


def renew_secret(context: JobContext, user: User, webhook_id: str) -> str:
    """Return a new secret of a webhook. The previous one also signs its messages for a day."""
    webhook = get(context, user, webhook_id).webhook
    secret = _new_secret()
    with context.store.transaction() as tx:
        tx.webhooks.renew_secret(webhook_id, secret, now_ms=now_ms())
        tx.audit.add(_entry(user, Action.WEBHOOK_RENEW_SECRET, webhook))
    return secret


def remove(context: JobContext, user: User, webhook_id: str) -> None:
    """Remove a webhook with its sent and pending messages."""
    webhook = get(context, user, webhook_id).webhook
    with context.store.transaction() as tx:
        tx.webhooks.delete(webhook_id)
        tx.audit.add(_entry(user, Action.WEBHOOK_DELETE, webhook))


def messages(
    context: JobContext, user: User, webhook_id: str, *, limit: int, after: tuple[int, str] | None
) -> list[WebhookMessage]:
    """Return a page of the messages of a webhook, sent and pending, newest first."""
    get(context, user, webhook_id)
    return context.store.webhooks.messages(webhook_id, limit=limit, after=after)


def redeliver(context: JobContext, user: User, webhook_id: str, message_id: str) -> WebhookMessage:
    """Send a message again, under the same id, and return it; raises ``NotFound``."""
    get(context, user, webhook_id)
    message = context.store.webhooks.redeliver(webhook_id, message_id, now_ms=now_ms())
    if message is None:
        raise NotFound(f"there is no message {message_id} of the webhook")
    context.notifier.announce(OUTBOX)
    return message


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _view(context: JobContext, webhook: Webhook) -> WebhookView:
    return WebhookView(webhook, context.store.outbox.problem(WEBHOOKS, webhook.webhook_id))


def _entry(user: User, action: Action, webhook: Webhook) -> AuditEntry:
    return AuditEntry(at_ms=now_ms(), by=user.actor, action=action, subject=webhook.webhook_id)


def _events(events: Sequence[str]) -> tuple[WebhookEvent, ...]:
    return tuple(dict.fromkeys(map(WebhookEvent, events)))


def _project_ids(context: JobContext, user: User, projects: Sequence[str] | None) -> tuple[str, ...] | None:
    if projects is None:
        if not user.is_admin:
            raise InvalidInput(
                "name the projects; only an admin's webhook gets messages about all", "projects"
            )
        return None
    project_ids = [access.project(context, user, name, ProjectRole.OWNER).project_id for name in projects]
    return tuple(dict.fromkeys(project_ids))


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_valid = parts.port != 0 and bool(parts.hostname) and parts.scheme in ("http", "https")
    except ValueError:
        is_valid = False
    # What urllib3 makes of other characters is not what was checked.
    if not is_valid or len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            f"url must be an http or https URL of at most {_MAX_URL_CHARS} ASCII characters", "url"
        )
    if "@" in parts.netloc:
        raise InvalidInput("url must not have credentials: it is shown; check the signature instead", "url")
    return url
