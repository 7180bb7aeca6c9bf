"""The schemas of jobs, their attempts and what they wait for."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.fields import JobField
from reactorcide.domain.jobs import JobStatus
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Count, Header, Id, Query, Time

JobCursor = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"})
]


class SubmitHeader(Header):
    """How a submission is made safe to repeat."""

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        # HTTP takes spaces at the ends away.
        pattern=r"^[!-~](?:[ -~]{0,253}[!-~])?$",
        description="The same key and body again, within a day: the job that exists, and no other one.",
    )


def _answer_field(item: JobField) -> Any:
    """Return the type of a field in an answer; one of another source is ``null`` there."""
    about = item.about
    kind = about.json_type or item.type
    if about.answer_schema:
        kind = Annotated[kind, Field(json_schema_extra=dict(about.answer_schema))]
    return kind | None if about.source_type is not None or item.default is None else kind


_FIELDS: dict[str, Any] = {item.json_name: (_answer_field(item), ...) for item in JOB_FIELDS}
_Definition: Any = create_model("_Definition", **_FIELDS)


class JobResponse(_Definition):  # type: ignore[misc]  # the fields of a definition come from their declaration
    """A job. Every key is always there."""

    job_id: Id
    user_id: Id
    status: JobStatus
    created_at: Time
    updated_at: Time
    queued_at: Time | None
    started_at: Time | None
    completed_at: Time | None
    exit_code: int | None
    error: str | None
    attempt: Count
    worker_id: str | None
    corndogs_task_id: str | None
    logs_object_key: str | None
    artifacts_object_key: str | None
    rerun_of: Id | None
    pinned: bool
    log_truncated: bool


class JobListItem(JobResponse):
    """A job in a list."""

    truncated: bool = Field(
        default=False,
        description="Long texts are cut here, for a list has at most 8 MiB; the job itself has them.",
    )


class JobListResponse(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobListItem]
    total: Count
    limit: Count
    offset: Count
    next_cursor: JobCursor | None


class AttemptResponse(BaseModel):
    """One run of a job."""

    attempt: Count
    worker_id: str
    container_id: str | None
    claimed_at: Time
    started_at: Time | None
    completed_at: Time | None
    exit_code: int | None
    error: str | None
    logs_object_key: str
    log_truncated: bool


class AttemptListResponse(BaseModel):
    """All runs of a job, the first one first."""

    attempts: list[AttemptResponse]


class WhyResponse(BaseModel):
    """Why a job stands where it stands; a place (from 1) and a time only where it has one."""

    status: JobStatus
    reason: str
    place: Count | None
    next_try_at: Time | None


class JobPath(BaseModel):
    """Which job."""

    job_id: Id


class JobListQuery(Query):
    """Which jobs, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    cursor: JobCursor | None = Field(
        default=None, description="The `next_cursor` of a page; without `offset`."
    )
    status: list[JobStatus] = Field(default_factory=list)
    queue_name: str | None = Field(default=None, max_length=MAX_FILTER_CHARS)
    source_type: Literal["git", "copy"] | None = None
    name: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="What the name begins with."
    )
    user_id: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Another user's, for admins."
    )
    pinned: bool | None = None


class JobQuery(Query):
    """How long to wait for another status."""

    wait: float = Field(default=0.0, ge=0, le=60, allow_inf_nan=False)
