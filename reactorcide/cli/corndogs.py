"""``reactorcide corndogs``: run the embedded Corndogs alone, as a queue for other services."""

import signal
from typing import Any

import click

from reactorcide import logconfig
from reactorcide.cli import render
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


# Not the settings --host and --port of serve: those may be public, but this server has no authentication.
@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. There is no authentication: every client has full access.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--csil-port",
    type=click.IntRange(0, 65535),
    help="Port to listen on for clients of Corndogs 0.7, which speak CSIL and not gRPC; 0 takes a free one. "
    "By default there is none. Needs the package cbor2, which reactorcide[scale] installs.",
)
@settings_options("data_dir", "log_format")
def corndogs(host: str, port: int, csil_port: int | None, **options: Any) -> None:
    """Run only the embedded Corndogs, until SIGTERM or SIGINT.

    It speaks gRPC, as Corndogs up to 0.3 does, and on --csil-port the protocol of 0.7.
    """
    settings = settings_from(options)
    logconfig.configure(settings.log_format, settings.log_level)
    with lock_data_dir(settings.data_dir):
        from reactorcide.corndogs.server import EmbeddedCorndogs

        # Block the signals before any thread starts: threads inherit the mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        server = EmbeddedCorndogs(settings.corndogs_path, host=host, port=port, csil_port=csil_port)
        server.start()
        render.say(f"Corndogs listens on {server.address}", err=True)
        if csil_port is not None:
            render.say(f"Corndogs listens on csil://{server.csil_address}", err=True)
        signal.sigwait(_SIGNALS)
        server.stop()
