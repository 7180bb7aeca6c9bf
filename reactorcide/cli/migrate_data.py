"""``reactorcide migrate-data``: a data directory taken over to PostgreSQL and a bucket."""

import os
import sys
from contextlib import ExitStack, closing
from typing import Any

import click

from reactorcide.cli import render
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.lib.sizes import format_size


@click.command("migrate-data")
@settings_options("data_dir", "database", "objects")
def migrate_data(**options: Any) -> None:
    """Copy a data directory to PostgreSQL, a bucket or both, while no service works on it.

    Repeat it if it was interrupted. The data directory is not changed.
    """
    from reactorcide import migrate_data as migration
    from reactorcide.app.parts import database, object_store

    settings = settings_from(options)
    if settings.database is None and settings.objects is None:
        raise click.UsageError("name where to copy it with --database, with --objects or with both")
    migration.check(settings)
    objects = settings.objects and (settings.objects, object_store(settings, settings.objects, os.environ))
    with ExitStack() as opened:
        opened.enter_context(lock_data_dir(settings.data_dir))
        target = None
        if settings.database is not None:
            target = opened.enter_context(closing(database(settings)))
        result = migration.migrate(settings, target, objects or None, _show)
    if objects:
        size = format_size(result.object_bytes)
        render.say(
            f"copied and compared: {result.objects} objects ({size})"
            if result.objects
            else "the objects are in the bucket already"
        )
    if target is not None and result.rows is None:
        render.say("the rows are in the database already")
    elif target is not None:
        render.say(f"copied and compared: {result.rows} rows, and {result.logs} files of logs")
    named = [f"--{name}" for name in ("database", "objects") if getattr(settings, name) is not None]
    render.say(f"start the service with the same {' and '.join(named)}; its key stays in {settings.data_dir}")


def _show(label: str, done: int, total: int) -> None:
    """Show on a terminal what is done."""
    if sys.stderr.isatty() and (done == total or done % 100 == 0):
        click.echo(f"\r{done} of {total} {label} ", nl=done == total, err=True)
