"""``reactorcide doctor``: check everything that the service needs, and advise what to do."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from reactorcide.cli import localsocket, render
from reactorcide.cli.client import Client
from reactorcide.cli.datadir import lock_owner
from reactorcide.cli.options import settings_from, settings_options
from reactorcide.cli.session import ServiceError
from reactorcide.domain.errors import ReactorcideError
from reactorcide.lib.records import record
from reactorcide.lib.sizes import format_size
from reactorcide.settings import Settings

_OLDEST_GIT = (2, 37)
_MIN_FREE_BYTES = 1 << 30
_PROGRAM_S = 10
_SOCKET_S = 5.0
_SOCKET_ADVICE = (
    "set REACTORCIDE_API_URL and REACTORCIDE_API_TOKEN for the command line, or choose another --data-dir"
)
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"


@record
class Finding:
    """The result of one check; ``advice`` says what to do if it is not ``ok``."""

    check: str
    ok: bool
    message: str
    advice: str | None = None


@click.command()
@settings_options("data_dir", "database", "objects", "host", "port", "corndogs_address")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(as_json: bool, **options: Any) -> None:
    """Check everything that the service needs, and advise what to do. Exit code 0: all is well."""
    settings = settings_from(options)
    checks: list[Callable[[], Finding]] = [
        lambda: _docker(os.environ),
        _git,
        lambda: _data_dir(settings.data_dir),
        *([] if settings.database is None else [lambda: _database(settings)]),
        lambda: _objects(settings),
        lambda: _port(settings),
        lambda: _corndogs(settings.corndogs_address),
    ]
    findings = []
    for check in checks:
        finding = check()
        findings.append(finding)
        if not as_json:
            _show(finding)
    is_fine = all(finding.ok for finding in findings)
    if as_json:
        render.as_json({"ok": is_fine, "checks": [asdict(finding) for finding in findings]})
    sys.exit(0 if is_fine else 1)


def _show(finding: Finding) -> None:
    mark, style = ("✓", "green") if finding.ok else ("✗", "red")
    # The message may quote another server that answers at the port.
    render.line(f"{mark} {finding.check:14}  {finding.message}", style=style)
    if finding.advice is not None:
        render.say(f"  {'':14}  → {finding.advice}")


def _docker(environment: Mapping[str, str]) -> Finding:
    from reactorcide.app.operator import probe_docker

    address = environment.get("DOCKER_HOST") or _DEFAULT_ENGINE
    try:
        version, warm = probe_docker(environment)
    except ReactorcideError as exc:
        return Finding("Docker", False, f"no engine answers at {address}", _engine_advice(address, str(exc)))
    waiting = f"warm containers: {warm}"
    if warm is None:
        waiting = "no warm containers, because it is on another host, or Podman"
    return Finding("Docker", True, f"engine {version} answers at {address}; {waiting}")


def _engine_advice(address: str, problem: str) -> str:
    scheme, _, path = address.partition("://")
    if scheme != "unix":
        return f"check DOCKER_HOST, and that an engine listens there ({problem})"
    socket_path = Path("/", path)
    if "Permission denied" in problem:
        return f"allow this user: 'sudo usermod -aG docker {_user_name()}', then log in again"
    if socket_path.exists():
        return "start the engine: 'sudo systemctl start docker', or 'sudo dockerd'"
    if "DOCKER_HOST" in os.environ:
        return f"there is no {socket_path}: correct DOCKER_HOST, or unset it for the engine of this host"
    if shutil.which("dockerd"):
        return "start the engine: 'sudo systemctl start docker', or 'sudo dockerd'"
    return (
        "install Docker ('sudo apt-get install docker.io', or docs.docker.com/engine/install), and start it"
    )


def _user_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "$USER"


def _git() -> Finding:
    advice = "install git ('sudo apt-get install git'); jobs with a git source need it"
    program = shutil.which("git")
    if program is None:
        return Finding("git", False, "there is no git on the PATH", advice)
    try:
        version = subprocess.run(  # noqa: S603  # what the service itself would run
            [program, "--version"], capture_output=True, text=True, timeout=_PROGRAM_S, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as exc:
        return Finding("git", False, f"{program} does not run: {exc}", advice)
    match = re.search(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST_GIT:
        oldest = ".".join(map(str, _OLDEST_GIT))
        return Finding("git", False, f"{program} is {version!r}", f"install version {oldest} or later")
    return Finding("git", True, f"{version.removeprefix('git version ')} at {program}")


def _data_dir(data_dir: Path) -> Finding:
    check = "data directory"
    advice = "choose another one with --data-dir, or make this one writable for the user of the service"
    # The service creates a missing directory, so check its nearest existing parent.
    existing = next(path for path in (data_dir.absolute(), *data_dir.absolute().parents) if path.exists())
    try:
        if existing == data_dir.absolute():
            with tempfile.TemporaryFile(dir=data_dir):
                pass
            owner = lock_owner(data_dir)
            problem = _socket_problem(data_dir, is_in_use=owner is not None)
            if problem is not None:
                return Finding(check, False, f"{data_dir} has no socket: {problem}", _SOCKET_ADVICE)
        elif existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
            owner = None
        else:
            return Finding(check, False, f"{data_dir} cannot be created in {existing}", advice)
        free_bytes = shutil.disk_usage(existing).free
    except OSError as exc:
        return Finding(check, False, f"{data_dir} cannot be used: {exc.strerror}", advice)
    if free_bytes < _MIN_FREE_BYTES:
        return Finding(
            check,
            False,
            f"{data_dir} has {format_size(free_bytes)} left",
            "free some space, or choose another directory with --data-dir",
        )
    state = "not in use" if owner is None else f"in use by process {owner}"
    return Finding(check, True, f"{data_dir}, {format_size(free_bytes)} free, {state}")


def _database(settings: Settings) -> Finding:
    from reactorcide.app.operator import probe_database

    try:
        probe_database(settings)
    except ReactorcideError as exc:
        return Finding(
            "database",
            False,
            str(exc),
            "check --database, that the server runs, and that it lets this user in",
        )
    return Finding("database", True, "PostgreSQL takes writes")


def _objects(settings: Settings) -> Finding:
    check = "objects"
    bucket = settings.objects
    if bucket is None and settings.database is None and settings.database_path.is_file():
        from reactorcide import backup

        bucket = backup.bucket(settings.database_path)
    if bucket is None:
        return Finding(check, True, "in the data directory")
    from reactorcide.app.operator import probe_objects

    try:
        probe_objects(bucket, os.environ)
    except ReactorcideError as exc:
        # Most messages say what to do.
        problem, _, advice = str(exc).partition("; ")
        return Finding(check, False, problem, advice or "check AWS_ENDPOINT_URL, and that the server runs")
    return Finding(check, True, f"{bucket} takes them")


def _socket_problem(data_dir: Path, *, is_in_use: bool) -> str | None:
    """Return why the command line cannot reach the service over its socket; ``None`` if it can."""
    try:
        if is_in_use:
            localsocket.connect(data_dir, _SOCKET_S).close()
        else:
            with tempfile.TemporaryDirectory(dir=data_dir) as directory:
                localsocket.listen(Path(directory)).close()
    except OSError as exc:
        return exc.strerror or str(exc)
    except localsocket.Stranger as exc:
        return str(exc)
    return None


def _port(settings: Settings) -> Finding:
    address = f"{settings.host}:{settings.port}"
    try:
        family, kind, *_, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # Like the service, ignore old connections in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except PermissionError:
        return Finding(
            "port", False, f"{address} is not allowed for this user", "choose a port above 1023 with --port"
        )
    except (OSError, OverflowError) as exc:
        version = _version_at(settings)
        if version is not None:
            return Finding("port", True, f"Reactorcide {version} answers at {address}")
        reason = exc.strerror if isinstance(exc, OSError) else exc
        return Finding(
            "port",
            False,
            f"cannot listen on {address}: {reason}",
            "stop the program that uses it ('ss -ltnp' shows it), or choose another port with --port",
        )
    return Finding("port", True, f"{address} is free")


def _version_at(settings: Settings) -> str | None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # not bound
    try:
        with Client(f"http://{f'[{host}]' if ':' in host else host}:{settings.port}", None, "") as client:
            health = client.health()
    except ServiceError:
        return None
    return str(health["version"]) if health.get("status") == "OK" and "version" in health else None


def _corndogs(address: str | None) -> Finding:
    if address is None:
        return Finding("Corndogs", True, "embedded in the service")
    from reactorcide.app.operator import probe_corndogs

    try:
        probe_corndogs(address)
    except ReactorcideError as exc:
        return Finding(
            "Corndogs",
            False,
            f"{address}: {exc}",
            "start it (for example with 'reactorcide corndogs'), or omit --corndogs-address",
        )
    return Finding("Corndogs", True, f"{address} answers")
