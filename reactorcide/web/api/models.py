"""What the API takes and answers: the models that validate are the ones that document."""

import re
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema

from reactorcide.domain import globs
from reactorcide.domain.audit import Action
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.ids import is_id
from reactorcide.domain.images import is_image_reference
from reactorcide.domain.jobs import ARTIFACTS_DIR, JobStatus
from reactorcide.domain.secrets import LEAST_SECRET_CHARS, REDACTED, guess, secret_userinfo, secret_variables
from reactorcide.domain.sizes import parse_size

_MOST_COMMAND_BYTES = 100 << 10
_MOST_DESCRIPTION_BYTES = 64 << 10
_MOST_VARIABLES = 1000
_MOST_VALUE_BYTES = 32 << 10
_MOST_EXEC_BYTES = 1 << 20
_LEAST_MEMORY_BYTES = 6 << 20
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTAINER_PATH = re.compile(r"/[^\0]*")

_MOST_GLOBS = 100

_FIELDS_OF = {
    "git": ("git_url", "git_ref", "git_submodules"),
    "copy": ("source_path", "source_id", "source_job_id"),
}

RoleName = Literal["user", "admin"]
ScopeName = Literal["jobs:read", "jobs:write", "admin"]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255)]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


class _Body(BaseModel):
    """A JSON object: unknown fields are refused, nothing is coerced, ``null`` means absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            # What is unknown stays, to be refused.
            return {
                name: value
                for name, value in data.items()
                if value is not None or name not in cls.model_fields
            }
        return data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """As pydantic's, with ``null`` for each field that may be absent."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, field in schema["properties"].items():
            if name not in schema.get("required", ()) and "anyOf" not in field:
                about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
                schema["properties"][name] = about | {"anyOf": [field, {"type": "null"}]}
        return schema


class _Query(BaseModel):
    """A query string: unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    @cache
    def model_json_schema(  # type: ignore[override]  # a cached function has no signature
        cls, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As pydantic's; kept, for it is asked for at every request and takes longer than all the rest."""
        return super().model_json_schema(*args, **kwargs)


class SubmitHeader(BaseModel):
    """How a submission is made safe to repeat."""

    # Other headers come, too.
    model_config = ConfigDict(extra="ignore")

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        pattern=r"^[ -~]{1,255}$",
        description="The same key and body again, within a day: the job that exists, and no other one.",
    )

    @classmethod
    @cache
    def model_json_schema(  # type: ignore[override]  # a cached function has no signature
        cls, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """As pydantic's; kept, as that of a query is."""
        return super().model_json_schema(*args, **kwargs)


class JobRequest(_Body):
    """A job to be run."""

    name: ShortText
    job_command: str = Field(min_length=1, description="Run by `/bin/sh -ec` in `job_dir`.")
    source_type: Literal["git", "copy"]
    description: str = ""
    git_url: str | None = Field(default=None, description="Required for `git`.")
    git_ref: str | None = Field(default=None, description="Branch, tag, full ref or commit; remote HEAD.")
    git_submodules: bool | None = Field(
        default=None, description="For `git`: whether submodules are fetched as well; true."
    )
    source_path: str | None = Field(
        default=None, max_length=4096, description="For `copy`: a directory below a source root."
    )
    source_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="For `copy`, in place of `source_path`: what an upload answered.",
    )
    source_job_id: str | None = Field(
        default=None, description="For `copy`, in place of `source_path`: a job whose artifacts are copied."
    )
    runner_image: ShortText | None = None
    job_env_vars: dict[str, str] = Field(default_factory=dict)
    secret_env_vars: list[str] | None = Field(
        default=None, description="Names among `job_env_vars` with secret values; those that look it."
    )
    queue_name: QueueName = "default"
    timeout_seconds: int = Field(default=3600, ge=1, le=604_800)
    priority: int = Field(default=0, ge=-(2**31), le=2**31 - 1)
    code_dir: str = "/job/src"
    job_dir: str | None = Field(default=None, description="Like `code_dir` where it is left out.")
    cpu_limit: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    memory_limit: int | str | None = Field(default=None, description="Bytes, or like `512m`, `2g`.")
    retries: int = Field(
        default=0, ge=0, le=10, description="Runs again after the command failed, timed out or was lost."
    )
    artifacts: list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]] | None = Field(
        default=None,
        max_length=_MOST_GLOBS,
        description="Globs of what is kept of `/job/artifacts`: `*` within a name, `**` for any directories.",
    )

    @model_validator(mode="after")
    def _check(self) -> "JobRequest":
        # An InvalidInput passes through pydantic as it is, and so can name its field.
        self._check_source()
        self._check_sizes()
        self._check_secrets()
        for field in ("code_dir", "job_dir"):
            path = getattr(self, field)
            if path is not None and not _is_container_path(path):
                raise InvalidInput(f"{field} must be an absolute path in the container, without '..'", field)
        if self.code_dir.rstrip("/") == "":
            raise InvalidInput("code_dir must not be the container's root", "code_dir")
        # The artifacts begin empty: what lay there from the start could not be told from what was left.
        for field, path in (("code_dir", self.code_dir + "/"), ("job_dir", self.job_dir or "/")):
            if path.startswith(ARTIFACTS_DIR + "/"):
                raise InvalidInput(f"{field} must not lie in {ARTIFACTS_DIR}", field)
        if self.runner_image is not None and not is_image_reference(self.runner_image):
            raise InvalidInput("runner_image is no image reference", "runner_image")
        for glob in self.artifacts or ():
            problem = globs.problem(glob)
            if problem is not None:
                raise InvalidInput(f"artifacts: {glob!r} {problem}", "artifacts")
        memory_limit_bytes = self.memory_limit_bytes
        if memory_limit_bytes is not None and not _LEAST_MEMORY_BYTES <= memory_limit_bytes < 2**63:
            raise InvalidInput("memory_limit must be at least 6m", "memory_limit")
        return self

    def _check_source(self) -> None:
        if self.source_type == "git" and self.git_url is None:
            raise InvalidInput("git_url is required where source_type is git", "git_url")
        other = "copy" if self.source_type == "git" else "git"
        for field in _FIELDS_OF[other]:
            if getattr(self, field) is not None:
                raise InvalidInput(
                    f"{field} belongs to source_type {other}, not to {self.source_type}", field
                )
        if self.source_path is not None and "\0" in self.source_path:
            raise InvalidInput("source_path must not contain NUL", "source_path")
        given = [field for field in _FIELDS_OF["copy"] if getattr(self, field) is not None]
        if len(given) > 1:
            raise InvalidInput(f"give one of {', '.join(_FIELDS_OF['copy'])}, not several", given[1])
        if self.source_job_id is not None and not is_id(self.source_job_id):
            raise InvalidInput("source_job_id is no id of a job", "source_job_id")

    def _check_sizes(self) -> None:
        if "\0" in self.name:
            # It becomes a variable in the container.
            raise InvalidInput("name must not contain NUL", "name")
        command_bytes = len(self.job_command.encode())
        if "\0" in self.job_command:
            raise InvalidInput("job_command must not contain NUL", "job_command")
        if command_bytes > _MOST_COMMAND_BYTES:
            raise InvalidInput("job_command is longer than 100 KiB", "job_command")
        if len(self.description.encode()) > _MOST_DESCRIPTION_BYTES:
            raise InvalidInput("description is longer than 64 KiB", "description")
        if len(self.job_env_vars) > _MOST_VARIABLES:
            raise InvalidInput(f"job_env_vars has more than {_MOST_VARIABLES} variables", "job_env_vars")
        total_bytes = command_bytes
        for name, value in self.job_env_vars.items():
            if _VARIABLE_NAME.fullmatch(name) is None:
                raise InvalidInput(f"job_env_vars: {name!r} is no name for a variable", "job_env_vars")
            value_bytes = len(value.encode())
            if value_bytes > _MOST_VALUE_BYTES or "\0" in value:
                raise InvalidInput(
                    f"job_env_vars: the value of {name} is longer than 32 KiB or contains NUL", "job_env_vars"
                )
            total_bytes += len(name) + value_bytes + 2
        if total_bytes >= _MOST_EXEC_BYTES:
            raise InvalidInput("job_env_vars and job_command together must stay below 1 MiB", "job_env_vars")

    def _check_secrets(self) -> None:
        for name in self.secret_env_vars or ():
            if name not in self.job_env_vars:
                raise InvalidInput(
                    f"secret_env_vars: there is no variable {name!r} in job_env_vars", "secret_env_vars"
                )
            if 0 < len(self.job_env_vars[name]) < LEAST_SECRET_CHARS:
                raise InvalidInput(
                    f"secret_env_vars: the value of {name} is shorter than {LEAST_SECRET_CHARS} characters; "
                    "replacing it in the log would make that unreadable",
                    "secret_env_vars",
                )
        for name, value in secret_variables(self.job_env_vars, self.secret_names).items():
            if value == REDACTED:
                raise InvalidInput(
                    f"job_env_vars: the value of {name} is {REDACTED}, as the service shows a secret; "
                    "send the secret itself",
                    "job_env_vars",
                )
        if self.git_url is not None and REDACTED in (secret_userinfo(self.git_url) or ""):
            raise InvalidInput(
                f"git_url has {REDACTED} in it, as the service shows credentials; send the real ones",
                "git_url",
            )

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The variables that are secret: those listed, or else those that look it."""
        if self.secret_env_vars is None:
            return guess(self.job_env_vars)
        return tuple(dict.fromkeys(self.secret_env_vars))

    @property
    def memory_limit_bytes(self) -> int | None:
        """The limit in bytes."""
        if isinstance(self.memory_limit, str):
            try:
                return parse_size(self.memory_limit)
            except ValueError as exc:
                raise InvalidInput(f"memory_limit: {exc}", "memory_limit") from exc
        return self.memory_limit


def _is_container_path(path: str) -> bool:
    return (
        len(path) <= 4096
        and _CONTAINER_PATH.fullmatch(path) is not None
        and not any(part in ("..", ".") for part in path.split("/"))
    )


class JobResponse(BaseModel):
    """A job. Every key is always there."""

    job_id: str
    user_id: str
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
    timeout_seconds: int
    priority: int
    code_dir: str
    job_dir: str
    cpu_limit: float | None
    memory_limit: int | None
    retries: int
    artifacts: list[str] | None
    source_id: str | None
    source_job_id: str | None
    git_submodules: bool | None
    created_at: str
    updated_at: str
    queued_at: str | None
    started_at: str | None
    completed_at: str | None
    exit_code: int | None
    error: str | None
    attempt: int
    worker_id: str | None
    corndogs_task_id: str | None
    logs_object_key: str | None
    artifacts_object_key: str | None
    rerun_of: str | None
    pinned: bool
    log_truncated: bool


class JobListResponse(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobResponse]
    total: int
    limit: int
    offset: int
    next_cursor: str | None


class AttemptResponse(BaseModel):
    """One run of a job."""

    attempt: int
    worker_id: str
    container_id: str | None
    claimed_at: str
    started_at: str | None
    completed_at: str | None
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
    place: int | None
    next_try_at: str | None


class ArtifactResponse(BaseModel):
    """A file that a job left."""

    path: str
    size: int
    sha256: str


class ArtifactListResponse(BaseModel):
    """The files that a job left."""

    artifacts: list[ArtifactResponse]
    artifacts_truncated: bool = Field(description="There was more than the service keeps; the log says why.")


class SourceResponse(BaseModel):
    """A source that was uploaded: its id is the SHA-256 of its bytes."""

    source_id: str
    size: int
    files: int


class JobPath(BaseModel):
    """Which job."""

    job_id: str


class ArtifactPath(JobPath):
    """Which artifact of which job."""

    path: str


class SourcePath(BaseModel):
    """Which source."""

    source_id: str


class AssetPath(BaseModel):
    """Which part of the page that shows the API."""

    name: str


class TokenPath(BaseModel):
    """Which token."""

    token_id: str


class UserPath(BaseModel):
    """Which user."""

    user_id: str


class NoQuery(_Query):
    """No parameters."""


class JobListQuery(_Query):
    """Which jobs, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    cursor: str | None = Field(default=None, max_length=200)
    status: list[JobStatus] = Field(default_factory=list)
    queue_name: str | None = None
    source_type: Literal["git", "copy"] | None = None
    name: str | None = Field(default=None, description="What the name begins with.")
    user_id: str | None = Field(default=None, description="For admins.")
    pinned: bool | None = None


class JobQuery(_Query):
    """How long to wait for another status."""

    wait: float = Field(default=0.0, ge=0, le=60, allow_inf_nan=False)


class LogQuery(_Query):
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


class TokenRequest(_Body):
    """A token to be made."""

    name: ShortText
    expires_at: str | None = Field(default=None, description="RFC 3339; never, where it is left out.")
    scopes: list[ScopeName] | None = Field(
        default=None, min_length=1, description="All that the token has which makes it, where it is left out."
    )


class TokenResponse(BaseModel):
    """A token, without its value."""

    token_id: str
    name: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    is_active: bool
    scopes: list[ScopeName] | None = Field(description="`null`: whatever its user may.")


class NewTokenResponse(BaseModel):
    """A token with its value, which is shown this once."""

    token_id: str
    token: str
    name: str
    created_at: str
    expires_at: str | None
    scopes: list[ScopeName] | None


class TokenListResponse(BaseModel):
    """The caller's tokens."""

    tokens: list[TokenResponse]


class UserResponse(BaseModel):
    """A user."""

    user_id: str
    username: str
    email: str | None
    role: RoleName
    is_active: bool
    created_at: str


class UserListResponse(BaseModel):
    """All users, by name."""

    users: list[UserResponse]


class UserRequest(_Body):
    """A user to be made."""

    username: str
    email: str | None = None
    role: RoleName = "user"


class UserChange(_Body):
    """What is to be another way; what is left out stays."""

    role: RoleName | None = None
    is_active: bool | None = Field(default=None, description="`false`: no token of theirs is accepted.")

    @model_validator(mode="after")
    def _check(self) -> "UserChange":
        if self.role is None and self.is_active is None:
            raise InvalidInput("say what to change: role or is_active")
        return self


class InvitationRequest(_Body):
    """An invitation to be made."""

    role: RoleName = "user"
    email: str | None = None
    expires_at: str | None = Field(default=None, description="RFC 3339; seven days, where it is left out.")


class InvitationResponse(BaseModel):
    """An invitation with its value, which is shown this once."""

    invitation_id: str
    invitation: str
    role: RoleName
    email: str | None
    created_at: str
    expires_at: str


class RegisterRequest(_Body):
    """Somebody who has an invitation."""

    invitation: ShortText
    username: str
    email: str | None = Field(default=None, description="That of the invitation, where it is left out.")


class RegisterResponse(NewTokenResponse):
    """The new user, with the first token."""

    user: UserResponse


class AuditQuery(_Query):
    """Which deeds, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=200)
    user_id: str | None = Field(default=None, description="Who did it; `operator@HOST` for the command line.")
    action: Action | None = None
    subject: str | None = Field(default=None, description="The id of a job, token, user or invitation.")


class DeedResponse(BaseModel):
    """What somebody did."""

    at: str
    user_id: str
    token_id: str | None
    address: str | None
    request_id: str | None
    action: Action
    subject: str


class AuditResponse(BaseModel):
    """A page of what was done, the latest first."""

    deeds: list[DeedResponse]
    total: int
    limit: int
    next_cursor: str | None


class QueueResponse(BaseModel):
    """What a queue holds, of the jobs that the caller may see."""

    queue_name: str
    waiting: int
    running: int
    oldest_wait_seconds: float | None


class QueueListResponse(BaseModel):
    """The queues with unfinished jobs."""

    queues: list[QueueResponse]


class WorkerResponse(BaseModel):
    """A worker; of its jobs those that the caller may see."""

    worker_id: str
    host: str
    concurrency: int
    running_jobs: list[str]
    last_seen_at: str


class WorkerListResponse(BaseModel):
    """The workers."""

    workers: list[WorkerResponse]


class Verification(BaseModel):
    """What the service makes of the token that was sent, if one was."""

    verified: bool
    user_authenticated: bool
    user_id: str | None


class HealthResponse(BaseModel):
    """The service answers."""

    status: Literal["OK"]
    version: str
    verification: Verification


class ReadyResponse(BaseModel):
    """Whether each part works: `ok`, or a sentence."""

    checks: dict[str, str]
    ages_s: dict[str, float | None]
    """How many seconds ago each was found; null where nothing has been found yet."""


class ErrorDetail(BaseModel):
    """A field to blame."""

    field: str
    message: str


class ErrorResponse(BaseModel):
    """What went wrong, in a word and in a sentence; `details` only where fields are to blame."""

    error: str
    message: str
    details: list[ErrorDetail] = Field(default_factory=list)
