"""``reactorcide secret``: set, list and delete named secrets through the API."""

import sys
from pathlib import Path
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.domain.audit import operator
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.secrets import rekey as renewal

_name = click.argument("name", metavar="PATH:KEY")
_project = click.option(
    "--project", metavar="NAME", help="Project of the secret; without it the service's, for admins."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")


@click.group()
def secret() -> None:
    """Set, list and delete secrets, which workflows use as ${secret:path:key}."""


@secret.command("set")
@_name
@_project
@click.option(
    "--value",
    metavar="@FILE|-",
    help="File with the value, or - for standard input. By default an earlier value stays.",
)
@click.option("--event", "events", multiple=True, help="Event that may use it, like push; repeatable.")
@click.option(
    "--branch", "branches", metavar="GLOB", multiple=True, help="Branches that may use it; repeatable."
)
@click.option(
    "--workflow", "workflows", metavar="ID", multiple=True, help="Workflow that may use it; repeatable."
)
@click.option(
    "--for-project",
    "projects",
    metavar="NAME",
    multiple=True,
    help="Project that may use a secret of the service; repeatable, none by default.",
)
def set_secret(name: str, project: str | None, value: str | None, **rules: tuple[str, ...]) -> None:
    """Set the secret PATH:KEY, like pypi:token, and the rules for its use.

    By default it may be used for all events but pull requests that are opened or updated, and for any branch
    and workflow. One newline at the end of the value is removed.
    """
    if rules["projects"] and project is not None:
        raise click.UsageError("--for-project is for a secret of the service; leave out --project.")
    body: dict[str, Any] = {key: list(values) for key, values in rules.items() if values}
    if value is not None:
        body["value"] = read_value(value)
    with connect() as client:
        client.set_secret(_project_id(client, project), name, body)
    render.say(f"{name} set")


@secret.command("list")
@_project
@_json
def list_secrets(project: str | None, as_json: bool) -> None:
    """List secrets without their values: the rules for their use, and their last uses."""
    with connect() as client:
        listed = client.secrets(_project_id(client, project))
    if as_json:
        render.as_json({"secrets": listed})
        return
    render.table(
        ("NAME", "EVENTS", "BRANCHES", "WORKFLOWS", "PROJECTS", "USED BY", "LAST USED"),
        [
            (
                item["name"],
                _listed(item["events"], "all but pull requests"),
                _listed(item["branches"], "any"),
                _listed(item["workflows"], "any"),
                "" if item["project_id"] else _listed(item["projects"], "none"),
                ", ".join(dict.fromkeys(use["workflow"] for use in item["uses"])),
                item["last_used_at"] or "never",
            )
            for item in listed
        ],
        flexible="USED BY",
    )


@secret.command()
@_name
@_project
def delete(name: str, project: str | None) -> None:
    """Delete the secret PATH:KEY. Jobs that were created with it still have it."""
    with connect() as client:
        client.delete_secret(_project_id(client, project), name)
    render.say(f"{name} deleted")


@secret.command()
@settings_options("data_dir", "database")
def rekey(**options: Any) -> None:
    """Renew the key that encrypts secrets, directly in the data directory of a stopped service.

    It can be killed at any point and repeated. Earlier backups contain the old key.
    """
    from reactorcide.app.operator import check_nothing_runs, open_jobs

    settings = settings_from(options)
    with open_jobs(settings) as context, lock_data_dir(settings.data_dir):
        check_nothing_runs(settings)
        count = renewal.rekey(context, by=operator())
    render.say(f"{count} values are encrypted with a new key")


def read_value(source: str) -> str:
    """Return the value in ``@FILE``, or ``-`` for standard input, without one newline at its end.

    Raises ``InvalidInput``: a value on the command line would be seen by every user of the host.
    """
    if source != "-" and not source.startswith("@"):
        raise InvalidInput("give the value as @FILE, or - for standard input, never on the command line")
    place = "standard input" if source == "-" else source[1:]
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_VALUE_BYTES + 2)
        else:
            with Path(source[1:]).open("rb") as file:
                data = file.read(MAX_VALUE_BYTES + 2)
        value = data.decode()
    except OSError as exc:
        raise InvalidInput(f"the value cannot be read from {place}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"the value in {place} is not UTF-8; encode it, as with base64") from exc
    if value.endswith("\n"):
        value = value[:-1]
        render.say(f"one newline at the end of {place} is removed", err=True)
    return value


def _project_id(client: Client, name: str | None) -> str | None:
    return None if name is None else str(client.project(name)["project_id"])


def _listed(values: list[str] | None, default: str) -> str:
    return default if values is None else ", ".join(values) or default
