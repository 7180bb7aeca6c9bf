"""The schemas of logs and of status changes."""

import re
from typing import Literal

from pydantic import Field, model_validator

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import JobStatus
from reactorcide.domain.services import NAME as SERVICE_NAME
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Count, Header, Id, Query, Schema, Time

_EVENT_ID = "^([0-9]{1,15}|[A-Za-z0-9_-]{64})$"
LOG_POSITION = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,15})")


class LogHeader(Header):
    """The position that a follower has read up to, or a range of bytes."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The id of the last event received, or the value of `X-Log-Position`: attempt and byte.",
        json_schema_extra={"pattern": f"^(?:{LOG_POSITION.pattern})?$"},
    )
    byte_range: str | None = Field(
        default=None,
        alias="Range",
        description="One range of bytes of a log that is not followed. Other values are ignored.",
    )

    @model_validator(mode="after")
    def _check(self) -> "LogHeader":
        if self.last_event_id and LOG_POSITION.fullmatch(self.last_event_id) is None:
            raise InvalidInput("Last-Event-ID is not of the form attempt:offset", "Last-Event-ID")
        return self


class EventsHeader(Header):
    """The event that a follower has read up to."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The id of the last event received; 0 is before the first. Admins may also send "
        "the numbers of earlier versions.",
        json_schema_extra={"pattern": _EVENT_ID},
    )


class EventsQuery(Query):
    """Which events: the id as in the header, for browsers, whose first request cannot send it."""

    project: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
        description="Only changes of this project, its name or its id, for all who may see its runs. "
        "Without a token: of a public project, and required.",
    )
    after: str | None = Field(
        default=None,
        pattern=_EVENT_ID,
        description="The id of the event to continue after, where `Last-Event-ID` is not sent.",
    )


class LogQuery(Query):
    """The attempt, and the part of its log."""

    attempt: int | None = Field(default=None, ge=1)
    tail: int | None = Field(default=None, ge=0, le=10_000_000)
    from_line: int | None = Field(
        default=None, ge=1, le=2**53, description="First line to return, counted from 1."
    )
    lines: int | None = Field(default=None, ge=0, le=2**53, description="Maximum number of lines.")
    stream: Literal["stdout", "stderr"] | None = None
    timestamps: bool = Field(default=False, description="Put the time (RFC 3339) before each line.")
    service: str | None = Field(
        default=None,
        pattern=f"^{SERVICE_NAME.pattern}$",
        description="The log of this service, stored when the command has ended: its last 1 MiB.",
    )
    follow: bool = Field(
        default=False,
        description="Stream the log as it grows, from `Last-Event-ID` if sent; as events if accepted.",
    )


class LogSearchQuery(Query):
    """What is searched for, and in which part of which attempt's log."""

    text: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Ignores the case of ASCII letters; by default words like `error` and `failed`.",
    )
    attempt: int | None = Field(default=None, ge=1)
    stream: Literal["stdout", "stderr"] | None = None
    from_line: int | None = Field(default=None, ge=1, le=2**53)
    limit: int = Field(default=100, ge=1, le=1000, description="Maximum number of lines.")


class LogMatch(Schema):
    """A line that matches: its number, and its text without colours, at most 400 characters of it."""

    line: int = Field(ge=1)
    text: str


class LogSearchResponse(Schema):
    """The lines that match, in order."""

    matches: list[LogMatch]
    next_line: int | None = Field(
        description="Search from this line on for more; the search ended at `limit`, or after two seconds."
    )


class LogEvent(Schema):
    """A piece of a log, in the data of a server-sent event."""

    t: Time = Field(description="The time at which it was written.")
    stream: Literal["stdout", "stderr"]
    text: str


class LogEnd(Schema):
    """How the job ended, in the data of the event `end`; all `null` if the job was deleted."""

    status: JobStatus | None
    exit_code: int | None
    error: str | None


class JobEvent(Schema):
    """A status change of a job, in the data of a server-sent event."""

    job_id: Id
    name: str
    queue_name: str
    status_from: JobStatus | None = Field(alias="from")
    status_to: JobStatus = Field(alias="to")
    attempt: Count
    reason: str | None
    at: Time
    run_id: Id | None
    node: str | None


class RunEvent(Schema):
    """A status change of a run, or of a `node` without a job event: the data of an event `run` or `node`."""

    run_id: Id
    number: Count
    workflow: str
    node: str | None
    status_from: str | None = Field(alias="from")
    status_to: str = Field(alias="to")
    attempt: Count
    reason: str | None
    at: Time
