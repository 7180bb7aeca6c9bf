"""``reactorcide caches``: list and delete caches through the API."""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.connect import connect
from reactorcide.cli.ids import id_of
from reactorcide.lib.ids import is_id
from reactorcide.lib.sizes import format_size

_id = id_of("cache", "reactorcide caches list", is_id)


@click.group()
def caches() -> None:
    """List and delete the caches of runs."""


@caches.command("list")
@click.option("--project", help="Only caches of this project, by its name.")
@click.option("--user", "user_id", metavar="ID", help="Only caches of this user; for admins.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Maximum number of caches."
)
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
def list_caches(as_json: bool, **filters: Any) -> None:
    """List caches, newest first."""
    with connect() as client:
        page = client.caches(filters)
    if as_json:
        render.as_json(page)
        return
    render.table(
        ("ID", "SIZE", "USED", "REPOSITORY", "BRANCH", "KEY"),
        [
            (
                cache["cache_id"],
                format_size(cache["size"]),
                render.age(cache["last_used_at"]),
                cache["repository"],
                cache["branch"],
                cache["key"],
            )
            for cache in page["caches"]
        ],
        flexible="REPOSITORY",
    )
    if page["next_cursor"] is not None:
        render.say("There are more caches; --limit shows more.", err=True)


@caches.command()
@click.argument("cache_ids", metavar="ID...", type=_id, nargs=-1, required=True)
def delete(cache_ids: tuple[str, ...]) -> None:
    """Delete caches."""
    with connect() as client:
        for cache_id in cache_ids:
            client.delete_cache(cache_id)
            render.say(f"{cache_id} deleted")
