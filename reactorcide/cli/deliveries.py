"""``reactorcide project deliveries``: the deliveries of a project's forge, and their results."""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.ids import id_of
from reactorcide.domain.deliveries import DeliveryStatus
from reactorcide.domain.errors import InvalidInput, NotFound

_MAX_LISTED = 1000
_ID_CHARS = 36

_project = click.argument("project", metavar="PROJECT")
_delivery = click.argument(
    "delivery_id",
    metavar="DELIVERY",
    type=id_of("delivery", "reactorcide project deliveries list PROJECT"),
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")


@click.group()
def deliveries() -> None:
    """List and show the deliveries of a project's forge, and have them processed again; for its owners."""


@deliveries.command("list")
@_project
@click.option(
    "--status", type=click.Choice([item.value for item in DeliveryStatus]), help="Only those of this status."
)
@click.option(
    "--limit",
    type=click.IntRange(1, _MAX_LISTED),
    default=20,
    show_default=True,
    help="Maximum number of deliveries.",
)
@_json
def list_deliveries(project: str, status: str | None, limit: int, as_json: bool) -> None:
    """List the deliveries of PROJECT of the last 30 days, newest first."""
    with connect() as client:
        project_id = client.project(project)["project_id"]
        page = client.deliveries(project_id, {"status": status, "limit": limit})
    if as_json:
        render.as_json(page)
        return
    render.table(
        ("ID", "RECEIVED", "EVENT", "STATUS", "OUTCOME"),
        [
            (item["delivery_id"], item["created_at"], item["event"], item["status"], item["outcome"] or "")
            for item in page["deliveries"]
        ],
        flexible="OUTCOME",
    )
    if page["next_cursor"] is not None:
        render.say(f"There are {page['total']} deliveries; --limit shows more.", err=True)


@deliveries.command()
@_project
@_delivery
@_json
def show(project: str, delivery_id: str, as_json: bool) -> None:
    """Show DELIVERY of PROJECT, with its headers and body."""
    with connect() as client:
        project_id = client.project(project)["project_id"]
        delivery = client.delivery(project_id, _whole_id(client, project_id, delivery_id))
    if as_json:
        render.as_json(delivery)
        return
    rows = {
        "Delivery": delivery["delivery_id"],
        "Forge's id": delivery["forge_delivery_id"],
        "Event": delivery["event"],
        "Received": delivery["created_at"],
        "Status": delivery["status"],
        "Outcome": delivery["outcome"] or "",
        "Runs": " ".join(delivery["run_ids"]),
    }
    for title, value in rows.items():
        render.line(f"{title:10}  {value}")
    render.line("")
    for name, value in delivery["headers"].items():
        render.line(f"{name}: {value}")
    render.line("")
    render.line(delivery["body"])
    if delivery["body_is_cut"]:
        render.say(f"The body has {delivery['size']} bytes; this is the first MiB.", err=True)


@deliveries.command()
@_project
@_delivery
def redeliver(project: str, delivery_id: str) -> None:
    """Have DELIVERY of PROJECT processed again, also if it has started runs."""
    with connect() as client:
        project_id = client.project(project)["project_id"]
        delivery = client.redeliver(project_id, _whole_id(client, project_id, delivery_id))
    render.say(f"{delivery['delivery_id']} is processed again")


def _whole_id(client: Client, project_id: str, beginning: str) -> str:
    """Return the id of the one delivery, among the newest, whose id begins with ``beginning``."""
    if len(beginning) == _ID_CHARS:
        return beginning
    page: dict[str, Any] = client.deliveries(project_id, {"limit": _MAX_LISTED})
    ids = [item["delivery_id"] for item in page["deliveries"] if item["delivery_id"].startswith(beginning)]
    if not ids:
        raise NotFound(f"there is no delivery {beginning}; 'reactorcide project deliveries list' shows them")
    if len(ids) > 1:
        raise InvalidInput(f"{len(ids)} deliveries have an id that begins with {beginning}; give more of it")
    return str(ids[0])
