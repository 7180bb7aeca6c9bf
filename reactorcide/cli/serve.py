"""``reactorcide serve``: checks and messages before the service starts."""

import errno
import logging
import shlex
import socket
import time
from typing import Any

import click

from reactorcide import logconfig
from reactorcide.cli import localsocket
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options, with_default_roots
from reactorcide.domain.errors import ConfigurationError
from reactorcide.lib.networks import is_loopback
from reactorcide.settings import Settings

log = logging.getLogger("reactorcide.serve")

_PATIENCE_S = 1.0


@click.command()
@settings_options()
def serve(**options: Any) -> None:
    """Run the service: API, worker and queue in one process."""
    named = settings_from(options)
    settings = with_default_roots(named)
    logconfig.configure(settings.log_format, settings.log_level)
    if settings is not named:
        log.info("jobs may take sources from %s, where this was started", settings.source_roots[0])
    with lock_data_dir(settings.data_dir):
        _check_address(settings)
        _check_tls(settings)
        _warn_of_plain_http(settings)
        _warn_of_open_data_dir(settings)
        from reactorcide.server.run import raise_file_limit, run

        raise_file_limit()
        run(settings, _local_listener(settings), lambda: localsocket.remove(settings.data_dir))


def _check_address(settings: Settings) -> None:
    """Raise ``ConfigurationError`` if the service cannot listen on the address. gunicorn would fail, too, but
    only after five seconds of retries.

    Waits up to 1 s, because a killed service gives up its lock an instant before its address.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _try_address(settings.host, settings.port)
            return
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _bad_address(settings, exc.strerror) from exc
        except UnicodeError as exc:
            raise _bad_address(settings, "it is not a host name") from exc
        time.sleep(0.05)


def _bad_address(settings: Settings, reason: str | None) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on {settings.host}:{settings.port}: {reason}; "
        "choose another address with --host and --port"
    )


def _try_address(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _check_tls(settings: Settings) -> None:
    """Raise ``ConfigurationError`` if the certificate and its key cannot be used."""
    if settings.tls_cert is None and settings.tls_key is None:
        return
    if settings.tls_cert is None or settings.tls_key is None:
        raise ConfigurationError("--tls-cert and --tls-key belong together: give both, or none")
    from reactorcide.server.tls import Certificate

    try:
        Certificate(settings.tls_cert, settings.tls_key)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot use --tls-cert {settings.tls_cert} with --tls-key {settings.tls_key}: "
            f"{exc.strerror or exc}; both have to be PEM files, the key without a passphrase"
        ) from exc


def _warn_of_plain_http(settings: Settings) -> None:
    """Warn if tokens would cross a network in plain text; a named proxy is assumed to speak TLS."""
    if settings.tls_cert is not None or settings.trusted_proxies:
        return
    if not is_loopback(settings.host):
        log.warning(
            "listening on %s without TLS: tokens, logs and artifacts can be read on the way; give --tls-cert "
            "and --tls-key, or put a proxy in front and name it with --trusted-proxy",
            settings.host,
        )


def _warn_of_open_data_dir(settings: Settings) -> None:
    """Warn if an existing data directory is accessible to every user of this host."""
    if settings.data_dir.stat().st_mode & 0o007:
        log.warning(
            "everybody on this host may look into the data directory %s, where logs and artifacts are; "
            "run: chmod o= %s",
            settings.data_dir,
            shlex.quote(str(settings.data_dir)),
        )


def _local_listener(settings: Settings) -> localsocket.Listener | None:
    """Return the socket for this user's command line; if it cannot be created, log that and continue."""
    try:
        return localsocket.listen(settings.data_dir)
    except OSError as exc:
        log.warning(
            "there is no socket %s for the command line (%s): it needs REACTORCIDE_API_URL and "
            "REACTORCIDE_API_TOKEN; a --data-dir on another file system may have one",
            settings.socket_path,
            exc.strerror,
        )
        return None
