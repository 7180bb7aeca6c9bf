"""Every setting of the service in one table: name, type, default, help, how its text is read, its bounds.

``Settings`` is a plain frozen value. Nothing here reads the environment: the command line does
(each option is also ``REACTORCIDE_<OPTION>``) and hands the result on.
"""

import os
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from reactorcide.kinds import (
    ADDRESS,
    CAPABILITY,
    IMAGE,
    IMAGE_PATTERN,
    LISTEN,
    NETWORK,
    ORIGIN,
    SIZE,
    SOURCE_ROOT,
    Kind,
)
from reactorcide.lib.sizes import parse_size

MAX_BODY_BYTES = 2 << 20
"""The longest body of a request."""


def _setting(
    default: Any,
    help_text: str,
    *,
    option: str | None = None,
    kind: Kind | None = None,
    choices: tuple[str, ...] = (),
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """Return the field of one setting; a size has its default as text."""
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
    return field(default=default, metadata=metadata)


def default_data_dir() -> Path:
    """Return the platform's directory for user data, where nothing else is said."""
    # Imported late: it is needed once, by commands that name no directory.
    import platformdirs

    return Path(platformdirs.user_data_dir("reactorcide", appauthor=False))


def _cpus() -> int:
    return os.cpu_count() or 1


# Each default is made by a call that carries the help text with it.
# ruff: noqa: RUF009
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``reactorcide serve`` can be told; the same names, with dashes, are its options."""

    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8080, "Port to listen on; 0 takes a free one.", min=0, max=65535)
    tls_cert: Path | None = _setting(
        None, "Certificate, with its chain, as PEM: then it speaks TLS, 1.2 or newer; with --tls-key."
    )
    tls_key: Path | None = _setting(None, "Key of the certificate, as PEM.")
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "Address or network (CIDR) of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed; may "
        "be given more than once. By default nobody's are.",
        option="trusted-proxy",
        kind=NETWORK,
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        "Origin, like https://ci.example.com, whose pages may use the API from a browser; may be given more "
        "than once.",
        option="cors-origin",
        kind=ORIGIN,
    )
    public_url: str | None = _setting(
        None, "Where people reach the service, like https://ci.example.com, if that is not --host and --port."
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "Another name that the service may be called by without a token, or * for any; may be given more "
        "than once. Addresses, localhost, this machine's own name and that in --public-url always may.",
        option="allowed-host",
    )
    data_dir: Path = _setting(
        default_data_dir, "Directory for the databases, logs and artifacts; the platform's by default."
    )
    concurrency: int = _setting(
        _cpus, "Jobs that run at once; the number of CPUs by default, 0 runs none.", min=0
    )
    source_roots: tuple[Path, ...] = _setting(
        (),
        "Directory that copied sources and local repositories may come from; may be given more than once. "
        "By default the directory that serve was started in, if that was at a terminal and below the home "
        "directory; else none.",
        option="source-root",
        kind=SOURCE_ROOT,
    )
    allow_addresses: tuple[str, ...] = _setting(
        (),
        "Address or network (CIDR) that git may go to for the jobs of users who are no admins, though it is "
        "loopback or link-local; may be given more than once.",
        option="allow-address",
        kind=NETWORK,
    )
    deny_addresses: tuple[str, ...] = _setting(
        (),
        "Address or network (CIDR) that git may not go to for the jobs of users who are no admins; may be "
        "given more than once. Loopback and link-local addresses are by default.",
        option="deny-address",
        kind=NETWORK,
    )
    git_memory_bytes: int = _setting(
        "2g",
        "Memory that each process of git may have while it fetches a source; 0 sets no limit.",
        kind=SIZE,
        option="git-memory",
    )
    corndogs_address: str | None = _setting(
        None, "HOST:PORT of an external Corndogs; without it an embedded one is used.", kind=ADDRESS
    )
    corndogs_listen: str | None = _setting(
        None,
        "HOST:PORT, or a port of 127.0.0.1, on which other programs may use the embedded Corndogs over gRPC: "
        "whoever reaches it may take and make any task. By default it listens nowhere.",
        kind=LISTEN,
    )
    queues: tuple[str, ...] = _setting(
        (),
        "Queue to take jobs from; may be given more than once. By default every queue that has "
        "unfinished jobs.",
        option="queue",
    )
    default_image: str = _setting("alpine:latest", "Image of a job that names none.", kind=IMAGE)
    allow_images: tuple[str, ...] = _setting(
        (),
        "Images that jobs may use, like alpine:* or ghcr.io/acme/*; may be given more than once. All by "
        "default.",
        option="allow-image",
        kind=IMAGE_PATTERN,
    )
    pull: str = _setting("missing", "When an image is pulled.", choices=("always", "missing", "never"))
    default_cpu_limit: float | None = _setting(
        None, "CPUs of a job that names no limit; none by default.", min=0.01
    )
    max_cpu_limit: float | None = _setting(
        None, "The most CPUs that a job may ask for; no maximum by default.", min=0.01
    )
    default_memory_limit_bytes: int | None = _setting(
        None,
        "Memory of a job that names no limit, in bytes or like 512m, 2g; none by default.",
        kind=SIZE,
        option="default-memory-limit",
    )
    max_memory_limit_bytes: int | None = _setting(
        None,
        "The most memory that a job may ask for; no maximum by default.",
        kind=SIZE,
        option="max-memory-limit",
    )
    pids_limit: int = _setting(4096, "Processes and threads that one job may have.", min=16)
    max_disk_bytes: int = _setting(
        "10g",
        "Space that one job may take of the engine's disk, and git of this host's for it, before it is "
        "killed; 0 turns this off.",
        kind=SIZE,
        option="max-disk",
    )
    job_network: str = _setting(
        "bridge",
        "Network of the jobs: the engine's own bridge, one on which they cannot reach each other, or none.",
        choices=("bridge", "isolated", "none"),
    )
    capabilities: tuple[str, ...] = _setting(
        (),
        "Linux capability that jobs have beyond the few they need; may be given more than once.",
        option="cap-add",
        kind=CAPABILITY,
    )
    allow_new_privileges: bool = _setting(False, "Let sudo and other setuid programs work in jobs.")
    prepare_timeout_s: float = _setting(
        900.0,
        "Seconds that fetching the source and the image of a job may take.",
        option="prepare-timeout",
        min=1,
    )
    collect_timeout_s: float = _setting(
        300.0, "Seconds that reading what a job left may take.", option="collect-timeout", min=1
    )
    cancel_grace_s: float = _setting(
        10.0,
        "Seconds between SIGTERM and SIGKILL for a job that is cancelled or out of time.",
        option="cancel-grace",
        min=0.1,
    )
    lease_s: float = _setting(60.0, "Seconds for which a claimed task is leased.", option="lease", min=1)
    drain: bool = _setting(
        False, "On the first SIGTERM or Ctrl-C wait for the jobs that run; the second ends the waiting."
    )
    min_free_disk_bytes: int = _setting(
        "256m",
        "Space that must be free in the data directory for a job to be started; 0 turns this off.",
        kind=SIZE,
        option="min-free-disk",
    )
    keep_jobs: int = _setting(10_000, "Jobs that are kept, the last to end; 0 keeps any number.", min=0)
    keep_days: int = _setting(0, "Days for which a job is kept after its end; 0 sets no limit.", min=0)
    keep_bytes: int = _setting(
        "20g",
        "Size of the logs and artifacts that are kept, the oldest jobs go first; 0 sets no limit.",
        kind=SIZE,
    )
    keep_image_days: int = _setting(
        14, "Days for which an image that was pulled is kept after its last use; 0 keeps it.", min=0
    )
    keep_source_days: int = _setting(
        14, "Days for which an uploaded source is kept after its last use; 0 keeps it.", min=0
    )
    max_artifact_bytes: int = _setting(
        "1g",
        "Artifacts that are kept of one job, in bytes or like 512m, 2g; its log says what is not.",
        kind=SIZE,
    )
    max_artifacts: int = _setting(10_000, "Files that are kept of one job as artifacts.", min=0)
    max_source_bytes: int = _setting(
        "512m", "The largest source that can be uploaded, packed or unpacked; 0 allows none.", kind=SIZE
    )
    stream_slots: int = _setting(32, "Log followers, long polls and uploads that are served at once.", min=0)
    max_log_bytes: int = _setting(
        "256m",
        "The longest log of one attempt, at least 4m; of a longer one the beginning and the end are kept.",
        kind=SIZE,
        min=4 << 20,
    )
    request_timeout_s: float = _setting(
        30.0,
        "Seconds in which a client must have sent its whole request; an upload has one more for each 16 KiB.",
        option="request-timeout",
        min=1,
    )
    bad_tokens: int = _setting(
        10, "Bad tokens and invitations a minute from one address that are answered; 0 is no limit.", min=0
    )
    log_format: str = _setting("text", "Format of the service's own log.", choices=("text", "json"))
    log_level: str = _setting(
        "info", "Level of the service's own log.", choices=("debug", "info", "warning", "error")
    )

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
        """Finished logs, artifacts and uploaded sources."""
        return self.data_dir / "objects"

    @property
    def logs_dir(self) -> Path:
        """Where the logs of attempts grow that have not ended."""
        return self.data_dir / "logs"

    @property
    def workspaces_dir(self) -> Path:
        """Sources being prepared; nothing in it outlives an attempt."""
        return self.data_dir / "workspaces"

    @property
    def admin_token_path(self) -> Path:
        """The bootstrap admin's token, readable by the service's user alone."""
        return self.data_dir / "admin-token"

    @property
    def socket_path(self) -> Path:
        """Where the service listens for the command line of its own user."""
        return self.data_dir / "api.sock"


def option_name(setting: Field[Any]) -> str:
    """Return the command-line option of one setting, without its dashes: ``cancel-grace``."""
    return str(setting.metadata["option"] or setting.name.replace("_", "-"))


def all_settings() -> tuple[Field[Any], ...]:
    """Return the table, one dataclass field a setting."""
    return fields(Settings)


def default_text(setting: Field[Any]) -> str | None:
    """Return the default of one setting as one would write it; ``None`` where it is none, or depends."""
    default = setting.metadata["default"]
    if callable(default) or default in (None, (), False):
        return None
    return f"{default:g}" if isinstance(default, float) else str(default)
