"""``reactorcide jobs``: list, show, follow and change jobs through the API."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.download import download
from reactorcide.cli.ids import id_of
from reactorcide.cli.options import Number
from reactorcide.cli.session import ServiceError
from reactorcide.cli.submit import copy_log, end_interrupted, show_submitted, tests_lines
from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.jobs import WAITING, JobStatus
from reactorcide.lib.sizes import format_size

_DEFINED = {item.json_name: item.about.title for item in JOB_FIELDS if item.about.title is not None}
# The fields and titles of ``jobs show``; fields without a value are left out.
_FIELD_TITLES = {
    **{name: _DEFINED.pop(name) for name in ("name", "description")},
    "status": "Status",
    "error": "Error",
    "exit_code": "Exit code",
    "attempt": "Attempt",
    "log_truncated": "Log truncated",
    **_DEFINED,
    "created_at": "Created",
    "queued_at": "Queued",
    "started_at": "Started",
    "completed_at": "Completed",
    "worker_id": "Worker",
    "rerun_of": "Rerun of",
    "pinned": "Pinned",
    "user_id": "User",
}


_id = id_of("job", "reactorcide jobs list")
_job_id = click.argument("job_id", metavar="ID", type=_id)
_job_ids = click.argument("job_ids", metavar="ID…", type=_id, nargs=-1, required=True)
_json = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")


@click.group()
def jobs() -> None:
    """List, show and change jobs."""


@jobs.command("list")
@click.option(
    "--status",
    type=click.Choice([status.value for status in JobStatus]),
    multiple=True,
    help="Only jobs with this status; repeatable.",
)
@click.option("--queue", "queue_name", help="Only jobs of this queue.")
@click.option("--name", help="Only jobs whose name begins with this text.")
@click.option("--user", "user_id", metavar="ID", help="Only jobs of this user; for admins.")
@click.option("--pinned", is_flag=True, default=None, help="Only pinned jobs.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Maximum number of jobs."
)
@_json
def list_jobs(as_json: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    with connect() as client:
        page = client.jobs(filters)
    cut = sum(job.get("truncated", False) for job in page["jobs"])
    if as_json:
        render.as_json(page)
        if cut:
            render.say(
                f"Long texts of {cut} jobs are cut; `reactorcide jobs show ID` shows them whole.", err=True
            )
        return
    render.table(
        ("ID", "NAME", "STATUS", "EXIT", "QUEUE", "AGE", "DURATION"),
        [
            (
                job["job_id"],
                job["name"],
                job["status"],
                "" if job["exit_code"] is None else str(job["exit_code"]),
                job["queue_name"],
                render.age(job["created_at"]),
                render.duration(job),
            )
            for job in page["jobs"]
        ],
        flexible="NAME",
    )
    if len(page["jobs"]) < page["total"]:
        render.say(f"{len(page['jobs'])} of {page['total']} jobs; --limit shows more", err=True)


@jobs.command()
@_job_id
@click.option(
    "--wait",
    type=Number(0, 60),
    default=0,
    metavar="SECONDS",
    help="Wait up to this many seconds for the status to change.",
)
@_json
def show(job_id: str, wait: float, as_json: bool) -> None:
    """Show a job."""
    with connect() as client:
        job = client.job(job_id, wait_s=wait)
        tests = [] if as_json else tests_lines(client, job)
        waits_for = client.why(job_id) if not as_json and job["status"] in WAITING else None
    if as_json:
        render.as_json(job)
        return
    width = max(map(len, _FIELD_TITLES.values()))
    rows = {"Job": job["job_id"]} | {title: job[field] for field, title in _FIELD_TITLES.items()}
    if waits_for is not None:
        rows["Waits"] = waits_for
    if job["job_env_vars"]:
        rows["Variables"] = "\n".join(f"{name}={value}" for name, value in job["job_env_vars"].items())
    if job.get("services"):
        rows["Services"] = "\n".join(f"{name} ({item['image']})" for name, item in job["services"].items())
    if tests:
        rows["Tests"] = "\n".join(tests)
    for title, value in rows.items():
        if value in (None, "") or value is False:
            continue
        value = "yes" if value is True else value
        first, *more = map(render.printable, str(value).split("\n"))
        render.line(
            f"{title:{width}}  {first}", style=render.status_style(first) if title == "Status" else ""
        )
        for text in more:
            render.say(f"{'':{width}}  {text}")


@jobs.command()
@_job_id
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the job ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", help="Print only the last LINES lines.")
@click.option("--from-line", type=click.IntRange(min=1), metavar="LINE", help="Start at this line, from 1.")
@click.option("--lines", type=click.IntRange(min=0), help="Maximum number of lines.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Print only this stream.")
@click.option("--timestamps", is_flag=True, help="Print the time before each line.")
@click.option(
    "--service", metavar="NAME", help="Print the log of this service; available after the job has ended."
)
@click.option(
    "--attempt", type=click.IntRange(min=1), help="Attempt whose log to print; the last by default."
)
def logs(job_id: str, follow: bool, from_line: int | None, lines: int | None, **part: Any) -> None:
    """Print the log of a job, or follow it."""
    if (from_line is not None or lines is not None) and (follow or part["tail"] is not None):
        raise click.UsageError("--from-line and --lines cannot be combined with --follow or --tail.")
    service = part.pop("service")
    if service is not None and (
        follow or from_line or lines or any(part[name] for name in ("tail", "stream", "timestamps"))
    ):
        raise click.UsageError("--service can be combined with --attempt only.")
    with connect() as client:
        if not follow:
            part |= {
                "service": service,
                "from_line": from_line,
                "lines": lines,
                "timestamps": part["timestamps"] or None,
            }
            for chunk in client.log(job_id, part):
                sys.stdout.buffer.write(chunk)
            return
        try:
            copy_log(client, job_id, sys.stdout.buffer, **part)
        except KeyboardInterrupt:
            end_interrupted(job_id)


@jobs.command()
@_job_ids
def cancel(job_ids: tuple[str, ...]) -> None:
    """Cancel jobs."""
    _each(job_ids, "cancelled", lambda client, job_id: client.cancel(job_id))


@jobs.command()
@_job_ids
def delete(job_ids: tuple[str, ...]) -> None:
    """Delete jobs with their logs and artifacts. Active jobs are cancelled first."""
    _each(job_ids, "deleted", lambda client, job_id: client.delete(job_id))


@jobs.command()
@_job_ids
def pin(job_ids: tuple[str, ...]) -> None:
    """Keep jobs until somebody deletes them."""
    _each(job_ids, "pinned", lambda client, job_id: client.pin(job_id, pinned=True))


@jobs.command()
@_job_ids
def unpin(job_ids: tuple[str, ...]) -> None:
    """Let retention remove jobs again."""
    _each(job_ids, "unpinned", lambda client, job_id: client.pin(job_id, pinned=False))


@jobs.command()
@_job_id
@click.option("--follow", is_flag=True, help="Print the log live, and exit with the job's exit code.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the job as JSON; with --follow the log goes to stderr."
)
def rerun(job_id: str, follow: bool, as_json: bool) -> None:
    """Submit the definition of this job as a new job, and print its id."""
    with connect() as client:
        show_submitted(client, client.rerun(job_id), follow=follow, as_json=as_json)


@jobs.command()
@_job_id
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Download all artifacts to this directory.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files that differ.")
@_json
def artifacts(job_id: str, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """List the artifacts of a job, or download them.

    Identical files are not downloaded again. If an existing file differs, nothing is downloaded without
    --overwrite.
    """
    with connect() as client:
        listing = client.artifacts(job_id)
        if output is not None:
            download(client, job_id, listing["artifacts"], output, overwrite=overwrite)
    if as_json:
        render.as_json(listing)
        return
    render.table(
        ("SIZE", "SHA256", "PATH"),
        [(format_size(item["size"]), item["sha256"][:12], item["path"]) for item in listing["artifacts"]],
    )
    if listing["artifacts_truncated"]:
        render.say("Some artifacts were not stored; the end of the job's log says which.", err=True)


@jobs.command()
@_job_id
@_json
def tests(job_id: str, as_json: bool) -> None:
    """Show the test results of a job, from the JUnit XML files among its artifacts."""
    with connect() as client:
        results = client.tests(job_id)
    if as_json:
        render.as_json(results)
        return
    for file in results["files"]:
        if file["problem"] is not None:
            render.say(f"{file['path']} does not count: {file['problem']}", err=True)
    for line in render.failed_tests(results, limit=results["failed"]):
        render.say(line)
    counts = render.tests_line(results)
    render.line(counts or "no tests", style="red" if results["failed"] else "green" if counts else "")


@jobs.command()
@_job_id
def summary(job_id: str) -> None:
    """Print the summary of a job, the artifact summary.md."""
    with connect() as client:
        for chunk in client.summary(job_id):
            sys.stdout.buffer.write(chunk)


def _each(job_ids: tuple[str, ...], done: str, act: Callable[[Client, str], object]) -> None:
    """Act on each job, also after a failure; exit with 1 if any failed."""
    failures = 0
    with connect() as client:
        for job_id in job_ids:
            try:
                act(client, job_id)
            except ServiceError as exc:
                failures += 1
                render.say(f"reactorcide: {job_id}: {exc}", err=True)
            else:
                render.say(f"{job_id} {done}")
    if failures:
        sys.exit(1)
