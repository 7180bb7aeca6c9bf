"""Messages of webhooks that are still to be sent."""

import uuid

from reactorcide.domain.webhooks import WebhookMessage


def owed_message(webhook_id: str, *, type_: str = "run.completed", message_id: str = "") -> WebhookMessage:
    """Return a message that is due and was never tried."""
    return WebhookMessage(
        message_id=message_id or str(uuid.uuid4()),
        webhook_id=webhook_id,
        type=type_,
        body="{}",
        created_at_ms=1,
        version=1,
        owed_since_ms=1,
        next_at_ms=1,
        failures=0,
        problem=None,
        sent_at_ms=None,
    )
