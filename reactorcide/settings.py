"""Every setting of the service in one table: name, type, default, help, how its text is read, its bounds.

``Settings`` is a plain frozen value. Nothing here reads the environment: the command line does
(each option is also ``REACTORCIDE_<OPTION>``) and hands the result on.
"""

import os
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any

from reactorcide.kinds import (
    BUILDKIT,
    CAPABILITY,
    CORNDOGS,
    DATABASE,
    IMAGE,
    IMAGE_PATTERN,
    LISTEN,
    NETWORK,
    OBJECTS,
    ORIGIN,
    SIZE,
    SOURCE_ROOT,
    Kind,
)
from reactorcide.lib.records import record
from reactorcide.lib.sizes import parse_size

MAX_BODY_BYTES = 2 << 20
"""Maximum size of a request body."""

_MAX_S = 7 * 86_400
_MAX_DAYS = 36_500
_MAX_COUNT = 1_000_000_000


def _setting(
    default: Any,
    help_text: str,
    *,
    option: str | None = None,
    kind: Kind | None = None,
    choices: tuple[str, ...] = (),
    min: float | None = None,
    max: float | None = None,
    is_secret: bool = False,
) -> Any:
    """Return the dataclass field of one setting. The default of a size is text, like ``2g``."""
    metadata = {
        "help": help_text,
        "option": option,
        "kind": kind,
        "choices": choices,
        "min": min,
        "max": max,
        "default": default,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    if kind is SIZE and default is not None:
        default = parse_size(default)
    return field(default=default, metadata=metadata, repr=not is_secret)


def default_data_dir() -> Path:
    """Return the default data directory: the platform's directory for user data."""
    # Imported late: it is needed once, by commands that name no directory.
    import platformdirs

    return Path(platformdirs.user_data_dir("reactorcide", appauthor=False))


def _cpus() -> int:
    return os.cpu_count() or 1


@record(kw_only=True)
class Settings:
    """The settings of ``reactorcide serve``; its options have the same names, with dashes."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", min=0, max=65535)
    tls_cert: Path | None = _setting(
        None, "PEM file of the certificate and its chain; serve TLS 1.2 or newer. Needs --tls-key."
    )
    tls_key: Path | None = _setting(None, "PEM file of the certificate's key. Needs --tls-cert.")
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "Trust X-Forwarded-For and X-Forwarded-Proto from this address or network (CIDR) only; repeatable. "
        "Trust none by default.",
        option="trusted-proxy",
        kind=NETWORK,
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        "Origin, like https://ci.example.com, whose pages may call the API from a browser; repeatable.",
        option="cors-origin",
        kind=ORIGIN,
    )
    public_url: str | None = _setting(
        None,
        "URL at which users reach the service, like https://ci.example.com; --host and --port by default.",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Another host name to accept in requests without a token, or * for any; repeatable. IP addresses, "
        "localhost, this machine's name and the host of --public-url are always accepted.",
        option="allowed-host",
    )
    no_ui: bool = _setting(False, "Leave out the web page, its sessions and its links.")
    data_dir: Path = _setting(
        default_data_dir,
        "Directory for the databases, logs and artifacts. By default the platform's directory for user data.",
    )
    database: str | None = _setting(
        None,
        "PostgreSQL database for jobs and all else that is not a file, or @FILE with its address. Everyone "
        "on this machine can read a command's options: name one with a password in a file, or in "
        "REACTORCIDE_DATABASE. By default a file in the data directory.",
        kind=DATABASE,
        is_secret=True,
    )
    objects: str | None = _setting(
        None,
        "Bucket for finished logs, artifacts, caches and uploaded sources, of S3 or a server like it; "
        "endpoint, region and credentials as AWS's own tools find them. By default the data directory.",
        kind=OBJECTS,
    )
    concurrency: int = _setting(
        _cpus,
        "Maximum number of jobs that run at once; 0 runs none. By default the number of CPUs.",
        min=0,
        max=10_000,
    )
    warm: int | None = _setting(
        None,
        "Containers to keep started for the next jobs; 0 keeps none. By default 2, or --concurrency if that "
        "is less.",
        min=0,
        max=1_000,
    )
    source_roots: tuple[Path, ...] = _setting(
        (),
        "Allow copied sources and local repositories below this directory; repeatable. By default the "
        "current directory, if serve is started at a terminal and below the home directory; otherwise none.",
        option="source-root",
        kind=SOURCE_ROOT,
    )
    allow_addresses: tuple[str, ...] = _setting(
        (),
        "Address or network (CIDR) that git may connect to for jobs of non-admin users, and requests to "
        "forges for all, even if it is loopback or link-local; repeatable.",
        option="allow-address",
        kind=NETWORK,
    )
    deny_addresses: tuple[str, ...] = _setting(
        (),
        "Address or network (CIDR) that git may not connect to for jobs of non-admin users, and requests "
        "to forges for all; repeatable. "
        "Loopback and link-local addresses are always denied, unless --allow-address allows them.",
        option="deny-address",
        kind=NETWORK,
    )
    allow_internal_webhooks: bool = _setting(
        False, "Allow webhooks to addresses that are not public, such as those of 10.0.0.0/8 and fc00::/7."
    )
    git_memory_bytes: int = _setting(
        "2g",
        "Memory limit of each git process that fetches a source; 0 sets no limit.",
        kind=SIZE,
        option="git-memory",
    )
    corndogs_address: str | None = _setting(
        None,
        "Address of an external Corndogs: csil://HOST:PORT for releases since 0.7.1, grpc://HOST:PORT or "
        "HOST:PORT for those up to 0.3. By default the embedded one is used.",
        kind=CORNDOGS,
    )
    corndogs_listen: str | None = _setting(
        None,
        "HOST:PORT, or a port of 127.0.0.1, on which the embedded Corndogs listens for gRPC, without "
        "authentication: every client can claim and create any task. Off by default.",
        kind=LISTEN,
    )
    queues: tuple[str, ...] = _setting(
        (),
        "Queue to claim jobs from; repeatable. By default every queue that has unfinished jobs.",
        option="queue",
    )
    default_image: str = _setting("alpine:latest", "Image of a job that names none.", kind=IMAGE)
    allow_images: tuple[str, ...] = _setting(
        (),
        "Images that jobs may use, like alpine:* or ghcr.io/acme/*; repeatable. All by default.",
        option="allow-image",
        kind=IMAGE_PATTERN,
    )
    pull: str = _setting("missing", "When to pull images.", choices=("always", "missing", "never"))
    default_cpu_limit: float | None = _setting(
        None, "CPU limit of a job that sets none, in CPUs; unlimited by default.", min=0.01, max=1024
    )
    max_cpu_limit: float | None = _setting(
        None, "Highest CPU limit that a job may set; no maximum by default.", min=0.01, max=1024
    )
    default_memory_limit_bytes: int | None = _setting(
        None,
        "Memory limit of a job that sets none, in bytes or like 512m, 2g; unlimited by default.",
        kind=SIZE,
        option="default-memory-limit",
    )
    max_memory_limit_bytes: int | None = _setting(
        None,
        "Highest memory limit that a job may set; no maximum by default.",
        kind=SIZE,
        option="max-memory-limit",
    )
    pids_limit: int = _setting(
        4096, "Maximum number of processes and threads of one job.", min=16, max=1 << 22
    )
    max_disk_bytes: int = _setting(
        "10g",
        "Disk limit of one job, on the engine and, while git fetches its source, on this host; a job that "
        "exceeds it is killed. 0 sets no limit.",
        kind=SIZE,
        option="max-disk",
    )
    job_network: str = _setting(
        "bridge",
        "Network of jobs: the engine's bridge, one on which jobs cannot reach each other, or none.",
        choices=("bridge", "isolated", "none"),
    )
    capabilities: tuple[str, ...] = _setting(
        (),
        "Linux capability to add to the few that jobs have by default; repeatable.",
        option="cap-add",
        kind=CAPABILITY,
    )
    allow_new_privileges: bool = _setting(False, "Allow sudo and other setuid programs in jobs.")
    run_local: bool = _setting(
        False, "Run jobs as the user that run_local of their workflow names, as reactorcide run does."
    )
    buildkit_address: str | None = _setting(
        None,
        "Address of a BuildKit, like tcp://buildkit:1234, for jobs with the capability builder of projects "
        "that an admin has granted it to. By default there is none.",
        kind=BUILDKIT,
    )
    prepare_timeout_s: float = _setting(
        900.0,
        "Time limit in seconds for fetching the source and the image of a job.",
        option="prepare-timeout",
        min=1,
        max=_MAX_S,
    )
    collect_timeout_s: float = _setting(
        300.0,
        "Time limit in seconds for collecting the artifacts of a job, and for reading its output again.",
        option="collect-timeout",
        min=1,
        max=_MAX_S,
    )
    cancel_grace_s: float = _setting(
        10.0,
        "Seconds between SIGTERM and SIGKILL for a job that is cancelled or has timed out.",
        option="cancel-grace",
        min=0.1,
        max=_MAX_S,
    )
    lease_s: float = _setting(60.0, "Lease of a claimed task in seconds.", option="lease", min=1, max=_MAX_S)
    lost_after_s: float = _setting(
        300.0,
        "Seconds after which jobs of this service that is not heard of are given up by the other services on "
        "its database, and its containers end by themselves where it does not reach that.",
        option="lost-after",
        min=1,
        max=_MAX_S,
    )
    drain: bool = _setting(
        False, "On the first SIGTERM or Ctrl-C wait for running jobs to end; on the second stop at once."
    )
    min_free_disk_bytes: int = _setting(
        "256m",
        "Start no job while the data directory's disk has less free space than this; 0 disables the check.",
        kind=SIZE,
        option="min-free-disk",
    )
    keep_jobs: int = _setting(
        10_000, "Number of finished jobs to keep, the last to end; 0 keeps all.", min=0, max=_MAX_COUNT
    )
    keep_days: int = _setting(0, "Days to keep a job after its end; 0 sets no limit.", min=0, max=_MAX_DAYS)
    keep_bytes: int = _setting(
        "20g",
        "Total size of the logs and artifacts to keep; the oldest jobs are removed first. 0 sets no limit.",
        kind=SIZE,
    )
    keep_image_days: int = _setting(
        14, "Days to keep a pulled image after its last use; 0 keeps it for ever.", min=0, max=_MAX_DAYS
    )
    keep_source_days: int = _setting(
        14, "Days to keep an uploaded source after its last use; 0 keeps it for ever.", min=0, max=_MAX_DAYS
    )
    max_artifact_bytes: int = _setting(
        "1g",
        "Total size of the artifacts to keep of one job, in bytes or like 512m, 2g; its log lists the rest.",
        kind=SIZE,
    )
    max_artifacts: int = _setting(10_000, "Number of artifacts to keep of one job.", min=0, max=_MAX_COUNT)
    max_cache_bytes: int = _setting(
        "10g",
        "Total size of the caches of a project or user; the least recently used go first. 0: no caches.",
        kind=SIZE,
    )
    max_source_bytes: int = _setting(
        "512m", "Maximum size of an uploaded source, packed and unpacked; 0 allows no uploads.", kind=SIZE
    )
    stream_slots: int = _setting(
        32,
        "Maximum number of log followers, long polls and uploads at once; one user gets at most half, "
        "and so do all clients without a token.",
        min=0,
        max=100_000,
    )
    max_log_bytes: int = _setting(
        "256m",
        "Maximum log size of one attempt, at least 4m; a longer log keeps its beginning and its end.",
        kind=SIZE,
        min=4 << 20,
    )
    request_timeout_s: float = _setting(
        30.0,
        "Time limit in seconds for receiving a whole request; an upload has one more for each 16 KiB.",
        option="request-timeout",
        min=1,
        max=_MAX_S,
    )
    bad_tokens: int = _setting(
        10,
        "Bad tokens and invitations per minute and address before answering 429; 0 sets no limit.",
        min=0,
        max=_MAX_COUNT,
    )
    log_format: str = _setting("text", "Format of the service's own log.", choices=("text", "json"))
    log_level: str = _setting(
        "info", "Level of the service's own log.", choices=("debug", "info", "warning", "error")
    )

    @property
    def warm_containers(self) -> int:
        """Containers to keep started for the next jobs."""
        if self.pull == "always":
            # Each job has its image pulled first, and that takes longer.
            return 0
        return min(2, self.concurrency) if self.warm is None else self.warm

    @property
    def database_path(self) -> Path:
        """Job database."""
        return self.data_dir / "reactorcide.db"

    @property
    def corndogs_path(self) -> Path:
        """Database of the embedded Corndogs."""
        return self.data_dir / "corndogs.db"

    @property
    def objects_dir(self) -> Path:
        """Finished logs, artifacts and uploaded sources, unless they are in a bucket."""
        return self.data_dir / "objects"

    @property
    def logs_dir(self) -> Path:
        """Logs of attempts that have not ended."""
        return self.data_dir / "logs"

    @property
    def workspaces_dir(self) -> Path:
        """Sources being prepared; removed at the end of their attempt."""
        return self.data_dir / "workspaces"

    @property
    def admin_token_path(self) -> Path:
        """The first admin's token, readable only by the service's user."""
        return self.data_dir / "admin-token"

    @property
    def service_id_path(self) -> Path:
        """What tells this service from others on its PostgreSQL database."""
        return self.data_dir / "service-id"

    @property
    def socket_path(self) -> Path:
        """Socket on which the service listens for its own user's command line."""
        return self.data_dir / "api.sock"


def option_name(setting: Field[Any]) -> str:
    """Return the command-line option of one setting, without its dashes: ``cancel-grace``."""
    return str(setting.metadata["option"] or setting.name.replace("_", "-"))


def all_settings() -> tuple[Field[Any], ...]:
    """Return the table, one dataclass field a setting."""
    return fields(Settings)


def default_text(setting: Field[Any]) -> str | None:
    """Return the default of one setting as text; ``None`` if there is none, or it depends on the host."""
    default = setting.metadata["default"]
    if callable(default) or default in (None, (), False):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)
