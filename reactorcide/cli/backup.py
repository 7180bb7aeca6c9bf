"""``reactorcide backup`` and ``reactorcide restore``: a data directory in one file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.lib.sizes import format_size

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@_file
@settings_options("data_dir", "database")
def backup(file: Path, **options: Any) -> None:
    """Write the data directory to FILE (a .tar.gz). The service may be running."""
    from reactorcide import backup

    settings = settings_from(options)
    with _bar("Backing up") as progress:
        size_bytes = backup.backup(settings, file, progress)
    render.say(
        f"{file}: {format_size(size_bytes)}; keep it private: it contains the hashes of tokens and the "
        "key of secrets"
    )
    bucket = backup.bucket(settings.database_path)
    if bucket is not None:
        render.say(
            f"finished logs, artifacts and sources are in {bucket} and not in this file: back that up, too"
        )


@click.command()
@_file
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the workflow runs that had not ended, instead of cancelling them.",
)
@settings_options("data_dir", "database")
def restore(file: Path, resume: bool, **options: Any) -> None:
    """Restore the backup FILE to an empty data directory."""
    from reactorcide import backup

    settings = settings_from(options)
    with _bar("Restoring") as progress:
        cancelled = backup.restore(settings, file, progress, resume=resume)
    if cancelled:
        render.say(f"{cancelled} unfinished runs are cancelled; 'reactorcide runs rerun' repeats one")
    bucket = backup.bucket(settings.database_path)
    if bucket is not None:
        render.say(
            f"its logs, artifacts and sources are in {bucket}, which serve --objects {bucket} uses and "
            "clears up: stop the other service for good first"
        )
    render.say(
        f"restored to {settings.data_dir}; create a token for the command line with: reactorcide token create"
    )


@contextmanager
def _bar(label: str) -> Iterator[Any]:
    with click.progressbar(length=1000, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done_bytes: int, total_bytes: int) -> None:
            bar.update(done_bytes * 1000 // max(total_bytes, 1) - bar.pos)

        yield progress
