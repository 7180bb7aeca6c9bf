"""``reactorcide serve``: gunicorn around the application."""

import gc
import ipaddress
import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable
from typing import Any

import click

from reactorcide import logconfig
from reactorcide.cli import localsocket
from reactorcide.cli.datadir import lock_data_dir
from reactorcide.cli.options import settings_from, settings_options, with_default_roots
from reactorcide.domain.errors import ConfigurationError
from reactorcide.settings import Settings

log = logging.getLogger("reactorcide.serve")

_API_THREADS = 16
_GRACEFUL_TIMEOUT_S = 6
_EXIT_CANNOT_START = 3
"""gunicorn's own code for a worker that can't boot: then the master gives up instead of trying again."""


@click.command()
@settings_options()
def serve(**options: Any) -> None:
    """Run the service: API, worker and queue in one process."""
    named = settings_from(options)
    settings = with_default_roots(named)
    logconfig.configure(settings.log_format, settings.log_level)
    if settings is not named:
        log.info("jobs may take sources from %s, where this was started", settings.source_roots[0])
    try:
        lock = lock_data_dir(settings.data_dir)
        with lock:
            _check_address(settings)
            _check_tls(settings)
            _warn_of_plain_http(settings)
            _warn_of_open_data_dir(settings)
            _run(settings, _local_listener(settings))
    except ConfigurationError as exc:
        click.echo(f"reactorcide: {exc}", err=True)
        sys.exit(1)


def _check_address(settings: Settings) -> None:
    """Raise ``ConfigurationError`` where the address cannot be listened on.

    gunicorn would find out too, but only after trying for five seconds.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {exc.strerror}; "
            "choose another address with --host and --port"
        ) from exc


def _check_tls(settings: Settings) -> None:
    """Raise ``ConfigurationError`` where the certificate and its key cannot be used."""
    if settings.tls_cert is None and settings.tls_key is None:
        return
    if settings.tls_cert is None or settings.tls_key is None:
        raise ConfigurationError("--tls-cert and --tls-key belong together: give both, or none")
    import ssl

    try:
        # A key with a passphrase is refused, for nobody is there to type it.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key, password=""
        )
    except OSError as exc:
        raise ConfigurationError(
            f"cannot use --tls-cert {settings.tls_cert} with --tls-key {settings.tls_key}: "
            f"{exc.strerror or exc}; both have to be PEM files, the key without a passphrase"
        ) from exc


def _warn_of_plain_http(settings: Settings) -> None:
    """Warn where tokens would cross a network in clear; a proxy that is named is taken to speak TLS."""
    if settings.tls_cert is not None or settings.trusted_proxies:
        return
    try:
        is_loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        is_loopback = settings.host == "localhost"
    if not is_loopback:
        log.warning(
            "listening on %s without TLS: tokens, logs and artifacts can be read on the way; give --tls-cert "
            "and --tls-key, or put a proxy in front and name it with --trusted-proxy",
            settings.host,
        )


def _warn_of_open_data_dir(settings: Settings) -> None:
    """Warn where a data directory that was there already is open to everybody on this host."""
    if settings.data_dir.stat().st_mode & 0o007:
        log.warning(
            "everybody on this host may look into the data directory %s, where logs and artifacts are; "
            "run: chmod o= %s",
            settings.data_dir,
            shlex.quote(str(settings.data_dir)),
        )


def _local_listener(settings: Settings) -> localsocket.Listener | None:
    """Return the socket for the command line of this user; where there can be none, say so and go on."""
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


def _run(settings: Settings, local: localsocket.Listener | None) -> None:
    from gunicorn.app.base import BaseApplication

    from reactorcide.cli.gunicorn_worker import DrainingArbiter

    class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        """The master process: it imports neither Flask nor gRPC nor Docker, which saves their memory."""

        def load_config(self) -> None:
            """Set everything here: gunicorn's own command line and files play no part."""
            for name, value in _gunicorn_config(settings).items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            """Build the application, in the worker: threads and connections must be born after the fork."""
            # What is made until it has started stays to the end. To look through it for garbage again and
            # again took a quarter of the start.
            gc.disable()
            from reactorcide.app import build

            self.application = build(settings, os.environ)
            return self.application.wsgi

        def run(self) -> None:
            """Run until a signal ends it."""
            if settings.drain:
                DrainingArbiter(self).run()
            else:
                super().run()

    server = Server()
    server.cfg.set("post_worker_init", lambda worker: _start(server.application, worker, settings))
    server.cfg.set("worker_exit", lambda _, worker: _stop(worker))
    if local is not None:
        # Not among the addresses to bind: it has a path that gunicorn cannot bind or remove.
        server.cfg.set("when_ready", lambda master: master.LISTENERS.append(local))
        server.cfg.set("on_exit", lambda _: localsocket.remove(settings.data_dir))
    server.run()


def _gunicorn_config(settings: Settings) -> dict[str, Any]:
    return {
        "bind": f"[{settings.host}]:{settings.port}"
        if ":" in settings.host
        else f"{settings.host}:{settings.port}",
        "worker_class": f"reactorcide.cli.gunicorn_worker.{'DrainingWorker' if settings.drain else 'Worker'}",
        "workers": 1,
        "threads": settings.stream_slots + _API_THREADS,
        "worker_connections": 1000,
        "max_requests": 0,
        # gthread's heartbeat comes from its main loop, so this is no limit on requests.
        "timeout": 60,
        "graceful_timeout": _GRACEFUL_TIMEOUT_S,
        "keepalive": 15,
        "preload_app": False,
        "control_socket_disable": True,
        # The application judges these headers itself, by --trusted-proxy; gunicorn would believe this host's.
        "forwarded_allow_ips": "",
        **_tls_config(settings),
        "logger_class": "reactorcide.cli.gunicorn_worker.Logger",
        "proc_name": "reactorcide",
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108  # a heartbeat file
    }


def _tls_config(settings: Settings) -> dict[str, Any]:
    if settings.tls_cert is None:
        return {}
    return {
        "certfile": str(settings.tls_cert),
        "keyfile": str(settings.tls_key),
        # Called for each connection, so that a renewed certificate is used at once.
        "ssl_context": _tls_context,
    }


def _tls_context(config: Any, default: Callable[[], Any]) -> Any:
    import ssl

    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _start(application: Any, worker: Any, settings: Settings) -> None:
    """Start the parts of the service, in the worker, when gunicorn is about to accept requests."""
    try:
        application.start()
    except ConfigurationError as exc:
        click.echo(f"reactorcide: {exc}", err=True)
        sys.exit(_EXIT_CANNOT_START)
    gc.freeze()
    gc.enable()
    worker.application = application
    worker.request_timeout_s = settings.request_timeout_s
    address = worker.sockets[0].getsockname()
    scheme = "https" if worker.cfg.is_ssl else "http"
    click.echo(f"Reactorcide listens on {scheme}://{address[0]}:{address[1]}", err=True)
    if application.new_admin_token is not None:
        # Not into a file or a journal, which others may read.
        if sys.stderr.isatty():
            click.echo(f"The admin's token, shown this once: {application.new_admin_token}", err=True)
        else:
            click.echo(f"The admin's token is in {settings.admin_token_path.absolute()}", err=True)


def _stop(worker: Any) -> None:
    application = getattr(worker, "application", None)
    if application is not None:
        application.stop()
