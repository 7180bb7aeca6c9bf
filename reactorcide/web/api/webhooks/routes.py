"""Routes on webhooks and their messages."""

from typing import Any

from flask import Response, jsonify

from reactorcide.domain.webhooks import WebhookMessage
from reactorcide.lib.clock import rfc3339, rfc3339_or_none
from reactorcide.web.address import location
from reactorcide.web.api import lists
from reactorcide.web.api.resource import resource
from reactorcide.web.api.schemas import ErrorResponse, NoQuery
from reactorcide.web.api.webhooks.schemas import (
    MessageListQuery,
    MessageListResponse,
    MessagePath,
    MessageResponse,
    NewWebhookResponse,
    RenewedSecretResponse,
    WebhookChange,
    WebhookListResponse,
    WebhookPath,
    WebhookRequest,
    WebhookResponse,
)
from reactorcide.web.auth import caller
from reactorcide.web.services import services
from reactorcide.webhooks import change
from reactorcide.webhooks.change import WebhookView

api = resource("webhooks", __name__, tag="webhooks")


@api.post("/webhooks", responses={201: NewWebhookResponse, 404: ErrorResponse, 409: ErrorResponse})
def create_webhook(body: WebhookRequest, query: NoQuery) -> tuple[Response, int, dict[str, str]]:
    """Create a webhook, which gets messages about the runs and jobs of the caller's projects."""
    view, secret = change.create(services().jobs, caller(), body.url, body.events, body.projects)
    headers = {"Location": location(f"/webhooks/{view.webhook.webhook_id}")}
    return jsonify(_json(view) | {"secret": secret}), 201, headers


@api.get("/webhooks", responses={200: WebhookListResponse})
def list_webhooks(query: NoQuery) -> Response:
    """List the caller's webhooks, newest first; an admin sees all."""
    return jsonify({"webhooks": [_json(view) for view in change.list_own(services().jobs, caller())]})


@api.get("/webhooks/<webhook_id>", responses={200: WebhookResponse})
def show_webhook(path: WebhookPath, query: NoQuery) -> Response:
    """Show a webhook."""
    return jsonify(_json(change.get(services().jobs, caller(), path.webhook_id)))


@api.patch("/webhooks/<webhook_id>", responses={200: WebhookResponse})
def change_webhook(path: WebhookPath, body: WebhookChange, query: NoQuery) -> Response:
    """Change a webhook. Pending messages are sent at once, and a disabled webhook is enabled again."""
    view = change.change(
        services().jobs,
        caller(),
        path.webhook_id,
        url=body.url,
        events=body.events,
        projects=body.projects,
    )
    return jsonify(_json(view))


@api.post("/webhooks/<webhook_id>/secret", responses={201: RenewedSecretResponse})
def renew_secret_of_webhook(path: WebhookPath, query: NoQuery) -> tuple[Response, int]:
    """Create a new secret for a webhook and show it; the previous one also signs for 24 hours."""
    return jsonify({"secret": change.renew_secret(services().jobs, caller(), path.webhook_id)}), 201


@api.delete("/webhooks/<webhook_id>", responses={204: None})
def delete_webhook(path: WebhookPath, query: NoQuery) -> tuple[str, int]:
    """Remove a webhook with its messages."""
    change.remove(services().jobs, caller(), path.webhook_id)
    return "", 204


@api.get("/webhooks/<webhook_id>/messages", responses={200: MessageListResponse})
def list_messages(path: WebhookPath, query: MessageListQuery) -> Response:
    """List the messages of a webhook, sent and pending, newest first, of the last 30 days."""
    after = lists.from_cursor(query.cursor)
    items = change.messages(services().jobs, caller(), path.webhook_id, limit=query.limit + 1, after=after)
    page, next_cursor = lists.split(items, query.limit, lambda item: (item.created_at_ms, item.message_id))
    return jsonify({"messages": [_message_json(item) for item in page], "next_cursor": next_cursor})


@api.post("/webhooks/<webhook_id>/messages/<message_id>/redeliver", responses={202: MessageResponse})
def redeliver_message(path: MessagePath, query: NoQuery) -> tuple[Response, int]:
    """Send a message again, under the same id."""
    message = change.redeliver(services().jobs, caller(), path.webhook_id, path.message_id)
    return jsonify(_message_json(message)), 202


def _json(view: WebhookView) -> dict[str, Any]:
    webhook = view.webhook
    return {
        "webhook_id": webhook.webhook_id,
        "user_id": webhook.user_id,
        "url": webhook.url,
        "events": list(webhook.events),
        "project_ids": None if webhook.project_ids is None else list(webhook.project_ids),
        "problem": view.problem,
        "disabled_at": rfc3339_or_none(webhook.disabled_at_ms),
        "created_at": rfc3339(webhook.created_at_ms),
    }


def _message_json(message: WebhookMessage) -> dict[str, Any]:
    return {
        "message_id": message.message_id,
        "type": message.type,
        "body": message.body,
        "created_at": rfc3339(message.created_at_ms),
        "owed_since": rfc3339_or_none(message.owed_since_ms),
        "failures": message.failures,
        "problem": message.problem,
        "sent_at": rfc3339_or_none(message.sent_at_ms),
    }
