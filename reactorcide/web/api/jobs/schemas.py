"""The schemas of jobs, their attempts and what they wait for."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from reactorcide.domain.jobs import JobStatus
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Amount, Count, Header, Id, Query, Sha256, Time

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


class JobResponse(BaseModel):
    """A job. Every key is always there."""

    job_id: Id
    user_id: Id
    name: str
    description: str
    status: JobStatus
    source_type: Literal["git", "copy"]
    git_url: str | None
    git_ref: str | None
    source_path: str | None
    runner_image: str
    job_command: str
    job_env_vars: dict[str, str]
    secret_env_vars: list[str]
    queue_name: str
    timeout_seconds: Count
    priority: int
    code_dir: str
    job_dir: str
    cpu_limit: Amount | None
    memory_limit: Count | None
    retries: Count
    artifacts: list[str] | None
    source_id: Sha256 | None
    source_job_id: Id | None
    git_submodules: bool | None
    git_depth: Count | None
    git_tags: bool | None
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
