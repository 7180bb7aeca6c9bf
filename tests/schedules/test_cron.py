"""Due times, against a clock on the wall that is looked at every minute."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactorcide.domain.errors import InvalidInput
from reactorcide.schedules.cron import Times

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
EVERY = range(60)
CRONS: Sequence[tuple[str, Sequence[int], Sequence[int]]] = (
    ("* * * * *", EVERY, EVERY),
    ("*/15 * * * *", range(0, 60, 15), EVERY),
    ("0 * * * *", [0], EVERY),
    ("@daily", [0], [0]),
    ("30 2 * * *", [30], [2]),
    ("15,45 0-3 * * *", [15, 45], range(4)),
    ("59 23 * * *", [59], [23]),
    ("10 1-3/2 * * *", [10], [1, 3]),
)


def at(text: str) -> int:
    """Return a time in UTC as Unix milliseconds."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def as_text(times_ms: Sequence[int]) -> list[str]:
    return [f"{datetime.fromtimestamp(at_ms / 1000, UTC):%m-%d %H:%M}" for at_ms in times_ms]


def days_of_change(zone: ZoneInfo, first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield the days on which the clocks of a zone are put forward or back."""
    while first < last:
        if first.astimezone(zone).utcoffset() != (first + DAY).astimezone(zone).utcoffset():
            yield first
        first += DAY


def on_the_wall(
    zone: ZoneInfo, minutes: Sequence[int], hours: Sequence[int], first: datetime, last: datetime
) -> list[int]:
    """Return when a clock on the wall comes to a time of the schedule, or passes it: the first time only."""
    latest = first.astimezone(zone).replace(tzinfo=None)
    due = []
    while first < last:
        first += MINUTE
        now = first.astimezone(zone).replace(tzinfo=None)
        is_due = False
        while latest < now:
            latest += MINUTE
            is_due = is_due or (latest.minute in minutes and latest.hour in hours)
        if is_due:
            due.append(round(first.timestamp() * 1000))
    return due


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        # Half an hour.
        ("Australia/Lord_Howe", 2020, 2029),
        # Put back for Ramadan: twice a year, at times that follow the moon.
        ("Africa/Casablanca", 2020, 2029),
        # Never changes, and is 5:45 ahead.
        ("Asia/Kathmandu", 2020, 2029),
        ("Europe/Berlin", 2020, 2029),
        ("America/New_York", 2020, 2029),
        # Two hours.
        ("Antarctica/Troll", 2020, 2029),
        # At midnight, so that the day begins at one.
        ("America/Havana", 2020, 2029),
        ("Asia/Tehran", 2018, 2024),
        # At a minute past midnight.
        ("America/St_Johns", 2005, 2013),
        # Samoa has skipped a whole day at the end of 2011.
        ("Pacific/Apia", 2010, 2014),
    ],
)
def test_each_wall_clock_time_is_due_once(name: str, begin: int, end: int) -> None:
    zone = ZoneInfo(name)
    of_years = [datetime(year, 1, 1, tzinfo=UTC) for year in (begin, end)]
    days = list(days_of_change(zone, of_years[0], of_years[1]))
    # At least one a year, but where there is none at all; then any day will do.
    assert len(days) >= end - begin or not days
    # From a day before, since the zone may be a day ahead.
    for number, day in enumerate(days or of_years):
        first, last = day - DAY, day + 2 * DAY
        # All expressions on some of the days, and some on all of them.
        for cron, minutes, hours in CRONS if number < 2 else CRONS[number % 3 :: 3]:
            expected = on_the_wall(zone, minutes, hours, first, last)
            times = Times(cron, name)
            due = []
            for at_ms in times.after(round(first.timestamp() * 1000)):
                if at_ms > last.timestamp() * 1000:
                    break
                due.append(at_ms)
            assert as_text(due) == as_text(expected), (cron, day)
            # From wherever one looks, the next is the same.
            for probe in range(0, round((last - first) / MINUTE), 67):
                probe_ms = round((first + probe * MINUTE).timestamp() * 1000) + 1
                later = [at_ms for at_ms in expected if at_ms > probe_ms]
                if later:
                    assert times.first_after(probe_ms) == later[0], (cron, day, probe)


def test_documented_cron_examples_hold() -> None:
    # The clock goes from 2:00 to 3:00, and in autumn from 3:00 to 2:00.
    spring = Times("30 2 * * *", "Europe/Berlin").some_after(at("2026-03-28T00:00"), 3)
    assert as_text(spring) == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    autumn = Times("30 2 * * *", "Europe/Berlin").some_after(at("2026-10-24T00:00"), 3)
    assert as_text(autumn) == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]
    # In the hour that comes twice nothing is due again.
    quarters = Times("*/30 * * * *", "Europe/Berlin").some_after(at("2026-10-25T00:00"), 3)
    assert as_text(quarters) == ["10-25 00:30", "10-25 02:00", "10-25 02:30"]
    # Lord Howe: from 2:00 to 2:30.
    half = Times("0,15,30 2 * * *", "Australia/Lord_Howe").some_after(at("2026-10-03T12:00"), 2)
    assert as_text(half) == ["10-03 15:30", "10-04 15:00"]
    # Nothing of what was due the moment before is lost, or comes again.
    assert as_text(Times("@hourly", "UTC").some_after(at("2026-01-01T00:00") - 1, 2)) == [
        "01-01 00:00",
        "01-01 01:00",
    ]
    assert as_text(Times("@hourly", "UTC").some_after(at("2026-01-01T00:00"), 1)) == ["01-01 01:00"]
    assert as_text(Times("0 0 29 2 *", "UTC").some_after(at("2026-01-01T00:00"), 1)) == ["02-29 00:00"]


@pytest.mark.parametrize(
    ("cron", "timezone", "message"),
    [
        ("", "UTC", "'' is not a cron expression"),
        ("* * * *", "UTC", "give minute, hour, day of the month, month and day of the week"),
        # With seconds, which would be due sixty times a minute.
        ("* * * * * *", "UTC", "is not a cron expression"),
        ("61 * * * *", "UTC", "bad minute"),
        ("* 24 * * *", "UTC", "bad hour"),
        ("@reboot", "UTC", "or @daily"),
        ("0 0 31 2 *", "UTC", "bad day-of-month"),
        ("0 0 31 2,4 1#6", "UTC", "bad day-of-week"),
        ("*/0 * * * *", "UTC", "bad minute"),
        ("1" * 200, "UTC", "is not a cron expression"),
        ("@daily", "Mars/Base", "there is no time zone 'Mars/Base'; name one like Europe/Berlin"),
        ("@daily", "../../etc/passwd", "there is no time zone"),
        ("@daily", "Europe", "there is no time zone"),
        ("@daily", "tzdata.zi", "there is no time zone"),
        ("@daily", "", "there is no time zone"),
    ],
)
def test_a_bad_schedule_is_an_error_that_names_the_fault(cron: str, timezone: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Times(cron, timezone)
    assert message in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=120),
        st.lists(st.text("0123456789*/,-#LWSUNMO", min_size=1, max_size=10), min_size=5, max_size=5).map(
            " ".join
        ),
    ),
    st.integers(0, 253_402_300_799_999),
)
def test_any_text_is_parsed_or_refused_at_once(text: str, at_ms: int) -> None:
    start_s = time.monotonic()
    try:
        due = Times(text, "Australia/Lord_Howe").some_after(at_ms, 5)
    except InvalidInput:
        due = []
    assert due == sorted(set(due))
    assert all(item > at_ms for item in due)
    assert time.monotonic() - start_s < 5
