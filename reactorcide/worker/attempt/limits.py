"""What the operator allows every job."""

from dataclasses import dataclass

from reactorcide.logs.writer import DEFAULT_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an attempt, which are the same for every job."""

    prepare_timeout_s: float
    cancel_grace_s: float
    pids: int
    artifact_bytes: int
    artifacts: int
    """Files; what a job leaves beyond either is not kept."""
    collect_timeout_s: float = 300.0
    """For reading what a job left; what has not been read by then is not kept."""
    pull: str = "missing"
    """When an image is pulled: ``always``, ``missing`` or ``never``."""
    max_disk_bytes: int = 0
    """What a container may take of the engine's disk; 0 is no limit."""
    log_bytes: int = DEFAULT_MAX_BYTES
    cache_bytes: int = 0
    """For the caches of one project or user; 0 turns caches off."""
