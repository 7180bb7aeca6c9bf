"""Times: Unix milliseconds inside the service, RFC 3339 in UTC for clients."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:)([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS


def now_ms() -> int:
    """Return the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def boottime() -> float:
    """Return the seconds since some moment before; unlike ``time.monotonic`` also those of a suspend."""
    # Only Linux has it.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def boot_id() -> str:
    """Return what is another one after each start of this machine; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def from_rfc3339(text: str) -> int:
    """Return a time in Unix milliseconds, at most the last one of the year 9999.

    Raises ``ValueError`` unless the text is a date and time with a zone by RFC 3339.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not a time by RFC 3339")
    date, minute, second, fraction, zone = match.groups(default="")
    # A leap second, which Python does not support, becomes the next second.
    is_leap = second == "60"
    moment = datetime.fromisoformat(f"{date}T{minute}{'59' if is_leap else second}{fraction}{zone.upper()}")
    return min((moment - _EPOCH) // _MS + is_leap * 1000, _LAST_MS)


def rfc3339(unix_ms: int) -> str:
    """Return e.g. ``2026-01-31T23:59:59.007Z``."""
    # In whole numbers: a float would round some of them down.
    seconds, ms = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03}Z"


def rfc3339_or_none(unix_ms: int | None) -> str | None:
    """Return the same; ``None`` for a time that there is not."""
    return None if unix_ms is None else rfc3339(unix_ms)
