"""``reactorcide runs``: start, list, show, follow and change runs of workflows through the API."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.ids import id_of
from reactorcide.cli.submit import MAX_FAILED_TESTS, upload_directory, variables
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import WAITING
from reactorcide.domain.runs import RunStatus

F = TypeVar("F", bound=Callable[..., Any])


def event_options(branch_help: str) -> Callable[[F], F]:
    """Add the options for the event of a run, except ``--event``, and for values that override the file's."""
    options = (
        click.option("--branch", default="", help=branch_help),
        click.option("--tag", default="", help="Tag of the event."),
        click.option(
            "--var",
            "vars_",
            metavar="NAME=VALUE",
            multiple=True,
            callback=variables,
            help="Value that overrides one of the file's vars; repeatable.",
        ),
        click.option(
            "--changed-file", "changed_files", metavar="FILE", multiple=True, help="For paths; repeatable."
        ),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def start_body(workflow: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that starts a run, without its source; see ``event_options``."""
    return {
        "workflow": workflow,
        "event": {"name": options["event"], "branch": options["branch"], "tag": options["tag"]},
        "vars": options["vars_"],
        "changed_files": list(options["changed_files"]) or None,
    }


def exit_code(run: Mapping[str, Any]) -> int:
    """Return the exit code of a command that has waited for a run."""
    return 0 if run["status"] in (RunStatus.COMPLETED, RunStatus.SKIPPED) else 1


_MAX_FAILED_NODES = 10
"""Maximum number of nodes whose failed tests are printed."""
_id = id_of("run", "reactorcide runs list")
_run_id = click.argument("run_id", metavar="ID", type=_id)
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
_follow = click.option(
    "--follow", is_flag=True, help="Print the progress of the run; exit code 0 only if it completes."
)


@click.group()
def runs() -> None:
    """Start, list, show and change runs of workflows."""


@runs.command()
@click.argument("workflow", required=False)
@click.option("--project", metavar="NAME", help="Project to run a workflow of.")
@click.option("--git", "git_url", metavar="URL", help="Repository to run a workflow of.")
@click.option("--ref", "git_ref", help="Branch, tag or commit of that repository; its HEAD by default.")
@click.option(
    "--source",
    metavar="DIR",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Directory to upload instead of a repository, without .git and without what git ignores.",
)
@click.option("--event", default="manual", show_default=True, help="Event of the run, like push.")
@event_options("Branch of the event; by default the one that --ref names.")
@_follow
@_json
def start(
    workflow: str | None,
    project: str | None,
    git_url: str | None,
    git_ref: str | None,
    source: Path | None,
    follow: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Start a run of WORKFLOW, its id or file, and print the run's id.

    WORKFLOW can be omitted if the repository has only one.
    """
    if [project, git_url, source].count(None) != 2:
        raise click.UsageError("Give a --project, a repository with --git, or a directory with --source.")
    ref = "ref" if project is not None else "git_ref"
    body = start_body(workflow, options) | {"project": project, "git_url": git_url, ref: git_ref}
    with connect() as client:
        if source is not None:
            body |= {
                "source_id": upload_directory(client, source),
                "repository": render.utf8(source.resolve().name) or None,
            }
        _show_started(client, client.start_run(body), follow=follow, as_json=as_json)


@runs.command("list")
@click.option("--project", metavar="NAME", help="Only runs of this project, whoever started them.")
@click.option("--workflow", help="Only runs of this workflow, by its id.")
@click.option("--branch", help="Only runs for this branch.")
@click.option("--event", help="Only runs for such events.")
@click.option("--status", type=click.Choice([status.value for status in RunStatus]), help="Only such runs.")
@click.option("--user", "user_id", metavar="ID", help="Only runs of this user; for admins.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Maximum number of runs."
)
@_json
def list_runs(as_json: bool, **filters: Any) -> None:
    """List the runs that you started, or those of a project, newest first."""
    with connect() as client:
        page = client.runs(filters)
    if as_json:
        render.as_json(page)
        return
    render.table(
        ("ID", "RUN", "WORKFLOW", "STATUS", "EVENT", "BRANCH", "AGE"),
        [
            (
                run["run_id"],
                f"#{run['number']}",
                run["workflow_name"],
                run["status"],
                run["event"]["name"],
                run["event"]["branch"] or "",
                render.age(run["created_at"]),
            )
            for run in page["runs"]
        ],
        flexible="WORKFLOW",
    )
    if page["next_cursor"] is not None:
        render.say(f"{len(page['runs'])} of {page['total']} runs; --limit shows more.", err=True)


@runs.command()
@_run_id
@_follow
@_json
def show(run_id: str, follow: bool, as_json: bool) -> None:
    """Show a run with its nodes."""
    with connect() as client:
        run = client.run(run_id)
        if follow:
            _show_started(client, run, follow=True, as_json=as_json)
        if as_json:
            render.as_json(run)
            return
        _print(run)
        say_failed_tests(client, run, err=False)


@runs.command()
@_run_id
@click.argument("node", required=False)
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the run ends.")
def logs(run_id: str, node: str | None, follow: bool) -> None:
    """Print the logs of a run's jobs, one after the other, or only that of NODE."""
    with connect() as client:
        run = client.run(run_id)
        if node is not None and node not in [item["name"] for item in run["nodes"]]:
            names = ", ".join(item["name"] for item in run["nodes"])
            raise InvalidInput(f"the run has no node {node!r}; it has {names}")
        _print_logs(client, run, node, follow=follow)


@runs.command()
@_run_id
def approve(run_id: str) -> None:
    """Approve the run of a fork's pull request, and all runs that wait for approval at the same commit.

    The approval is for that commit only, and is valid for 14 days.
    """
    with connect() as client:
        client.approve_run(run_id)
    render.say(f"{run_id} approved")


@runs.command()
@_run_id
def cancel(run_id: str) -> None:
    """Cancel a run: its active jobs are cancelled, and waiting ones never start."""
    with connect() as client:
        client.cancel_run(run_id)
    render.say(f"{run_id} cancelled")


@runs.command()
@_run_id
@click.option("--failed", is_flag=True, help="Repeat only the failed jobs, and those that depend on them.")
@_follow
@_json
def rerun(run_id: str, failed: bool, follow: bool, as_json: bool) -> None:
    """Repeat a run that has ended, as its next attempt."""
    with connect() as client:
        run = client.rerun_run(run_id, only="failed" if failed else "all")
        _show_started(client, run, follow=follow, as_json=as_json)


@runs.command()
@_run_id
def delete(run_id: str) -> None:
    """Delete a run that has ended, with its jobs, their logs and artifacts."""
    with connect() as client:
        client.delete_run(run_id)
    render.say(f"{run_id} deleted")


@runs.command()
@_run_id
def pin(run_id: str) -> None:
    """Keep a run and its jobs until somebody deletes it."""
    with connect() as client:
        client.pin_run(run_id, pinned=True)
    render.say(f"{run_id} pinned")


@runs.command()
@_run_id
def unpin(run_id: str) -> None:
    """Let retention remove a run and its jobs again."""
    with connect() as client:
        client.pin_run(run_id, pinned=False)
    render.say(f"{run_id} unpinned")


def _show_started(client: Client, run: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    if follow:
        run = watch(client, run)
    if as_json:
        render.as_json(run)
    elif not follow:
        render.say(run["run_id"])
    if run["status"] == RunStatus.FAILED and not run["nodes"]:
        render.say(run["reason"], err=True)
        sys.exit(1)
    if follow:
        sys.exit(exit_code(run))


def watch(client: Client, run: dict[str, Any], *, err: bool = True) -> dict[str, Any]:
    """Print the progress of a run, on a terminal as a tree, and return the run when it has ended."""
    state = run
    with drawn(err) if (sys.stderr if err else sys.stdout).isatty() else _printed(err) as (show, _):
        for state in client.run_states(run):
            show(state)
    say_failed_tests(client, state, err=err)
    return state


Show = Callable[[dict[str, Any]], None]


@contextmanager
def drawn(err: bool) -> Iterator[tuple[Show, Callable[[str], None]]]:
    """Yield a function that draws a run as a tree on a terminal, and one that prints lines above the tree."""
    # Imported late: most commands do not need it.
    from reactorcide.cli.run_tree import Branch, drawing

    with drawing(err=err) as (draw, say):

        def show(run: dict[str, Any]) -> None:
            branches = [
                Branch(node["job"], node["needs"], node_line(node), render.status_style(node["status"]))
                for node in run["nodes"]
            ]
            draw(_run_line(run), render.status_style(run["status"]), branches)

        yield show, say


@contextmanager
def _printed(err: bool) -> Iterator[tuple[Show, Callable[[str], None]]]:
    statuses: dict[str, str] = {}

    def show(run: dict[str, Any]) -> None:
        for node in run["nodes"]:
            if statuses.get(node["name"]) != node["status"] and node["status"] != "waiting":
                render.say(node_line(node), err=err)
            statuses[node["name"]] = node["status"]
        if RunStatus(run["status"]).is_final:
            render.say(_run_line(run), err=err)

    yield show, partial(render.say, err=err)


def _run_line(run: dict[str, Any]) -> str:
    return f"run #{run['number']} {run['status']}{tests_phrase(run)}"


def say_failed_tests(client: Client, run: dict[str, Any], *, err: bool) -> None:
    """Print the first tests that failed in a run, each with the first line of its message."""
    failed = [node for node in run["nodes"] if node["tests"] is not None and node["tests"]["failed"]]
    for node in failed[:_MAX_FAILED_NODES]:
        for line in render.failed_tests(client.tests(node["job_id"]), MAX_FAILED_TESTS):
            render.say(f"  {node['name']}: {line}", err=err)


def tests_phrase(item: dict[str, Any]) -> str:
    """Return how many tests of a run or node passed and failed, to append to its status."""
    return "" if item["tests"] is None else f", {render.tests_line(item['tests'])}"


def _print(run: dict[str, Any]) -> None:
    rows = {
        "Run": f"#{run['number']} ({run['run_id']}), attempt {run['attempt']}",
        "Project": run["event"]["project"],
        "Workflow": f"{run['workflow_name']} ({run['file']})",
        "Status": run["status"] + tests_phrase(run),
        "Event": " ".join(
            filter(None, (run["event"]["name"], run["event"]["branch"] or run["event"]["tag"]))
        ),
        "Commit": run["sha"],
        "Repository": run["git_url"],
        "Reason": run["reason"],
    }
    for title, value in rows.items():
        if value:
            style = render.status_style(run["status"]) if title == "Status" else ""
            render.line(f"{title:10}  {value}", style=style)
    for warning in run["warnings"]:
        render.say(warning)
    for node in run["nodes"]:
        render.line(f"  {node_line(node)}", style=render.status_style(node["status"]))


def node_line(node: dict[str, Any]) -> str:
    """Return the status of a node on one line."""
    reason = f": {node['reason']}" if node["reason"] else ""
    return f"{node['name']} {node['status']}{tests_phrase(node)}{reason}"


def _print_logs(client: Client, run: dict[str, Any], only: str | None, *, follow: bool) -> None:
    printed: set[str] = set()
    state = run
    for state in client.run_states(run) if follow else (run,):
        for node in state["nodes"]:
            job_id = node["job_id"]
            is_next = only in (None, node["name"]) and job_id is not None and job_id not in printed
            if not is_next or (follow and node["status"] in WAITING):
                continue
            printed.add(job_id)
            if only is None:
                render.line(f"--- {node['name']}", style="bold")
                sys.stdout.flush()
            chunks = client.follow(job_id) if follow else client.log(job_id, {})
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
    if not printed:
        for node in state["nodes"]:
            if only in (None, node["name"]):
                reason = f": {node['reason']}" if node["reason"] else ""
                render.say(f"{node['name']} has no job; it is {node['status']}{reason}", err=True)
