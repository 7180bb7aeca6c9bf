"""The schemas of runs and their nodes."""

from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from reactorcide.domain import named_secrets
from reactorcide.domain.definition import JOB_FIELDS, MAX_VARIABLES, MIN_SECRET_CHARS
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.runs import RunStatus
from reactorcide.domain.variables import MAX_VALUE_BYTES, VARIABLE_NAME
from reactorcide.web.api.schemas import (
    MAX_FILTER_CHARS,
    NO_NUL,
    Body,
    Count,
    Cursor,
    Id,
    Query,
    Schema,
    ShortText,
    Time,
)

_ABOUT = {item.name: item.about for item in JOB_FIELDS}
_MAX_CHANGED_FILES = 10_000

_ShortText = Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)]
EventLiteral = Literal[
    "push",
    "tag_created",
    "pull_request_opened",
    "pull_request_updated",
    "pull_request_closed",
    "pull_request_merged",
    "schedule",
    "manual",
]
_NodeStatus = Literal[
    "waiting",
    "skipped",
    "submitted",
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "submit_failed",
]


class EventRequest(Body):
    """The event of a run; missing fields are taken from the commit, or empty."""

    name: EventLiteral = Field(default="manual")
    branch: _ShortText = Field(default="", description="By default the branch of `git_ref`.")
    tag: _ShortText = ""
    ref: _ShortText = ""
    actor: _ShortText = ""
    number: _ShortText = Field(default="", description="Of a pull request.")
    base_branch: _ShortText = Field(default="", description="Of a pull request.")
    is_fork: bool = Field(
        default=False, description="Whether it is a pull request of a fork, whose run writes no caches."
    )
    message: str = Field(
        default="",
        max_length=4096,
        description="By default the commit's.",
        json_schema_extra={"pattern": NO_NUL},
    )


def _requires(*names: str) -> dict[str, Any]:
    """Return the schema of an object with all of these texts."""
    return {"required": [*names], "properties": {name: {"type": "string"} for name in names}}


_SOURCES = ("project", "git_url", "source_id")
_BELONGS_TO = {"ref": "project", "git_ref": "git_url", "repository": "source_id"}
_NOT_OF_A_PROJECT = ("environment", "secrets")
_WRONG_TOGETHER: list[dict[str, Any]] = [
    {"not": {"anyOf": [_requires(name) for name in _SOURCES]}},
    *(_requires(*pair) for pair in combinations(_SOURCES, 2)),
    *(_requires(name) | {"not": _requires(source)} for name, source in _BELONGS_TO.items()),
    *(
        {
            "required": ["project", name],
            "properties": {"project": {"type": "string"}, name: {"type": "object", "minProperties": 1}},
        }
        for name in _NOT_OF_A_PROJECT
    ),
]
"""The schemas of requests that ``RunRequest`` refuses although each field is valid."""


class RunRequest(Body):
    """A run to start: of a project, of a repository, or of an uploaded source."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": _WRONG_TOGETHER}})  # type: ignore[dict-item]

    git_url: str | None = Field(
        default=None, description=_ABOUT["git_url"].help, json_schema_extra=dict(_ABOUT["git_url"].schema)
    )
    git_ref: str | None = Field(
        default=None, description=_ABOUT["git_ref"].help, json_schema_extra=dict(_ABOUT["git_ref"].schema)
    )
    source_id: str | None = Field(
        default=None,
        pattern=_ABOUT["source_id"].limits["pattern"],
        description="Instead of `git_url`: the id of an uploaded source.",
    )
    project: _ShortText | None = Field(
        default=None, description="Instead of `git_url`: the name or the id of a project."
    )
    ref: str | None = Field(
        default=None,
        description="With `project`: as `git_ref`, of its repository.",
        json_schema_extra=dict(_ABOUT["git_ref"].schema),
    )
    repository: Annotated[_ShortText, Field(min_length=1)] | None = Field(
        default=None, description="The name of an uploaded source; caches are stored under it."
    )
    workflow: _ShortText | None = Field(
        default=None, description="The workflow's id or file; not needed if there is only one."
    )
    jobs: list[ShortText] | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="Run only these jobs of the file, with their needs; the others are skipped.",
    )
    event: EventRequest = Field(default_factory=EventRequest)
    changed_files: list[Annotated[str, StringConstraints(max_length=4096)]] | None = Field(
        default=None,
        max_length=_MAX_CHANGED_FILES,
        description="The files that differ, for `paths`; if missing, `paths` matches always.",
    )
    vars: dict[str, Annotated[str, StringConstraints(max_length=MAX_VALUE_BYTES)]] = Field(
        default_factory=dict, max_length=1000, description="Values that override the file's `vars`."
    )

    environment: dict[str, Annotated[str, StringConstraints(max_length=MAX_VALUE_BYTES)]] = Field(
        default_factory=dict,
        max_length=MAX_VARIABLES,
        description=(
            "Variables of all jobs, which override the file's, and values of `${env:…}`; not with `project`."
        ),
        json_schema_extra={
            "propertyNames": {"pattern": f"^{VARIABLE_NAME.pattern}$"},
            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_BYTES, "pattern": NO_NUL},
        },
    )
    secrets: dict[str, Annotated[str, StringConstraints(max_length=MAX_VALUE_BYTES)]] = Field(
        default_factory=dict,
        max_length=MAX_VARIABLES,
        description=(
            "Values of `${secret:…}` by name, like `pypi:token`; not with `project`, which has its own."
        ),
        json_schema_extra={
            "propertyNames": {
                "pattern": f"^{named_secrets.NAME}$",
                "maxLength": named_secrets.MAX_NAME_CHARS,
            },
            "additionalProperties": {
                "type": "string",
                "minLength": MIN_SECRET_CHARS,
                "maxLength": MAX_VALUE_BYTES,
                "pattern": NO_NUL,
            },
        },
    )

    @model_validator(mode="after")
    def _check(self) -> "RunRequest":
        if [self.git_url, self.source_id, self.project].count(None) != 2:
            raise InvalidInput("give one of project, git_url and source_id", "git_url")
        if self.ref is not None and self.project is None:
            raise InvalidInput("ref belongs to project; git_url has git_ref", "ref")
        if self.git_ref is not None and self.git_url is None:
            raise InvalidInput("git_ref belongs to git_url", "git_ref")
        if self.repository is not None and self.source_id is None:
            raise InvalidInput("repository belongs to source_id: a git_url names its own", "repository")
        if self.project is not None:
            for field in _NOT_OF_A_PROJECT:
                if getattr(self, field):
                    raise InvalidInput(f"{field} cannot be set for a run of a project", field)
        for name, value in self.environment.items():
            if (
                VARIABLE_NAME.fullmatch(name) is None
                or "\0" in value
                or len(value.encode()) > MAX_VALUE_BYTES
            ):
                raise InvalidInput(
                    f"environment: {name[:100]!r} is not a variable name, or its value is longer than "
                    f"{MAX_VALUE_BYTES >> 10} KiB or contains NUL",
                    "environment",
                )
        for name, value in self.secrets.items():
            try:
                named_secrets.check_name(name)
                named_secrets.check_value(value)
            except InvalidInput as exc:
                raise InvalidInput(f"secrets: {name[:100]!r}: {exc}", "secrets") from exc
        return self


class RerunRequest(Body):
    """The part of a run to repeat."""

    only: Literal["failed", "all"] = "all"


class TestCountsResponse(Schema):
    """How many tests there were in JUnit XML files among the artifacts."""

    passed: Count
    failed: Count
    skipped: Count


class NodeResponse(Schema):
    """A node of a run: a job, or one combination of a matrix."""

    name: str
    job: str = Field(description="The name of the job in the file.")
    matrix: dict[str, str]
    needs: list[str] = Field(description="The jobs that must end before it starts.")
    condition: str
    allow_failure: bool
    status: _NodeStatus = Field(description="`waiting`, `skipped`, or the status of its newest job.")
    reason: str | None = Field(description="Why it waits or was skipped, or the error of its newest job.")
    job_id: Id | None = Field(description="Its newest job.")
    jobs: Count = Field(description="The number of jobs that were created for it.")
    tests: TestCountsResponse | None = Field(
        description="Results of its newest job; `null` without any. Failed tests: `GET /jobs/{job_id}/tests`."
    )


class EventResponse(Schema):
    """The event of a run."""

    name: str
    branch: str | None
    tag: str | None
    ref: str | None
    actor: str | None
    number: str | None
    base_branch: str | None
    message: str | None
    project: str | None = Field(description="The name of the run's project when it was started.")


class RunListItem(Schema):
    """A run in a list."""

    run_id: Id
    user_id: Id = Field(description="The user who started it or, in a project, repeated it last.")
    project_id: Id | None
    number: Count = Field(
        description="Its number in its project, or among its user's runs without a project."
    )
    attempt: Count
    workflow: str
    workflow_name: str
    file: str
    status: RunStatus
    reason: str | None = Field(description="Why it waits, failed, was skipped or was cancelled.")
    warnings: list[str]
    pinned: bool = Field(description="Retention removes neither it nor its jobs.")
    trusted: bool = Field(description="False for untrusted code, which gets no secrets and writes no caches.")
    waits_for_approval: bool
    event: EventResponse
    git_url: str | None
    git_ref: str | None
    source_id: str | None
    sha: str | None
    created_at: Time
    updated_at: Time
    completed_at: Time | None


class RunResponse(RunListItem):
    """A run with its nodes, each after its needs."""

    nodes: list[NodeResponse]
    tests: TestCountsResponse | None = Field(description="The sum of all its nodes; `null` without any.")


class RunListResponse(Schema):
    """A page of runs, newest first."""

    runs: list[RunListItem]
    total: Count = Field(description="The number of matching runs.")
    limit: Count
    next_cursor: Cursor | None


class RunPath(Schema):
    """The id of a run, in the path."""

    run_id: Id = Field(description="Or its beginning: at least 8 characters, and not that of another run.")


class RunListQuery(Query):
    """Filters of the runs, and a page of them."""

    limit: int = Field(default=20, ge=1, le=200)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")
    workflow: str | None = Field(default=None, max_length=MAX_FILTER_CHARS)
    branch: str | None = Field(default=None, max_length=MAX_FILTER_CHARS)
    event: str | None = Field(default=None, max_length=MAX_FILTER_CHARS)
    status: RunStatus | None = None
    project: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
        description="Only runs of this project, by its name or id, whoever started them.",
    )
    user_id: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only runs of this user; others for admins."
    )
