"""``reactorcide corndogs``: the embedded Corndogs on its own, for services elsewhere."""

import signal
from typing import Any

import click

from reactorcide import logconfig
from reactorcide.cli import render
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


# Not the settings of the same names: a port and an address that are meant for serve, perhaps for the
# whole network, must not become those of a server without authentication.
@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; whoever reaches it may use it."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5080, show_default=True, help="Port; 0 takes a free one."
)
@settings_options("data_dir", "log_format")
def corndogs(host: str, port: int, **options: Any) -> None:
    """Run only the embedded Corndogs, until SIGTERM or SIGINT."""
    settings = settings_from(options)
    logconfig.configure(settings.log_format, settings.log_level)
    with lock_data_dir(settings.data_dir):
        from reactorcide.corndogs.server import EmbeddedCorndogs

        # Blocked before there are threads, which inherit it: then none of them is ever interrupted.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        server = EmbeddedCorndogs(settings.corndogs_path, host=host, port=port)
        server.start()
        render.say(f"Corndogs listens on {server.address}", err=True)
        signal.sigwait(_SIGNALS)
        server.stop()
