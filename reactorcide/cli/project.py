"""``reactorcide project``: add, list, show, change and remove projects through the API."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.deliveries import deliveries
from reactorcide.cli.schedules import schedules
from reactorcide.cli.secret import read_value
from reactorcide.domain.errors import NotFound
from reactorcide.domain.forges import ForgeKind
from reactorcide.domain.projects import ProjectRole, PullRequests, Visibility

_name = click.argument("name", metavar="PROJECT")
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
F = TypeVar("F", bound=Callable[..., Any])


def _settings(command: F) -> F:
    """Add the options of the settings of a project."""
    options = (
        click.option(
            "--visibility",
            type=click.Choice([item.value for item in Visibility]),
            help="Who can see its runs: its members (the default), every user, or everyone.",
        ),
        click.option(
            "--forge",
            type=click.Choice([item.value for item in ForgeKind]),
            help="Forge that sends its deliveries; gitea includes Forgejo and Gogs.",
        ),
        click.option("--forge-url", metavar="URL", help="Start page of a self-hosted forge."),
        click.option("--token", metavar="@FILE|-", help="File with a token of the forge, or -."),
        click.option(
            "--default-branch", metavar="BRANCH", help="Default branch; the repository's by default."
        ),
        click.option("--default-image", metavar="IMAGE", help="Default image of its jobs."),
        click.option("--queue", metavar="NAME", help="Default queue of its jobs."),
        click.option(
            "--pull-requests",
            type=click.Choice([item.value for item in PullRequests]),
            help="Pull requests that start runs: none, the repository's own (default), or all, with forks.",
        ),
        click.option(
            "--allow-event",
            "allowed_events",
            multiple=True,
            metavar="EVENT",
            help="Event that starts runs; repeatable, all by default.",
        ),
        click.option(
            "--max-running",
            type=click.IntRange(0),
            metavar="N",
            help="Maximum number of jobs that run at once; 0 sets no limit.",
        ),
        click.option(
            "--builder/--no-builder",
            default=None,
            help="Allow its jobs to build images with the operator's BuildKit; for admins.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _body(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request for the given options."""
    body = {key: value for key, value in options.items() if value not in (None, ())}
    if "allowed_events" in body:
        body["allowed_events"] = [event for event in body["allowed_events"] if event]
    for key in ("token", "known_hosts"):
        if body.get(key):
            body[key] = read_value(body[key])
    return body


@click.group()
def project() -> None:
    """Add, list, show, change and remove projects, and their members.

    A project is a repository whose runs its members share.
    """


@project.command()
@_name
@click.option("--git", "git_url", metavar="URL", required=True, help="The project's repository.")
@_settings
@_json
def add(name: str, as_json: bool, **options: Any) -> None:
    """Create PROJECT, named like acme/site, and print its id. You become its owner.

    The address and the secret of its webhook are printed, too: give both to the forge. The secret is not
    shown again. Then its repository is fetched and its token checked, and problems are printed.
    """
    with connect() as client:
        created = client.create_project({"name": name} | _body(options))
        if as_json:
            render.as_json(created)
            return
        render.say(created["project_id"])
        _say_webhook(created["settings"]["webhook_url"], created["webhook_secret"])
        _say_missing(client, created["project_id"])


@project.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Maximum number of projects.",
)
@_json
def list_projects(limit: int, as_json: bool) -> None:
    """List projects, newest first."""
    with connect() as client:
        page = client.projects({"limit": limit})
    if as_json:
        render.as_json(page)
        return
    render.table(
        ("ID", "NAME", "VISIBILITY", "REPOSITORY"),
        [
            (item["project_id"], item["name"], item["visibility"], item["git_url"])
            for item in page["projects"]
        ],
        flexible="REPOSITORY",
    )
    if page["next_cursor"] is not None:
        render.say(f"There are {page['total']} projects; --limit shows more.", err=True)


@project.command()
@_name
@_json
def show(name: str, as_json: bool) -> None:
    """Show PROJECT with its members."""
    with connect() as client:
        item = client.project(name)
    if as_json:
        render.as_json(item)
        return
    rows = {
        "Project": f"{item['name']} ({item['project_id']})",
        "Repository": item["git_url"],
        "Visibility": item["visibility"] + (", disabled" if item["disabled"] else ""),
        "Your role": item["role"] or "none",
        "Created": item["created_at"],
    }
    if item["settings"] is not None:
        rows |= _settings_rows(item["settings"])
    for title, value in rows.items():
        render.line(f"{title:14}  {value}")
    if item["members"]:
        render.table(("MEMBER", "ROLE"), [(member["username"], member["role"]) for member in item["members"]])


def _settings_rows(settings: dict[str, Any]) -> dict[str, str]:
    credentials = [item["kind"].replace("_", " ") for item in settings["credentials"]]
    rows = {
        "Forge": " ".join(filter(None, (settings["forge"], settings["forge_url"]))),
        "Webhook": settings["webhook_url"],
        "Credentials": ", ".join(credentials) or "none",
        "Pull requests": settings["pull_requests"],
    }
    public = {item["kind"]: item["public"] for item in settings["credentials"]}
    optional = {
        "Deploy key": public.get("deploy_key"),
        "Known hosts": (public.get("known_hosts") or "").rstrip("\n").replace("\n", ", "),
        "Events": settings["allowed_events"] and ", ".join(settings["allowed_events"]),
        "Default branch": settings["default_branch"],
        "Default image": settings["default_image"],
        "Queue": settings["queue"],
        "Max. running": settings["max_running"],
        "Builder": settings["builder"] and "granted",
        "Statuses": settings["status_problem"],
    }
    return rows | {title: str(value) for title, value in optional.items() if value}


def _say_webhook(url: str, secret: str) -> None:
    render.say(f"Webhook: {url}", err=True)
    if url.startswith("/"):
        render.say("The host is this service's address; set it with serve --public-url.", err=True)
    render.say(f"Secret:  {secret}", err=True)


@project.command()
@_name
@click.option("--name", "new_name", metavar="NAME", help="New name.")
@click.option("--git", "git_url", metavar="URL", help="New repository.")
@click.option(
    "--known-hosts",
    metavar="@FILE|-",
    help="File with the keys of SSH servers, as ssh-keyscan prints them; empty forgets them.",
)
@click.option(
    "--disable/--enable",
    "disabled",
    default=None,
    help="Disable the project, so that nothing starts, or enable it again.",
)
@_settings
def change(name: str, new_name: str | None, **options: Any) -> None:
    """Change PROJECT; for its owners. An empty value takes a setting back to its default."""
    body = _body({"name": new_name, **options})
    if not body:
        raise click.UsageError("Nothing to change: give an option.")
    with connect() as client:
        changed = client.change_project(client.project(name)["project_id"], body)
        render.say(f"{name} changed")
        if {"git_url", "token", "forge", "forge_url", "default_branch"} & body.keys():
            _say_missing(client, changed["project_id"])


@project.command()
@_name
@_json
def check(name: str, as_json: bool) -> None:
    """Check that PROJECT can fetch its repository and set commit statuses; for its owners.

    Exits with 1 if something is missing.
    """
    with connect() as client:
        project_id = client.project(name)["project_id"]
        if not as_json:
            sys.exit(1 if _say_missing(client, project_id) else 0)
        check = client.check_project(project_id)
    render.as_json(check)
    sys.exit(1 if any(check.values()) else 0)


def _say_missing(client: Client, project_id: str) -> bool:
    """Check the project's credentials and print the problems; returns whether there are any."""
    check = client.check_project(project_id)
    titles = {"repository": "Repository", "token": "Token"}
    for name, title in titles.items():
        render.say(f"{title}: {check[name] or 'works'}", err=True)
    return any(check.values())


@project.command("webhook-secret")
@_name
@click.option("--forget-previous", is_flag=True, help="Only revoke the previous secret.")
def webhook_secret(name: str, forget_previous: bool) -> None:
    """Create a new secret for the webhook of PROJECT, and print it; for its owners.

    The previous secret stays valid until the next renewal or --forget-previous.
    """
    with connect() as client:
        project_id = client.project(name)["project_id"]
        if forget_previous:
            client.forget_webhook_secret(project_id)
            render.say(f"only the newest webhook secret of {name} is valid")
            return
        renewed = client.renew_webhook_secret(project_id)
    _say_webhook(renewed["webhook_url"], renewed["webhook_secret"])


@project.command("deploy-key")
@_name
@click.option("--remove", "removes", is_flag=True, help="Only remove the existing key.")
def deploy_key(name: str, removes: bool) -> None:
    """Create a new SSH key for clones of PROJECT, and print its public half; for its owners.

    Add it at the forge as a read-only deploy key. It replaces an earlier key.
    """
    with connect() as client:
        project_id = client.project(name)["project_id"]
        if removes:
            client.remove_deploy_key(project_id)
            render.say(f"{name} has no deploy key now")
            return
        render.say(client.renew_deploy_key(project_id)["public_key"])


@project.command()
@_name
def remove(name: str) -> None:
    """Remove PROJECT with its runs and everything else it owns; for its owners. Its runs must have ended."""
    with connect() as client:
        client.delete_project(client.project(name)["project_id"])
    render.say(f"{name} removed")


project.add_command(schedules)
project.add_command(deliveries)


@project.group()
def member() -> None:
    """Add and remove members of a project; for its owners."""


@member.command("add")
@_name
@click.argument("username", metavar="USER")
@click.option(
    "--role",
    type=click.Choice([role.value for role in ProjectRole]),
    default=ProjectRole.WRITE.value,
    show_default=True,
    help="See runs; start, cancel and repeat them; change the project.",
)
def add_member(name: str, username: str, role: str) -> None:
    """Give USER a role in PROJECT; it replaces an earlier role."""
    with connect() as client:
        client.set_member(client.project(name)["project_id"], username, role)
    render.say(f"{username} has the role {role} in {name}")


@member.command("remove")
@_name
@click.argument("username", metavar="USER")
def remove_member(name: str, username: str) -> None:
    """Remove USER from PROJECT."""
    with connect() as client:
        project_item = client.project(name)
        ids = [item["user_id"] for item in project_item["members"] if item["username"] == username]
        if not ids:
            raise NotFound(f"{username} is not a member of {name}")
        client.remove_member(project_item["project_id"], ids[0])
    render.say(f"{username} is no longer a member of {name}")
