"""The command group. It imports each command only when it is used."""

import importlib
import io
import os
import sys
from typing import Any, NoReturn

import click

from reactorcide import __version__
from reactorcide.domain.errors import ReactorcideError

_EXIT_INTERRUPTED = 130

_COMMANDS = {
    "serve": ("reactorcide.cli.serve", "serve", "Run the service: API, worker and queue in one process."),
    "worker": ("reactorcide.cli.worker", "worker", "Run jobs of a service on another machine."),
    "workers": ("reactorcide.cli.workers", "workers", "Add, list, drain and forget workers."),
    "corndogs": ("reactorcide.cli.corndogs", "corndogs", "Run only the embedded Corndogs."),
    "open": (
        "reactorcide.cli.open",
        "open_page",
        "Print a link that signs you in to the web page, and open it.",
    ),
    "submit": ("reactorcide.cli.submit", "submit", "Submit a job."),
    "check": ("reactorcide.cli.check", "check", "Check the workflow files of a checkout."),
    "init": ("reactorcide.cli.init", "init", "Write a first workflow file."),
    "run": ("reactorcide.cli.run", "run", "Run a workflow of this work tree here, without a server."),
    "run-local": ("reactorcide.cli.run", "run", "The same as run."),
    "runs": ("reactorcide.cli.runs", "runs", "Start, list, show and change runs of workflows."),
    "project": ("reactorcide.cli.project", "project", "Add, list, show, change and remove projects."),
    "caches": ("reactorcide.cli.caches", "caches", "List and delete caches of runs."),
    "webhook": ("reactorcide.cli.webhook", "webhook", "Send messages about runs and jobs to URLs."),
    "secret": ("reactorcide.cli.secret", "secret", "Set, list and delete secrets of projects."),
    "jobs": ("reactorcide.cli.jobs", "jobs", "List, show and change jobs."),
    "token": ("reactorcide.cli.admin", "token", "Create, list and revoke tokens, directly in the database."),
    "user": (
        "reactorcide.cli.admin",
        "user",
        "Create, invite, list and remove users, directly in the database.",
    ),
    "gc": (
        "reactorcide.cli.gc",
        "gc",
        "Remove the jobs that retention does not keep, directly in the database.",
    ),
    "backup": (
        "reactorcide.cli.backup",
        "backup",
        "Write the data directory to a file, while a service runs.",
    ),
    "restore": ("reactorcide.cli.backup", "restore", "Restore a backup to an empty data directory."),
    "migrate-data": (
        "reactorcide.cli.migrate_data",
        "migrate_data",
        "Copy a data directory to PostgreSQL and a bucket, while no service works on it.",
    ),
    "doctor": ("reactorcide.cli.doctor", "doctor", "Check what the service needs, and advise what to do."),
    "demo": ("reactorcide.cli.demo", "demo", "Run two sample jobs and a workflow on a temporary service."),
}

_OF_A_SERVICE = {"caches", "jobs", "open", "project", "runs", "secret", "submit", "webhook", "workers"}
"""Commands that show answers of a service, which may be another program."""
_NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class _LazyGroup(click.Group):
    """A group whose help lists all commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; print a ``ReactorcideError`` as one sentence and exit with 1."""
        try:
            return super().invoke(ctx)
        except ReactorcideError as exc:
            _refuse(ctx, str(exc))
        except click.UsageError as exc:
            raise click.UsageError(_printable(exc.format_message()), exc.ctx) from exc
        except _NOT_UNDERSTOOD as exc:
            if ctx.invoked_subcommand not in _OF_A_SERVICE:
                raise
            _refuse(
                ctx,
                f"the service's answer cannot be understood ({type(exc).__name__}: {exc}); check "
                "REACTORCIDE_API_URL, and that the service is of the same version as this command",
            )
        except FileNotFoundError:
            if _has_current_directory():
                raise
            _refuse(ctx, "the current directory has been deleted; change to another one, as with: cd ~")
        except KeyboardInterrupt:
            ctx.exit(_EXIT_INTERRUPTED)


def _has_current_directory() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _printable(text: str) -> str:
    # Imported here: most commands end without an error.
    from reactorcide.cli.render import printable

    # It may quote a path, or an answer of another program in place of the service.
    return printable(text)


def _refuse(ctx: click.Context, sentence: str) -> NoReturn:
    click.echo(f"reactorcide: {_printable(sentence)}", err=True)
    ctx.exit(1)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reactorcide")
def cli(**_: Any) -> None:
    """Run CI jobs: each is a command in a container on a source, with a stored log and artifacts."""
    for stream in (sys.stdout, sys.stderr):
        # Replace characters that the terminal cannot show, instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
