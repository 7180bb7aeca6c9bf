"""Due times: a cron expression in a time zone."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.schedules import MAX_CRON_CHARS, MAX_TIMEZONE_CHARS

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = re.compile(r"[0-9A-Za-z*/,#-]+(?:[ \t]+[0-9A-Za-z*/,#-]+){4}")
_TIMEZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_MINUTE = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Times:
    """The due times of a cron expression in a time zone.

    They are wall clock times, each of which is due once: a time that the clock skips, at the next one that
    exists; a time that occurs twice, at the first.
    """

    def __init__(self, cron: str, timezone: str) -> None:
        """Raise ``InvalidInput`` if ``cron`` or ``timezone`` is invalid, or the time never comes."""
        self._zone = _zone(timezone)
        self._fields = _NAMED.get(cron.strip().lower(), cron.strip())
        if len(cron) > MAX_CRON_CHARS or _FIELDS.fullmatch(self._fields) is None:
            raise InvalidInput(_wrong(cron), "cron")
        try:
            next(CronSim(self._fields, datetime(2000, 1, 1)))  # noqa: DTZ001  # of no zone, as all that follow
        except CronSimError as exc:
            raise InvalidInput(f"{_wrong(cron)}: {str(exc).lower()}", "cron") from exc
        except StopIteration:
            raise InvalidInput(
                f"the time {cron!r} never comes; check its day and its month", "cron"
            ) from None

    def after(self, at_ms: int) -> Iterator[int]:
        """Yield the due times later than ``at_ms``, in order, up to the last year of the calendar."""
        last_ms = at_ms
        try:
            local = (_EPOCH + at_ms * _MS).astimezone(self._zone).replace(tzinfo=None)
            for due in CronSim(self._fields, local):
                due_at_ms = self._at_ms(due)
                if due_at_ms > last_ms:
                    yield due_at_ms
                    last_ms = due_at_ms
        except (OverflowError, ValueError):
            # Beyond the year 9999.
            return

    def first_after(self, at_ms: int) -> int | None:
        """Return the first due time later than ``at_ms``; ``None`` if there is none up to the year 9999."""
        return next(self.after(at_ms), None)

    def some_after(self, at_ms: int, count: int) -> list[int]:
        """Return the first ``count`` due times later than ``at_ms``."""
        return list(islice(self.after(at_ms), count))

    def _at_ms(self, local: datetime) -> int:
        """Return when the wall clock first shows ``local``, or the next existing time if it never does."""
        while True:
            at = local.replace(tzinfo=self._zone).astimezone(UTC)
            if at.astimezone(self._zone).replace(tzinfo=None) == local:
                return (at - _EPOCH) // _MS
            local += _MINUTE


def _zone(name: str) -> ZoneInfo:
    if len(name) <= MAX_TIMEZONE_CHARS and _TIMEZONE.fullmatch(name) is not None:
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            # Unknown, a directory of zones, or another file in their directory.
            pass
    raise InvalidInput(
        f"there is no time zone {name[:MAX_TIMEZONE_CHARS]!r}; name one like Europe/Berlin, or UTC",
        "timezone",
    )


def _wrong(cron: str) -> str:
    return (
        f"{cron[:MAX_CRON_CHARS]!r} is not a cron expression; give minute, hour, day of the month, month and "
        "day of the week, like '30 2 * * 1-5', or @daily"
    )
