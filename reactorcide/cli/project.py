"""``reactorcide project``: add, list, show, change and remove projects through the API."""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.connect import connect
from reactorcide.domain.errors import NotFound
from reactorcide.domain.projects import ProjectRole, Visibility

_name = click.argument("name", metavar="PROJECT")
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
_visibility = click.Choice([item.value for item in Visibility])


@click.group()
def project() -> None:
    """Add, list, show, change and remove projects, and their members.

    A project is a repository whose runs its members share.
    """


@project.command()
@_name
@click.option("--git", "git_url", metavar="URL", required=True, help="The project's repository.")
@click.option(
    "--visibility",
    type=_visibility,
    default=Visibility.PRIVATE.value,
    show_default=True,
    help="Who sees its runs: its members, or every user.",
)
@_json
def add(name: str, git_url: str, visibility: str, as_json: bool) -> None:
    """Create PROJECT, named like acme/site, and print its id. You become its owner."""
    with connect() as client:
        created = client.create_project({"name": name, "git_url": git_url, "visibility": visibility})
    if as_json:
        render.as_json(created)
    else:
        render.say(created["project_id"])


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
        found = client.project(name)
    if as_json:
        render.as_json(found)
        return
    rows = {
        "Project": f"{found['name']} ({found['project_id']})",
        "Repository": found["git_url"],
        "Visibility": found["visibility"],
        "Your role": found["role"] or "none",
        "Created": found["created_at"],
    }
    for title, value in rows.items():
        render.line(f"{title:10}  {value}")
    if found["members"]:
        render.table(
            ("MEMBER", "ROLE"), [(member["username"], member["role"]) for member in found["members"]]
        )


@project.command()
@_name
@click.option("--name", "new_name", metavar="NAME", help="New name.")
@click.option("--git", "git_url", metavar="URL", help="New repository.")
@click.option("--visibility", type=_visibility, help="Who sees its runs.")
def change(name: str, new_name: str | None, **changes: Any) -> None:
    """Change the name, the repository or the visibility of PROJECT; for its owners."""
    body = {key: value for key, value in {"name": new_name, **changes}.items() if value is not None}
    if not body:
        raise click.UsageError("Give --name, --git or --visibility.")
    with connect() as client:
        client.change_project(client.project(name)["project_id"], body)
    render.say(f"{name} changed")


@project.command()
@_name
def remove(name: str) -> None:
    """Remove PROJECT, whose runs must be over; for its owners. Only admins see its runs from then on."""
    with connect() as client:
        client.delete_project(client.project(name)["project_id"])
    render.say(f"{name} removed")


@project.group()
def member() -> None:
    """Give users a role in a project, and take it away; for its owners."""


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
    """Give USER a role in PROJECT, in place of an earlier one."""
    with connect() as client:
        client.set_member(client.project(name)["project_id"], username, role)
    render.say(f"{username} has the role {role} in {name}")


@member.command("remove")
@_name
@click.argument("username", metavar="USER")
def remove_member(name: str, username: str) -> None:
    """Take USER's role in PROJECT away."""
    with connect() as client:
        found = client.project(name)
        ids = [item["user_id"] for item in found["members"] if item["username"] == username]
        if not ids:
            raise NotFound(f"{username} is no member of {name}")
        client.remove_member(found["project_id"], ids[0])
    render.say(f"{username} is no member of {name} any more")
