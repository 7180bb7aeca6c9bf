"""The schemas of logs and of status changes."""

import re
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.jobs import JobStatus
from reactorcide.web.api.schemas import Count, Header, Id, Query, Time

LOG_POSITION = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,15})")


class LogHeader(Header):
    """Where a follower has read up to, or which bytes are asked for."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The id of the last event that was seen, or `X-Log-Position`: attempt and bytes.",
        json_schema_extra={"pattern": f"^(?:{LOG_POSITION.pattern})?$"},
    )
    byte_range: str | None = Field(
        default=None,
        alias="Range",
        description="One range of bytes of a log that is not followed; what is none of these is ignored.",
    )

    @model_validator(mode="after")
    def _check(self) -> "LogHeader":
        if self.last_event_id and LOG_POSITION.fullmatch(self.last_event_id) is None:
            raise InvalidInput("Last-Event-ID is not like attempt:offset", "Last-Event-ID")
        return self


class EventsHeader(Header):
    """Where a follower has read up to."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The id of the last event that the caller was shown; 0 is before the first. "
        "From admins a number, too, as earlier versions showed them.",
        json_schema_extra={"pattern": "^([0-9]{1,15}|[A-Za-z0-9_-]{64})$"},
    )


class LogQuery(Query):
    """Which part of which log."""

    attempt: int | None = Field(default=None, ge=1)
    tail: int | None = Field(default=None, ge=0, le=10_000_000)
    from_line: int | None = Field(default=None, ge=1, le=2**53, description="From 1 on.")
    lines: int | None = Field(default=None, ge=0, le=2**53, description="At most so many.")
    stream: Literal["stdout", "stderr"] | None = None
    timestamps: bool = Field(default=False, description="The time in RFC 3339 before each line.")
    follow: bool = Field(
        default=False,
        description="On from `Last-Event-ID`, if that is sent; as events where those are accepted.",
    )


class LogEvent(BaseModel):
    """A piece of a log, in the data of a server-sent event."""

    t: Time = Field(description="When it came.")
    stream: Literal["stdout", "stderr"]
    text: str


class LogEnd(BaseModel):
    """How the job of a log ended, in the data of the event `end`; `null` where it is deleted."""

    status: JobStatus | None
    exit_code: int | None
    error: str | None


class JobEvent(BaseModel):
    """A job's change of status, in the data of a server-sent event."""

    job_id: Id
    name: str
    queue_name: str
    status_from: JobStatus | None = Field(alias="from")
    status_to: JobStatus = Field(alias="to")
    attempt: Count
    reason: str | None
    at: Time
