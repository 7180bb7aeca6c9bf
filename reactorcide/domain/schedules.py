"""Schedules: when runs of a project start by themselves. Times are Unix milliseconds in UTC."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum

from reactorcide.lib.records import record

MAX_NAME_CHARS = 100
NAME = r"[A-Za-z0-9._-]+(?: [A-Za-z0-9._-]+)*"
MAX_CRON_CHARS = 100
MAX_TIMEZONE_CHARS = 64
MAX_SCHEDULES = 100
"""Maximum number of schedules of a project."""
MAX_OCCURRENCES = 20
"""Maximum number of stored occurrences of a schedule."""
_NAME = re.compile(NAME)


class WhenRunning(StrEnum):
    """What happens at a due time while a run of the schedule is unfinished."""

    SKIP = "skip"
    """Nothing starts."""
    QUEUE = "queue"
    """One run starts after that run, even for several due times."""


@record(kw_only=True)
class Schedule:
    """A schedule: when runs of a project start, and of which workflows."""

    schedule_id: str
    project_id: str
    name: str
    """Unique within the project."""
    cron: str
    timezone: str
    branch: str | None = None
    """``None``: the repository's default branch."""
    workflow: str | None = None
    """Its id or file; ``None``: every workflow that names the event ``schedule``."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """In place of ``vars`` in the file."""
    enabled: bool = True
    when_running: WhenRunning = WhenRunning.SKIP
    next_due_at_ms: int | None
    """The next undecided due time; ``None``: the first one from now on."""
    reckoned_at_ms: int
    """The time at which ``next_due_at_ms`` was computed."""
    created_at_ms: int
    updated_at_ms: int


@record(kw_only=True)
class Occurrence:
    """The result of a due time of a schedule."""

    schedule_id: str
    due_at_ms: int
    at_ms: int
    """When that was decided."""
    outcome: str
    run_ids: Sequence[str] = ()


def is_name(text: str) -> bool:
    """Return whether a text is a valid schedule name."""
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None
