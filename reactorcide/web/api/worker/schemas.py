"""The schemas of the calls of workers on other machines."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from reactorcide.jobs.remote.registry import MIN_SECRET_CHARS
from reactorcide.web.api.schemas import (
    NO_NUL,
    Amount,
    Body,
    Count,
    Header,
    Id,
    Query,
    QueueName,
    Schema,
    ShortText,
)

MAX_FREE = 10_000
_MAX_HELD = 10_000
_MAX_TEXT_CHARS = 1 << 16
_MAX_AGE_MS = 10**12
_Key = Annotated[str, StringConstraints(min_length=36, max_length=36, pattern=NO_NUL)]
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
_Number = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Age = Annotated[int, Field(ge=0, le=_MAX_AGE_MS, description="Milliseconds since it happened.")]
_Text = Annotated[str, StringConstraints(max_length=_MAX_TEXT_CHARS, pattern=NO_NUL)]
# It may quote what a job wrote, and must not keep an attempt from its end: NUL is taken.
_Reason = Annotated[str, StringConstraints(max_length=_MAX_TEXT_CHARS)]


class SessionPath(BaseModel):
    """The id of a worker's session."""

    session_id: str


class AttemptPath(BaseModel):
    """A job, and the number of its attempt."""

    job_id: str
    attempt: _Number


class LeaseHeader(Header):
    """What proves that an attempt is the worker's."""

    lease: str = Field(
        default="", alias="X-Lease-Token", max_length=128, description="The attempt's `lease_token`."
    )


class WorkerRegistration(Body):
    """The registration of a worker."""

    token: str = Field(max_length=128, description="The registration token, which is valid once.")
    secret: str = Field(
        min_length=MIN_SECRET_CHARS,
        max_length=128,
        description="Chosen at random by the worker, which sends it from then on. Only its hash is stored.",
    )


class WorkerRegistrationResponse(Schema):
    """The id of the worker."""

    worker_id: str


class SessionRequest(Body):
    """What a worker says of itself."""

    session_id: _Key = Field(description="A UUID, new for each process; the call may be repeated with it.")
    host: ShortText
    version: ShortText
    protocol: int = Field(ge=1, le=1000, description="The newest version of these calls that it knows.")
    concurrency: int = Field(ge=0, le=MAX_FREE)
    queues: list[QueueName] = Field(max_length=1000, description="Empty: all that it is bound to.")
    lost_after: float = Field(
        ge=1, le=604_800, description="Seconds that it goes on with its jobs without the service."
    )


class SessionResponse(Schema):
    """A session of a worker, and the limits that the service sets."""

    session_id: Id
    worker_id: str
    instance_id: Id = Field(description="The installation; also in `X-Reactorcide-Instance` of each answer.")
    protocol: int = Field(description="The version of these calls to use.")
    lease: Amount = Field(description="Seconds; attempts are to be renewed three times as often.")
    cancel_grace: Amount = Field(description="Seconds between SIGTERM and SIGKILL.")
    max_artifact_bytes: Count
    max_artifacts: Count
    max_log_bytes: Count
    max_cache_bytes: Count


class HeldAttempt(Body):
    """An attempt that a worker has."""

    job_id: _Key
    attempt: _Number
    cancelled: bool = Field(default=False, description="The worker knows that its job is cancelled.")


class NextRequest(Body):
    """A call for the next jobs."""

    free: int = Field(ge=0, le=MAX_FREE, description="The number of further jobs that the worker can run.")
    held: list[HeldAttempt] = Field(
        max_length=_MAX_HELD, description="All attempts that it has; others of its are assigned again."
    )
    wait: float = Field(
        default=0, ge=0, le=60, description="Seconds to hold the call while there is nothing."
    )
    trouble: _Text | None = Field(default=None, description="Why it cannot run jobs at the moment.")
    warm_containers: int = Field(default=0, ge=0, le=MAX_FREE)


class AssignmentResponse(Schema):
    """An attempt of a job, with its secrets. Ages are in milliseconds, `null` for what has not happened."""

    job_id: Id
    attempt: int
    user_id: Id
    by_admin: bool = Field(description="Whether its user is an admin, for whom fewer rules of git apply.")
    run_id: Id | None
    node: str | None
    retries_used: Count
    killed_preparations: Count
    preparation_failures: Count
    container_id: str | None
    container_started_at: str | None
    log_offset: Count
    handing_over_age_ms: Count | None
    started_age_ms: Count | None
    cancelled: bool
    definition: dict[str, Any] = Field(description="The definition of the job, with its secrets.")
    lease_token: str
    lost_after: Amount = Field(description="Seconds that the worker may go on without the service.")


class AttemptKeyResponse(Schema):
    """An attempt."""

    job_id: Id
    attempt: int


class NextResponse(Schema):
    """What a worker is to do."""

    assigned: list[AssignmentResponse]
    cancelled: list[AttemptKeyResponse] = Field(
        description="Attempts that it has and whose job is cancelled."
    )


class AssignmentListResponse(Schema):
    """The attempts of a worker that have not ended."""

    attempts: list[AssignmentResponse]


class RenewResponse(Schema):
    """The state of an attempt whose lease is renewed."""

    cancelled: bool


class LogPieceQuery(Query):
    """Where a piece of a log belongs; the body is the text and then its index."""

    offset: _Bytes = Field(description="Where the text begins in the log: at its end.")
    index_offset: _Bytes = Field(description="Where the bytes of the index begin: at its end.")
    index_bytes: _Bytes = Field(default=0, description="How many bytes at the end of the body are the index.")
    replace: bool = Field(default=False, description="Cut off what is stored after these offsets.")


class LogEndsResponse(Schema):
    """The ends of a log and of its index."""

    log_bytes: Count
    index_bytes: Count


class HandOverRequest(Body):
    """The beginning of the handover of a command."""

    container_id: ShortText
    container_started_at: ShortText
    log_offset: _Bytes
    age_ms: _Age


class StartedRequest(Body):
    """The acknowledgement of a command by its container."""

    age_ms: _Age


class OutputsBody(Body):
    """Outputs for the jobs that need this one; `null` for a value with a secret in it."""

    values: dict[str, str | None]
    variables: dict[str, str | None]


class FinishRequest(Body):
    """The end of an attempt and its job."""

    exit_code: int | None = Field(default=None, ge=-(2**31), le=2**32)
    error: _Reason | None = Field(default=None, description="Absent for a job that is completed.")
    has_artifacts: bool = False
    outputs: OutputsBody | None = None
    log_truncated: bool = False
    log_bytes: _Bytes
    index_bytes: _Bytes


class TryAgainRequest(Body):
    """The end of an attempt whose job is to run again."""

    reason: _Reason
    delay: float = Field(ge=0, le=3600, description="Seconds until the next attempt.")
    exit_code: int | None = Field(default=None, ge=-(2**31), le=2**32)
    retries_used: int | None = Field(default=None, ge=1, le=1000)
    preparation_failures: int | None = Field(default=None, ge=1, le=1000)
    killed_preparations: int | None = Field(default=None, ge=1, le=1000)
    log_truncated: bool = False
    log_bytes: _Bytes
    index_bytes: _Bytes


class ArtifactOfAttemptPath(AttemptPath):
    """A job, the number of its attempt, and the path of an artifact."""

    path: str


class ServiceOfAttemptPath(AttemptPath):
    """A job, the number of its attempt, and the name of one of its services."""

    service: str


class CacheOfAttemptPath(AttemptPath):
    """A job, the number of its attempt, and the id of a cache."""

    cache_id: str


class ArtifactStoredResponse(Schema):
    """The size of an artifact that is stored."""

    size: Count


class ArtifactCopyRequest(Body):
    """Another name for an artifact that is stored."""

    path: _Text
    new_path: _Text


class CacheSpecResponse(Schema):
    """A cache that a job names; see the workflow format."""

    key: list[str]
    paths: list[str]
    restore_keys: list[str]


class GitAccessResponse(Schema):
    """The credentials of a project for its repository."""

    git_url: str
    username: str
    token: str | None
    deploy_key: str | None = Field(description="In OpenSSH's format.")
    known_hosts: str | None


class RunFilesResponse(Schema):
    """What a job gets from its run."""

    problem: str | None = Field(description="Why the job cannot have it, and so fails.")
    variables: dict[str, str]
    has_artifacts: bool = Field(description="Whether there are artifacts of other jobs, to be fetched.")
    ci_sha: str | None
    user: str | None


class InputsResponse(Schema):
    """What a job of a run gets beside its definition."""

    trusted: bool = Field(description="False for the code of a fork's pull request.")
    git_access: GitAccessResponse | None
    caches: list[CacheSpecResponse]
    run_files: RunFilesResponse


class KnownHostsRequest(Body):
    """Keys of servers that were seen for the first time, as lines of a `known_hosts` file."""

    lines: _Text


class CacheLookup(Body):
    """Which cache to look up."""

    number: int = Field(ge=0, le=1000, description="The place in the list of those that the job names.")
    key: _Text


class FoundCacheResponse(Schema):
    """A cache that matches."""

    cache_id: Id
    key: str
    size: Count


class CacheLookupResponse(Schema):
    """The cache to restore, if there is one."""

    cache: FoundCacheResponse | None
    damaged: list[str] = Field(description="The keys of damaged ones, which are removed.")


class ExpectedCacheBody(Body):
    """A cache to be saved when the command has succeeded."""

    key: _Text
    paths: list[_Text] = Field(max_length=1000)


class ExpectedCachesBody(Body):
    """The caches to be saved when the command has succeeded."""

    caches: list[ExpectedCacheBody] = Field(max_length=1000)


class ExpectCachesResponse(Schema):
    """Whether the attempt may save caches."""

    may_save: bool


class ExpectedCacheResponse(Schema):
    """A cache to be saved."""

    key: str
    paths: list[str]


class ExpectedCachesResponse(Schema):
    """The caches to be saved that are not stored yet."""

    caches: list[ExpectedCacheResponse]


class CacheQuery(Query):
    """The cache to store, one of those that the attempt is to save."""

    key_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of its key in UTF-8.")


class CacheStoredResponse(Schema):
    """The size of a stored cache; `null` if there is one with its key by now."""

    size: Count | None
