"""``reactorcide migrate-data``: a data directory taken over to PostgreSQL and a bucket."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.lib.sizes import format_size


@click.command("migrate-data")
@settings_options("data_dir", "objects")
def migrate_data(**options: Any) -> None:
    """Copy a data directory to a bucket, while no service works on it.

    Repeat it if it was interrupted. The data directory is not changed.
    """
    from reactorcide import migrate_data as migration
    from reactorcide.app.parts import object_store

    settings = settings_from(options)
    if settings.objects is None:
        raise click.UsageError("name where to copy it with --objects")
    migration.check(settings)
    objects = (settings.objects, object_store(settings, settings.objects, os.environ))
    with ExitStack() as opened:
        opened.enter_context(lock_data_dir(settings.data_dir))
        progress = opened.enter_context(_bar())
        result = migration.migrate(settings, None, objects, progress)
    render.say(
        f"{settings.data_dir} is copied and compared: {result.objects} objects "
        f"({format_size(result.object_bytes)})"
    )
    render.say(f"start the service with: reactorcide serve --objects {settings.objects}")


@contextmanager
def _bar() -> Iterator[Any]:
    """Show on a terminal what is done."""
    is_shown = sys.stderr.isatty()

    def progress(label: str, done: int, total: int) -> None:
        if is_shown and (done == total or done % 100 == 0):
            click.echo(f"\r{done} of {total} {label} ", nl=done == total, err=True)

    yield progress
