"""The operator's limits for every job."""

from reactorcide.lib.records import record
from reactorcide.logs.writer import DEFAULT_MAX_BYTES


@record
class Limits:
    """The limits of an attempt, which are the same for every job."""

    prepare_timeout_s: float
    cancel_grace_s: float
    pids: int
    artifact_bytes: int
    artifacts: int
    """Maximum number of artifacts; files above either limit are not stored."""
    collect_timeout_s: float = 300.0
    """Time limit for collecting artifacts; the rest is not stored."""
    pull: str = "missing"
    """When an image is pulled: ``always``, ``missing`` or ``never``."""
    max_disk_bytes: int = 0
    """Maximum disk usage of a container on the engine; 0 is no limit."""
    log_bytes: int = DEFAULT_MAX_BYTES
    cache_bytes: int = 0
    """Maximum size of the caches of one project or user; 0 turns caches off."""
