"""``reactorcide submit``: submit a job from options, a file or both, and follow it to its end."""

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO, TypeVar

import click

from reactorcide.cli import render
from reactorcide.cli.client import Client
from reactorcide.cli.connect import connect
from reactorcide.cli.session import ServiceError
from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.secrets import guess

F = TypeVar("F", bound=Callable[..., Any])

_EXIT_TIMED_OUT = 124
_EXIT_CANCELLED = 130
MAX_FAILED_TESTS = 20
"""Failed tests that are named; `jobs tests` names the others."""

_OPTIONS = tuple((item, item.about.option) for item in JOB_FIELDS if item.about.option is not None)
"""The fields with an option of their own, and that option."""
_SOURCE_FIELDS = tuple(item.json_name for item in JOB_FIELDS if item.about.source_type is not None)


def _field_options(command: F) -> F:
    """Give a command an option for each field that has one."""
    for item, option in reversed(_OPTIONS):
        names, kind = option.name, item.type
        if kind is bool:
            # If neither is given, the service decides.
            names = f"{option.name}/--no-{option.name.removeprefix('--')}"
        elif item.about.request_type is not None:
            kind = str
        command = click.option(names, type=kind, default=None, metavar=option.metavar, help=option.help)(
            command
        )
    return command


class _CommandAfterDashes(click.Command):
    """A command whose arguments after ``--`` are the job's command, also without a name before them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments before ``--``; click itself drops its position."""
        split = args.index("--") if "--" in args else len(args)
        after = args[split + 1 :]
        rest = super().parse_args(ctx, args[:split])
        ctx.params["command"] += tuple(after)
        return rest


def variables(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """Return the values of an option that is given as NAME=VALUE, any number of times."""
    named = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not of the form NAME=value")
        named[name] = value
    return named


def variables_of_shell(
    context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, str]:
    """Read a variable without a value from the environment: other users can see command-line arguments."""
    for name in pairs:
        if "=" not in name and name not in os.environ:
            raise click.BadParameter(f"there is no variable {name!r} in the environment")
    return variables(
        context, parameter, tuple(text if "=" in text else f"{text}={os.environ[text]}" for text in pairs)
    )


@click.command(cls=_CommandAfterDashes)
@click.argument("name", required=False)
@click.argument("command", nargs=-1)
@click.option(
    "-f", "--file", type=click.File(encoding="utf-8"), help="Job as JSON; - reads stdin. Options override it."
)
@click.option(
    "--source",
    metavar="DIR",
    # No check that it exists: the service may be on another host.
    type=click.Path(path_type=Path, resolve_path=True),
    help="Directory to copy into the container; none by default. A service on this host reads it in place, "
    "if it is below a source root; otherwise it is uploaded, without .git and without what git ignores.",
)
@click.option("--upload", is_flag=True, help="Always upload the directory.")
@click.option(
    "--source-job",
    metavar="ID",
    help="Job whose artifacts to copy into the container; instead of --source.",
)
@click.option("--git", metavar="URL", help="Repository to clone; instead of --source.")
@_field_options
@click.option(
    "--env", metavar="NAME=VALUE", multiple=True, callback=variables, help="Variable of the job; repeatable."
)
@click.option(
    "--secret-env",
    metavar="NAME[=VALUE]",
    multiple=True,
    callback=variables_of_shell,
    help="Variable whose value is never shown; repeatable. Without a value it is read from the environment.",
)
@click.option(
    "--artifact",
    metavar="GLOB",
    multiple=True,
    help="Globs of the artifacts to keep; repeatable. All by default.",
)
@click.option("--follow", is_flag=True, help="Print the log live, and exit with the job's exit code.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the job as JSON; with --follow the log goes to stderr."
)
def submit(
    name: str | None,
    command: tuple[str, ...],
    file: TextIO | None,
    follow: bool,
    as_json: bool,
    upload: bool,
    **options: Any,
) -> None:
    """Submit a job: NAME -- COMMAND… or -f FILE.

    One COMMAND argument is a script for /bin/sh; several are one command line. Prints the job's id. With
    --follow it prints the log instead, and exits with the job's exit code: 124 if the job timed out, 130 if
    it was cancelled, 1 if it failed without an exit code.
    """
    definition = {} if file is None else _read(file)
    if name is not None:
        definition["name"] = name
    if command:
        definition["job_command"] = command[0] if len(command) == 1 else shlex.join(command)
    _override(definition, options)
    if file is None and not (name and command):
        raise click.UsageError("Give a job to run: NAME -- COMMAND…, or -f FILE.")
    source: Path | None = options["source"]
    if upload and source is None:
        raise click.UsageError("--upload needs a directory: give it with --source.")
    with connect() as client:
        if source is None:
            job = client.submit(definition)
        else:
            job = _submit_with(client, definition, source, upload=upload)
        show_submitted(client, job, follow=follow, as_json=as_json)


def _submit_with(client: Client, definition: dict[str, Any], source: Path, *, upload: bool) -> dict[str, Any]:
    """Submit a job with a directory as its source: by its path if the service can read it, else uploaded."""
    path = os.fspath(source)
    # JSON cannot carry a path that is not UTF-8.
    if client.is_local and not upload and os.fsencode(path) == path.encode(errors="replace"):
        try:
            return client.submit(definition | {"source_path": path})
        except ServiceError as exc:
            # Through a tunnel the service looks local; a directory that only it has cannot be uploaded.
            if "source_path" not in exc.fields or not _may_be_directory(source):
                raise
    return client.submit(definition | {"source_id": upload_directory(client, source)})


def _may_be_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return True  # packing reports the error


def upload_directory(client: Client, source: Path) -> str:
    """Upload a directory, unless the service has it already, and return the source id."""
    # Imported here: most submissions upload nothing.
    from reactorcide.cli.pack import pack

    with tempfile.TemporaryFile() as packed:
        with render.spinner(f"packing {render.printable(os.fspath(source))}"):
            source_id = pack(source, packed)
        if not client.has_source(source_id):
            size_bytes = packed.tell()
            packed.seek(0)
            with render.progress("uploading", size_bytes) as advance:
                source_id = client.upload(packed, size_bytes, advance)["source_id"]
    return source_id


def show_submitted(client: Client, job: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    """Print a new job, or follow it to its end and exit with its exit code."""
    if follow:
        try:
            job = watch(client, job, sys.stderr.buffer if as_json else sys.stdout.buffer)
        except KeyboardInterrupt:
            end_interrupted(job["job_id"])
    if as_json:
        render.as_json(job)
    elif not follow:
        render.say(job["job_id"])
    if follow:
        sys.exit(exit_code(job))


def watch(client: Client, job: dict[str, Any], out: BinaryIO) -> dict[str, Any]:
    """Print a job's log as it grows, with status changes on stderr; return the finished job."""
    job_id = job["job_id"]
    render.line(f"job {job_id} is {job['status']}", style="dim", err=True)
    with render.spinner(f"waiting for {render.printable(job['name'])} to start"):
        client.until_started(job_id)
    copy_log(client, job_id, out)
    job = client.until_final(job_id)
    render.line(f"job {job_id} {render.outcome(job)}", style=render.status_style(job["status"]), err=True)
    if lines := tests_lines(client, job):
        render.say("tests: " + "\n  ".join(lines), err=True)
    return job


def tests_lines(client: Client, job: dict[str, Any]) -> list[str]:
    """Return how many tests of a job passed and failed, then a line for each of the first that failed."""
    if job["artifacts_object_key"] is None:
        return []
    tests = client.tests(job["job_id"])
    counts = render.tests_line(tests)
    return [counts, *render.failed_tests(tests, MAX_FAILED_TESTS)] if counts else []


def copy_log(client: Client, job_id: str, out: BinaryIO, **which: Any) -> None:
    """Write a log to ``out`` as it grows, without delay; see ``Client.follow``."""
    for chunk in client.follow(job_id, **which):
        out.write(chunk)
        out.flush()


def end_interrupted(job_id: str) -> NoReturn:
    """After Ctrl-C, print that the job continues, and exit."""
    render.say(
        f"\nThe job continues. Follow it again with 'reactorcide jobs logs -f {job_id}', "
        f"or stop it with 'reactorcide jobs cancel {job_id}'.",
        err=True,
    )
    sys.exit(130)


def exit_code(job: dict[str, Any]) -> int:
    """Return the exit code of ``submit --follow`` for a finished job."""
    if job["status"] == JobStatus.COMPLETED:
        return 0
    if job["status"] == JobStatus.CANCELLED:
        return _EXIT_CANCELLED
    if str(job["error"]).startswith("timed out after"):
        return _EXIT_TIMED_OUT
    return job["exit_code"] or 1


def _read(file: TextIO) -> dict[str, Any]:
    try:
        definition = json.load(file)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{file.name} is not valid JSON: {exc}") from exc
    if not isinstance(definition, dict):
        raise InvalidInput(f"{file.name} must contain one JSON object, the job")
    return definition


def _override(definition: dict[str, Any], options: dict[str, Any]) -> None:
    """Put the options into a definition; a source among them replaces that of the definition."""
    source, git, source_job = options["source"], options["git"], options["source_job"]
    if sum(map(bool, (source, git, source_job))) > 1:
        raise click.UsageError("Give one of --source, --source-job and --git.")
    if source or git or source_job:
        for field in _SOURCE_FIELDS:
            definition.pop(field, None)
        definition["source_type"] = "git" if git else "copy"
    if git:
        definition["git_url"] = git
    if source_job:
        definition["source_job_id"] = source_job
    definition.setdefault("source_type", "git" if definition.get("git_url") else "copy")
    for item, option in _OPTIONS:
        value = options[option.parameter]
        if value is None:
            continue
        if item.about.source_type == "git" and definition["source_type"] != "git":
            raise click.UsageError(f"{option.name} needs a repository: give one with --git.")
        definition[item.json_name] = value
    if options["artifact"]:
        definition["artifacts"] = list(options["artifact"])
    if options["env"] or options["secret_env"]:
        variables = definition.get("job_env_vars") or {}
        if not isinstance(variables, dict):
            raise InvalidInput("job_env_vars must be a JSON object of variable names and values")
        definition["job_env_vars"] = variables = variables | options["env"] | options["secret_env"]
        if options["secret_env"]:
            # A list replaces the service's own guess, so start from that guess.
            listed = definition.get("secret_env_vars")
            if not isinstance(listed, list):
                listed = list(guess(variables))
            definition["secret_env_vars"] = [*listed, *options["secret_env"]]
