"""Time as the service writes it: Unix milliseconds in UTC, RFC 3339 towards clients."""

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def rfc3339(unix_ms: int) -> str:
    """Return e.g. ``2026-01-31T23:59:59.007Z``."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
