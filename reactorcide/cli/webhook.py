"""``reactorcide webhook``: manage webhooks, which get messages about runs and jobs, through the API."""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.connect import connect
from reactorcide.cli.ids import id_of
from reactorcide.domain.webhooks import WebhookEvent
from reactorcide.lib.ids import is_id

_webhook = click.argument(
    "webhook_id", metavar="WEBHOOK", type=id_of("webhook", "reactorcide webhook list", is_id)
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")


def _options(command: Any) -> Any:
    events = click.option(
        "--event",
        "events",
        multiple=True,
        type=click.Choice([item.value for item in WebhookEvent]),
        help="run, job: every status; failure: a run has failed; recovery: it works again. Repeatable.",
    )
    projects = click.option(
        "--project", "projects", multiple=True, metavar="PROJECT", help="Name or id; repeatable."
    )
    return events(projects(command))


@click.group()
def webhook() -> None:
    """Send messages about the runs and jobs of projects that you own to URLs."""


@webhook.command()
@click.argument("url", metavar="URL")
@_options
@_json
def add(url: str, events: tuple[str, ...], projects: tuple[str, ...], as_json: bool) -> None:
    """Create a webhook for URL, and print its id and its secret, which is not shown again.

    By default it gets failures and recoveries. An admin can leave out --project for all projects.
    """
    body: dict[str, Any] = {"url": url, "events": [*(events or ("failure", "recovery"))]}
    if projects:
        body["projects"] = [*projects]
    with connect() as client:
        created = client.create_webhook(body)
    if as_json:
        render.as_json(created)
        return
    render.say(created["webhook_id"])
    render.say(f"Secret: {created['secret']}", err=True)


@webhook.command("list")
@_json
def list_webhooks(as_json: bool) -> None:
    """List your webhooks, newest first; admins see all."""
    with connect() as client:
        listed = client.webhooks()
    if as_json:
        render.as_json(listed)
        return
    render.table(
        ("ID", "EVENTS", "URL", "PROBLEM"),
        [
            (item["webhook_id"], ",".join(item["events"]), item["url"], item["problem"] or "")
            for item in listed["webhooks"]
        ],
        flexible="PROBLEM",
    )


@webhook.command()
@_webhook
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Maximum number.")
@_json
def messages(webhook_id: str, limit: int, as_json: bool) -> None:
    """List the messages of WEBHOOK: sent in the last 30 days, and still to be sent; newest first."""
    with connect() as client:
        page = client.webhook_messages(webhook_id, {"limit": limit})
    if as_json:
        render.as_json(page)
        return
    render.table(
        ("ID", "TYPE", "CREATED", "SENT", "PROBLEM"),
        [
            (
                item["message_id"],
                item["type"],
                item["created_at"],
                item["sent_at"] or "",
                item["problem"] or "",
            )
            for item in page["messages"]
        ],
        flexible="PROBLEM",
    )


@webhook.command()
@_webhook
@click.option("--url", metavar="URL", help="New address.")
@_options
def change(webhook_id: str, url: str | None, events: tuple[str, ...], projects: tuple[str, ...]) -> None:
    """Change WEBHOOK. Pending messages are sent at once, and a disabled webhook is enabled again."""
    changes = {"url": url, "events": [*events], "projects": [*projects]}
    body = {name: value for name, value in changes.items() if value}
    if not body:
        raise click.UsageError("Nothing to change: give an option.")
    with connect() as client:
        client.change_webhook(webhook_id, body)
    render.say(f"{webhook_id} changed")


@webhook.command()
@_webhook
def secret(webhook_id: str) -> None:
    """Create a new secret for WEBHOOK and print it; the previous one also signs for 24 hours."""
    with connect() as client:
        renewed = client.renew_secret_of_webhook(webhook_id)
    render.say(renewed["secret"])


@webhook.command()
@_webhook
@click.argument("message_id", metavar="MESSAGE", type=id_of("message", "reactorcide webhook messages", is_id))
def redeliver(webhook_id: str, message_id: str) -> None:
    """Send MESSAGE of WEBHOOK again, under the same id."""
    with connect() as client:
        client.redeliver_message(webhook_id, message_id)
    render.say(f"{message_id} is being sent again")


@webhook.command()
@_webhook
def remove(webhook_id: str) -> None:
    """Remove WEBHOOK with its pending messages."""
    with connect() as client:
        client.delete_webhook(webhook_id)
    render.say(f"{webhook_id} removed")
