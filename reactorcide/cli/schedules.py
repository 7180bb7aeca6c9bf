"""``reactorcide project schedules``: when runs of a project start by themselves."""

from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.domain.errors import NotFound
from reactorcide.domain.schedules import WhenRunning

Json = dict[str, Any]

_project = click.argument("project", metavar="PROJECT")
_name = click.argument("name", metavar="NAME")
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
_FIELDS = (
    click.option("--timezone", metavar="ZONE", help="Time zone, like Europe/Berlin.  [default: UTC]"),
    click.option("--branch", help="Branch; empty: the repository's default branch.  [default: empty]"),
    click.option(
        "--workflow",
        metavar="ID",
        help="Workflow; empty: every one that names the event schedule.  [default: empty]",
    ),
    click.option(
        "--var",
        "vars",
        metavar="K=V",
        multiple=True,
        help="Value that overrides one of the file's vars; repeatable.",
    ),
    click.option("--enabled/--disabled", default=None, help="Whether it starts runs.  [default: enabled]"),
    click.option(
        "--when-running",
        type=click.Choice([item.value for item in WhenRunning]),
        help="At a due time while its previous run is unfinished: skip, or queue one run. [default: skip]",
    ),
)


def _fields(command: Any) -> Any:
    for option in reversed(_FIELDS):
        command = option(command)
    return command


@click.group()
def schedules() -> None:
    """Add, list, show, change and remove the schedules of a project."""


@schedules.command("list")
@_project
@_json
def list_schedules(project: str, as_json: bool) -> None:
    """List the schedules of PROJECT, with the next time of each."""
    with connect() as client:
        listed = client.schedules(client.project(project)["project_id"])
    if as_json:
        render.as_json({"schedules": listed})
        return
    render.table(
        ("NAME", "CRON", "TIMEZONE", "BRANCH", "WORKFLOW", "NEXT"),
        [
            (
                item["name"],
                item["cron"],
                item["timezone"],
                item["branch"] or "default",
                item["workflow"] or "all",
                _next(item),
            )
            for item in listed
        ],
        flexible="WORKFLOW",
    )


@schedules.command()
@_project
@_name
@_json
def show(project: str, name: str, as_json: bool) -> None:
    """Show the schedule NAME of PROJECT: its next five due times, and the results of the last ones."""
    with connect() as client:
        _show(_schedule(client, project, name), as_json)


@schedules.command()
@_project
@_name
@click.argument("cron", metavar="CRON")
@_fields
@_json
def add(project: str, name: str, cron: str, as_json: bool, **fields: Any) -> None:
    """Add the schedule NAME to PROJECT, for its owners; CRON is like '30 2 * * 1-5', or @daily."""
    with connect() as client:
        project_id = client.project(project)["project_id"]
        _show(client.create_schedule(project_id, {"name": name, "cron": cron} | _body(fields)), as_json)


@schedules.command()
@_project
@_name
@click.option("--name", "new_name", metavar="NAME", help="New name.")
@click.option("--cron", help="Like '30 2 * * 1-5', or @daily.")
@_fields
@_json
def change(project: str, name: str, new_name: str | None, as_json: bool, **fields: Any) -> None:
    """Change the schedule NAME of PROJECT, for its owners. Its next due time is computed from now."""
    body = _body({"name": new_name, **fields})
    if not body:
        raise click.UsageError("Nothing to change: give an option, like --cron, --branch or --disabled.")
    with connect() as client:
        item = _schedule(client, project, name)
        _show(client.change_schedule(item["project_id"], item["schedule_id"], body), as_json)


@schedules.command()
@_project
@_name
def remove(project: str, name: str) -> None:
    """Remove the schedule NAME of PROJECT, for its owners. Its runs stay."""
    with connect() as client:
        item = _schedule(client, project, name)
        client.delete_schedule(item["project_id"], item["schedule_id"])
    render.say(f"{name} removed")


@schedules.command()
@_project
@_name
@_json
def run(project: str, name: str, as_json: bool) -> None:
    """Start the runs of the schedule NAME of PROJECT now."""
    with connect() as client:
        item = _schedule(client, project, name)
        _show(client.run_schedule(item["project_id"], item["schedule_id"]), as_json)


def _next(item: Json) -> str:
    if not item["enabled"]:
        return "disabled"
    return f"now: {item['waiting']}" if item["waiting"] else next(iter(item["next_due_at"]), "")


def _schedule(client: Client, project: str, name: str) -> Json:
    project_id = client.project(project)["project_id"]
    for item in client.schedules(project_id):
        if name in (item["name"], item["schedule_id"]):
            return client.schedule(project_id, item["schedule_id"])
    raise NotFound(f"{project} has no schedule {name!r}; 'reactorcide project schedules list' shows them")


def _body(fields: dict[str, Any]) -> Json:
    body = {name: value for name, value in fields.items() if value is not None and name != "vars"}
    if fields["vars"]:
        pairs = [pair.partition("=") for pair in fields["vars"]]
        if not all(name and equals for name, equals, _ in pairs):
            raise click.UsageError("Give --var as NAME=VALUE.")
        body["vars"] = {name: value for name, _, value in pairs}
    elif body.get("workflow") == "":
        # The vars belong to the named workflow.
        body["vars"] = {}
    return body


def _show(view: Json, as_json: bool) -> None:
    if as_json:
        render.as_json(view)
        return
    rows = {
        "Schedule": f"{view['name']} ({view['schedule_id']})",
        "Cron": f"{view['cron']} in {view['timezone']}",
        "Branch": view["branch"] or "the default branch",
        "Workflow": view["workflow"] or "all that name the event schedule",
        "Vars": ", ".join(f"{name}={value}" for name, value in view["vars"].items()) or "none",
        "While one runs": view["when_running"],
        "Next": ", ".join(view["next_due_at"]) or "never: it is disabled",
    }
    if view["waiting"]:
        rows["Waiting"] = view["waiting"]
    for title, value in rows.items():
        render.line(f"{title:14}  {value}")
    if view["occurrences"]:
        render.table(
            ("DUE", "OUTCOME", "RUNS"),
            [(item["due_at"], item["outcome"], ", ".join(item["run_ids"])) for item in view["occurrences"]],
        )
