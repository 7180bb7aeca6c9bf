"""``reactorcide open``: sign in to the web page with the rights of this command line."""

import os
import sys

import click

from reactorcide.cli.connect import connect


@click.command("open")
def open_page() -> None:
    """Print a link that signs you in to the web page, once and within ten minutes, and open it.

    A browser is opened only from a terminal on a desktop.

    Example: reactorcide open
    """
    with connect() as client:
        url = str(client.create_link()["url"])
    click.echo(url)
    has_desktop = sys.platform == "darwin" or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.stdout.isatty() and has_desktop:
        click.launch(url)
