"""What the API takes and answers: the models that validate are the ones that document."""

import re
from copy import deepcopy
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
from pydantic.config import JsonDict
from pydantic_core import CoreSchema

from reactorcide.domain import globs, images, sizes
from reactorcide.domain.audit import Action
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.ids import is_id
from reactorcide.domain.jobs import ARTIFACTS_DIR, JobStatus
from reactorcide.domain.secrets import LEAST_SECRET_CHARS, REDACTED, guess, secret_userinfo, secret_variables
from reactorcide.web.errors import MOST_DETAILS

_MOST_COMMAND_BYTES = 100 << 10
_MOST_DESCRIPTION_BYTES = 64 << 10
_MOST_VARIABLES = 1000
_MOST_VALUE_BYTES = 32 << 10
_MOST_EXEC_BYTES = 1 << 20
_LEAST_MEMORY_BYTES = 6 << 20
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTAINER_PATH = re.compile(r"/[^\0]*")

_MOST_GLOBS = 100
_MOST_SHOWN_CHARS = 100
_MOST_FILTER_CHARS = 255

_FIELDS_OF = {
    "git": ("git_url", "git_ref", "git_submodules", "git_depth", "git_tags"),
    "copy": ("source_path", "source_id", "source_job_id"),
}

# What code checks, for its own sentence, the document says as a pattern: a regular expression of ECMA-262
# with its flag "u", as JSON Schema has it. Printable is what str.isprintable says is, without the space.
_PRINTABLE = r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"
_WORD = r"\p{L}\p{N}_"
_NO_NUL = r"^[^\x00]*$"
_NO_DOTS = r"(?![^\x00]*/\.{1,2}(?:/|$))"
_CODE_DIR = rf"^(?!/*$)(?!/+job/+artifacts(?:/|$)){_NO_DOTS}/[^\x00]*$"
_JOB_DIR = rf"^(?!/+job/+artifacts/){_NO_DOTS}/[^\x00]*$"
_GLOB = (
    r"^(?!(?:[^\x00]*/)?\.{0,2}(?:/|$))"
    r"(?![^\x00]*(?:[^/\x00]\*\*|\*\*[^/\x00]))[^\x00]+$"
)
_GIT_HOST = rf"(?:\[[0-9A-Fa-f:.]+\]|[{_WORD}.][{_WORD}.-]*)"
_GIT_USER = rf"[{_WORD}.+][{_WORD}.+-]*"
_IN_USERINFO = rf"(?:(?![/?#]){_PRINTABLE})*"
_GIT_URL = (
    r"^(?!.*%(?:[01][0-9A-Fa-f]|7[Ff]))(?:"
    rf"(?:file://)?/{_PRINTABLE}*"
    rf"|(?:https?|git)://(?:{_IN_USERINFO}@)?{_GIT_HOST}(?::[0-9]*)?(?:/{_PRINTABLE}*)?"
    rf"|ssh://(?:{_GIT_USER}(?::{_IN_USERINFO})?@)?{_GIT_HOST}(?::[0-9]*)?/{_PRINTABLE}*"
    rf"|(?!.*://)(?:{_GIT_USER}@)?{_GIT_HOST}:(?!:)(?![^/]*@){_PRINTABLE}+"
    r")$"
)
_GIT_REF = (
    r"^(?!.*(?:[~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)|^[-/.]|[/.]$|^@$))"
    rf"{_PRINTABLE}+$"
)
_ID = r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_MEMORY: JsonDict = {
    "anyOf": [
        {"type": "integer", "minimum": _LEAST_MEMORY_BYTES, "maximum": 2**63 - 1},
        {"type": "string", "pattern": f"^(?:{sizes.PATTERN})$"},
        {"type": "null"},
    ]
}

RoleName = Literal["user", "admin"]
ScopeName = Literal["jobs:read", "jobs:write", "admin"]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255)]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Sha256 = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
Amount = Annotated[float, Field(json_schema_extra={"minimum": 0})]
Count = Annotated[int, Field(json_schema_extra={"minimum": 0})]
JobCursor = Annotated[
    str, Field(json_schema_extra={"pattern": r"^[0-9]{1,15}\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"})
]
AuditCursor = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9]{1,18}$"})]
UserName = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "maxLength": 128, "pattern": f"^{_PRINTABLE}+$"})
]
Email = Annotated[str, Field(json_schema_extra={"format": "email", "maxLength": 254})]


class Body(BaseModel):
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
            if name in schema.get("required", ()):
                continue
            about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
            choices = [choice for choice in field.pop("anyOf", [{}]) if choice != {"type": "null"}]
            if len(choices) == 1:
                # What a field adds to its type.
                choices[0] |= field
            schema["properties"][name] = about | {"anyOf": [*choices, {"type": "null"}]}
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

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """As pydantic's, without ``null``: what is not sent is absent, and no text means ``null``."""
        return _without_null(handler.resolve_ref_schema(handler(core_schema)))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    for field in schema.get("properties", {}).values():
        choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
        if len(choices) == 1:
            del field["anyOf"]
            field.update(choices[0])
        if field.get("default", ...) is None:
            del field["default"]
    return schema


class _Header(_Query):
    """Header fields that mean something to a route."""

    # Others come, too.
    model_config = ConfigDict(extra="ignore")


class SubmitHeader(_Header):
    """How a submission is made safe to repeat."""

    idempotency_key: str | None = Field(
        default=None,
        alias="Idempotency-Key",
        # HTTP takes spaces at the ends away.
        pattern=r"^[!-~](?:[ -~]{0,253}[!-~])?$",
        description="The same key and body again, within a day: the job that exists, and no other one.",
    )


_Glob = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), Field(json_schema_extra={"pattern": _GLOB})
]


LOG_POSITION = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,15})")


class LogHeader(_Header):
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


class EventsHeader(_Header):
    """Where a follower has read up to."""

    last_event_id: str | None = Field(
        default=None,
        alias="Last-Event-ID",
        description="The id of the last event that the caller was shown; 0 is before the first. "
        "From admins a number, too, as earlier versions showed them.",
        json_schema_extra={"pattern": "^([0-9]{1,15}|[A-Za-z0-9_-]{64})$"},
    )


class ArtifactHeader(_Header):
    """Which version the client has."""

    etag: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="The `ETag` of an earlier answer; 304 if it is still so.",
    )


class JobRequest(Body):
    """A job to be run."""

    name: ShortText = Field(json_schema_extra={"pattern": _NO_NUL})
    job_command: str = Field(
        min_length=1,
        description="Run by `/bin/sh -ec` in `job_dir`; at most 100 KiB as UTF-8.",
        json_schema_extra={"maxLength": _MOST_COMMAND_BYTES, "pattern": _NO_NUL},
    )
    source_type: Literal["git", "copy"]
    description: str = Field(
        default="",
        description="At most 64 KiB as UTF-8.",
        json_schema_extra={"maxLength": _MOST_DESCRIPTION_BYTES},
    )
    git_url: str | None = Field(
        default=None,
        description="An http(s), ssh or git URL, `user@host:path`, or a path below a source root.",
        json_schema_extra={"maxLength": 4096, "pattern": _GIT_URL},
    )
    git_ref: str | None = Field(
        default=None,
        description="Branch, tag, full ref or commit; remote HEAD.",
        json_schema_extra={"maxLength": 255, "pattern": _GIT_REF},
    )
    git_submodules: bool | None = Field(
        default=None, description="Whether submodules are fetched as well; true."
    )
    git_depth: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="For `git`: commits of the history that are fetched; 1, and 0 means all.",
    )
    git_tags: bool | None = Field(
        default=None, description="For `git`: whether all tags are fetched as well; false."
    )
    source_path: str | None = Field(
        default=None,
        max_length=4096,
        description="A directory below a source root.",
        json_schema_extra={"minLength": 1, "pattern": _NO_NUL},
    )
    source_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="In place of `source_path`: what an upload answered.",
    )
    source_job_id: str | None = Field(
        default=None,
        description="In place of `source_path`: a job whose artifacts are copied.",
        json_schema_extra={"format": "uuid", "pattern": _ID},
    )
    runner_image: ShortText | None = Field(
        default=None,
        description="`[host[:port]/]name[:tag][@digest]`; the service's default image.",
        json_schema_extra={"pattern": f"^(?:{images.PATTERN})$"},
    )
    job_env_vars: dict[str, str] = Field(
        default_factory=dict,
        description="Values have at most 32 KiB as UTF-8; with `job_command`, all stay below 1 MiB.",
        json_schema_extra={
            "maxProperties": _MOST_VARIABLES,
            "propertyNames": {"pattern": f"^{_VARIABLE_NAME.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": _MOST_VALUE_BYTES, "pattern": _NO_NUL},
        },
    )
    secret_env_vars: list[str] | None = Field(
        default=None,
        description=(
            "Names among `job_env_vars` with secret values, which are empty or have at least "
            f"{LEAST_SECRET_CHARS} characters; those that look it."
        ),
        json_schema_extra={"items": {"type": "string", "pattern": f"^{_VARIABLE_NAME.pattern}$"}},
    )
    queue_name: QueueName = "default"
    timeout_seconds: int = Field(default=3600, ge=1, le=604_800)
    priority: int = Field(default=0, ge=-(2**31), le=2**31 - 1)
    code_dir: str = Field(
        default="/job/src",
        description="Where the source lies in the container.",
        json_schema_extra={"maxLength": 4096, "pattern": _CODE_DIR},
    )
    job_dir: str | None = Field(
        default=None,
        description="Like `code_dir` where it is left out.",
        json_schema_extra={"maxLength": 4096, "pattern": _JOB_DIR},
    )
    cpu_limit: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    memory_limit: int | str | None = Field(
        default=None, description="Bytes, or like `512m`, `2g`; at least `6m`.", json_schema_extra=_MEMORY
    )
    retries: int = Field(
        default=0, ge=0, le=10, description="Runs again after the command failed, timed out or was lost."
    )
    artifacts: list[_Glob] | None = Field(
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
            if re.sub("/+", "/", path).startswith(ARTIFACTS_DIR + "/"):
                raise InvalidInput(f"{field} must not lie in {ARTIFACTS_DIR}", field)
        if self.runner_image is not None and not images.is_image_reference(self.runner_image):
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
                raise InvalidInput(f"job_env_vars: {_shown(name)} is no name for a variable", "job_env_vars")
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
                    f"secret_env_vars: there is no variable {_shown(name)} in job_env_vars", "secret_env_vars"
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
                return sizes.parse_size(self.memory_limit)
            except ValueError as exc:
                raise InvalidInput(f"memory_limit: {exc}", "memory_limit") from exc
        return self.memory_limit


def _shown(text: str) -> str:
    """Return a text of a client's for a sentence, cut where it is long."""
    return repr(text if len(text) <= _MOST_SHOWN_CHARS else f"{text[:_MOST_SHOWN_CHARS]}…")


def job_shapes(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by name the schemas to say ``JobRequest`` with: one of two shapes, told by ``source_type``.

    ``schema`` is that of ``JobRequest`` as pydantic has it, which knows nothing of what holds between fields.
    """
    names = {kind: f"{kind.capitalize()}JobRequest" for kind in _FIELDS_OF}
    whole = {
        "title": schema["title"],
        "description": schema["description"],
        "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in names.values()],
        "discriminator": {
            "propertyName": "source_type",
            "mapping": {kind: f"#/components/schemas/{name}" for kind, name in names.items()},
        },
    }
    shapes: dict[str, dict[str, Any]] = {}
    for kind, name in names.items():
        shape = deepcopy(schema) | {"title": name, "description": f"A job whose source is `{kind}`."}
        fields = shape["properties"]
        fields["source_type"] = {"type": "string", "const": kind}
        for other in _FIELDS_OF.keys() - {kind}:
            for field in _FIELDS_OF[other]:
                fields[field] = {"type": "null", "description": f"Of `{other}`."}
        shapes[name] = shape
    git, copy = shapes[names["git"]], shapes[names["copy"]]
    git["required"].append("git_url")
    url = git["properties"]["git_url"]
    url.update(next(choice for choice in url.pop("anyOf") if choice != {"type": "null"}))
    del url["default"]
    # At most one of them is there.
    one, two, three = _FIELDS_OF["copy"]
    copy["not"] = {
        "anyOf": [
            {"required": list(pair), "properties": {field: {"type": "string"} for field in pair}}
            for pair in ((one, two), (one, three), (two, three))
        ]
    }
    return {"JobRequest": whole, **shapes}


def _is_container_path(path: str) -> bool:
    return (
        len(path) <= 4096
        and _CONTAINER_PATH.fullmatch(path) is not None
        and not any(part in ("..", ".") for part in path.split("/"))
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


class ArtifactResponse(BaseModel):
    """A file that a job left."""

    path: str
    size: Count
    sha256: Sha256
    executable: bool = Field(description="Its owner may run it.")


class ArtifactListResponse(BaseModel):
    """The files that a job left."""

    artifacts: list[ArtifactResponse]
    artifacts_truncated: bool = Field(description="There was more than the service keeps; the log says why.")


class SourceResponse(BaseModel):
    """A source that was uploaded: its id is the SHA-256 of its bytes."""

    source_id: Sha256
    size: Count
    files: Count


class JobPath(BaseModel):
    """Which job."""

    job_id: Id


class ArtifactPath(JobPath):
    """Which artifact of which job."""

    path: str


class SourcePath(BaseModel):
    """Which source."""

    source_id: Sha256


class AssetPath(BaseModel):
    """Which part of the page that shows the API."""

    name: str


class TokenPath(BaseModel):
    """Which token."""

    token_id: Id


class UserPath(BaseModel):
    """Which user."""

    user_id: Id


class NoQuery(_Query):
    """No parameters."""


class JobListQuery(_Query):
    """Which jobs, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    cursor: JobCursor | None = Field(
        default=None, description="The `next_cursor` of a page; without `offset`."
    )
    status: list[JobStatus] = Field(default_factory=list)
    queue_name: str | None = Field(default=None, max_length=_MOST_FILTER_CHARS)
    source_type: Literal["git", "copy"] | None = None
    name: str | None = Field(
        default=None, max_length=_MOST_FILTER_CHARS, description="What the name begins with."
    )
    user_id: str | None = Field(
        default=None, max_length=_MOST_FILTER_CHARS, description="Another user's, for admins."
    )
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


class TokenRequest(Body):
    """A token to be made."""

    name: ShortText
    expires_at: Time | None = Field(default=None, description="In the future; never, where it is left out.")
    scopes: list[ScopeName] | None = Field(
        default=None, min_length=1, description="All that the token has which makes it, where it is left out."
    )


class TokenResponse(BaseModel):
    """A token, without its value."""

    token_id: Id
    name: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    is_active: bool
    scopes: list[ScopeName] | None = Field(description="`null`: whatever its user may.")


class NewTokenResponse(BaseModel):
    """A token with its value, which is shown this once."""

    token_id: Id
    token: str
    name: str
    created_at: Time
    expires_at: Time | None
    scopes: list[ScopeName] | None


class TokenListResponse(BaseModel):
    """The caller's tokens."""

    tokens: list[TokenResponse]


class UserResponse(BaseModel):
    """A user."""

    user_id: Id
    username: str
    email: str | None
    role: RoleName
    is_active: bool
    created_at: Time


class UserListResponse(BaseModel):
    """All users, by name."""

    users: list[UserResponse]


class UserRequest(Body):
    """A user to be made."""

    username: UserName
    email: Email | None = None
    role: RoleName = "user"


class UserChange(Body):
    """What is to be another way; what is left out stays, and not all is left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {"role": {"type": "null"}, "is_active": {"type": "null"}}},
        }
    )

    role: RoleName | None = None
    is_active: bool | None = Field(default=None, description="`false`: no token of theirs is accepted.")

    @model_validator(mode="after")
    def _check(self) -> "UserChange":
        if self.role is None and self.is_active is None:
            raise InvalidInput("say what to change: role or is_active")
        return self


class InvitationRequest(Body):
    """An invitation to be made."""

    role: RoleName = "user"
    email: Email | None = None
    expires_at: Time | None = Field(
        default=None, description="In the future; in seven days, where it is left out."
    )


class InvitationResponse(BaseModel):
    """An invitation with its value, which is shown this once."""

    invitation_id: Id
    invitation: str
    role: RoleName
    email: str | None
    created_at: Time
    expires_at: Time


class RegisterRequest(Body):
    """Somebody who has an invitation."""

    invitation: ShortText
    username: UserName
    email: Email | None = Field(default=None, description="That of the invitation, where it is left out.")


class RegisterResponse(NewTokenResponse):
    """The new user, with the first token."""

    user: UserResponse


class AuditQuery(_Query):
    """Which deeds, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: AuditCursor | None = Field(default=None, description="The `next_cursor` of a page.")
    user_id: str | None = Field(
        default=None,
        max_length=_MOST_FILTER_CHARS,
        description="Who did it; `operator@HOST` for the command line.",
    )
    action: Action | None = None
    subject: str | None = Field(
        default=None,
        max_length=_MOST_FILTER_CHARS,
        description="The id of a job, token, user or invitation.",
    )


class DeedResponse(BaseModel):
    """What somebody did."""

    at: Time
    user_id: str
    token_id: Id | None
    address: str | None
    request_id: str | None
    action: Action
    subject: str


class AuditResponse(BaseModel):
    """A page of what was done, the latest first."""

    deeds: list[DeedResponse]
    total: Count
    limit: Count
    next_cursor: AuditCursor | None


class QueueResponse(BaseModel):
    """What a queue holds, of the jobs that the caller may see."""

    queue_name: str
    waiting: Count
    running: Count
    oldest_wait_seconds: Amount | None


class QueueListResponse(BaseModel):
    """The queues with unfinished jobs."""

    queues: list[QueueResponse]
    truncated: bool = Field(default=False, description="There are more; these are the first by name.")


class WorkerResponse(BaseModel):
    """A worker; of its jobs those that the caller may see."""

    worker_id: str
    host: str
    concurrency: Count
    running_jobs: list[Id]
    last_seen_at: Time


class WorkerListResponse(BaseModel):
    """The workers."""

    workers: list[WorkerResponse]


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


class Verification(BaseModel):
    """What the service makes of the token that was sent, if one was."""

    verified: bool
    user_authenticated: bool
    user_id: Id | None


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
    details: list[ErrorDetail] = Field(default_factory=list, max_length=MOST_DETAILS)
