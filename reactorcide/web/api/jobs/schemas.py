"""The schemas of jobs, their attempts and why they wait."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.fields import JobField
from reactorcide.domain.jobs import JobStatus
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Count, Cursor, Header, Id, Query, Schema, Time


class SubmitHeader(Header):
    """The key that makes a submission safe to repeat."""

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        # HTTP strips spaces at both ends.
        pattern=r"^[!-~](?:[ -~]{0,253}[!-~])?$",
        description="With the same key and body, sent again within a day, the existing job is returned.",
    )


def _answer_field(item: JobField) -> Any:
    """Return the type of a field in an answer; a field of another source type is ``null``."""
    about = item.about
    kind = about.json_type or item.type
    if about.answer_schema:
        kind = Annotated[kind, Field(json_schema_extra=dict(about.answer_schema))]
    return kind | None if about.source_type is not None or item.default is None else kind


_FIELDS: dict[str, Any] = {item.json_name: (_answer_field(item), ...) for item in JOB_FIELDS}
_Definition: Any = create_model("_Definition", **_FIELDS)


class JobResponse(_Definition):  # type: ignore[misc]  # the fields of a definition come from their declaration
    """A job. Every key is always present."""

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
    run_id: Id | None
    node: str | None
    pinned: bool
    log_truncated: bool


class JobListItem(JobResponse):
    """A job in a list."""

    truncated: bool = Field(
        default=False,
        description="Long texts are cut, because a list has at most 8 MiB; the job itself has them whole.",
    )


class JobListResponse(Schema):
    """A page of jobs, newest first."""

    jobs: list[JobListItem]
    total: Count
    limit: Count
    offset: Count
    next_cursor: Cursor | None


class AttemptResponse(Schema):
    """An attempt: one run of a job."""

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


class AttemptListResponse(Schema):
    """All attempts of a job, oldest first."""

    attempts: list[AttemptResponse]


class WhyResponse(Schema):
    """Why a job waits. The place (from 1) and the time of the next try are `null` if there is none."""

    status: JobStatus
    reason: str
    place: Count | None
    next_try_at: Time | None


class JobPath(Schema):
    """The id of a job, in the path."""

    job_id: Id = Field(description="Or its beginning: at least 8 characters, and not that of another job.")


class JobListQuery(Query):
    """Filters of the jobs, and a page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    cursor: Cursor | None = Field(
        default=None, description="The `next_cursor` of the page before; not together with `offset`."
    )
    status: list[JobStatus] = Field(default_factory=list)
    queue_name: str | None = Field(default=None, max_length=MAX_FILTER_CHARS)
    source_type: Literal["git", "copy"] | None = None
    name: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only jobs whose name begins with this."
    )
    user_id: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only jobs of this user; others for admins."
    )
    run_id: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only jobs of this run."
    )
    pinned: bool | None = None


class JobQuery(Query):
    """How many seconds to wait for the status to change."""

    wait: float = Field(default=0.0, ge=0, le=60, allow_inf_nan=False)
