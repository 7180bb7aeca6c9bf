"""The schemas of projects and their members."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from reactorcide.domain import images
from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.forges import ForgeKind, StatusState
from reactorcide.domain.projects import (
    FORGE_URL,
    MAX_FORGE_URL_CHARS,
    MAX_KNOWN_HOSTS_CHARS,
    MAX_NAME_CHARS,
    NAME,
    CredentialKind,
    ProjectRole,
    PullRequests,
    Visibility,
)
from reactorcide.web.api.runs.schemas import EventLiteral
from reactorcide.web.api.schemas import (
    MAX_FILTER_CHARS,
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
_GIT_URL = dict(_ABOUT["git_url"].schema)
_GIT_REF = _ABOUT["git_ref"].schema
MAX_TOKEN_CHARS = 4096
MAX_RUNNING = 10_000
_Name = Annotated[
    str,
    Field(
        max_length=MAX_NAME_CHARS,
        # A name like an id would be ambiguous.
        json_schema_extra={"pattern": f"^(?![0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$){NAME}$"},
    ),
]
_Visibility = Literal["private", "internal", "public"]
_Role = Literal["read", "write", "owner"]


class ProjectFields(Body):
    """The settings of a project, at its creation or later."""

    visibility: _Visibility | None = Field(
        default=None,
        description=(
            "Who can see the runs: members (`private`, the default), every user (`internal`), or everyone, "
            "also without a token (`public`)."
        ),
    )
    disabled: bool | None = Field(
        default=None,
        description="Deliveries are stored and start nothing, and no run can be started manually.",
    )
    forge: Literal["github", "gitea", "gitlab", "none"] | None = Field(
        default=None,
        description=(
            "The kind of forge that sends deliveries and gets statuses; `gitea` includes Forgejo and Gogs. "
            "The default depends on the host of `git_url`, else `none`."
        ),
    )
    forge_url: str | None = Field(
        default=None,
        max_length=MAX_FORGE_URL_CHARS,
        description="The start page of a self-hosted forge; empty (the default): the host of `git_url`.",
        json_schema_extra={"pattern": f"^(?:{FORGE_URL})?$"},
    )
    default_branch: str | None = Field(
        default=None,
        max_length=_GIT_REF["maxLength"],
        description="Empty (the default): the branch of the repository's HEAD.",
        json_schema_extra={"pattern": f"^(?:{_GIT_REF['pattern'][1:-1]})?$"},
    )
    default_image: str | None = Field(
        default=None,
        max_length=255,
        description="Of jobs that name none; empty (the default): the service's.",
        json_schema_extra={"pattern": f"^(?:{images.PATTERN})?$"},
    )
    queue: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,128}$")] | None = Field(
        default=None, description="Of jobs that name none; empty (the default): the service's."
    )
    pull_requests: Literal["off", "trusted", "all"] | None = Field(
        default=None,
        description=(
            "The pull requests that start runs: none, the repository's own (the default; those of forks "
            "wait for approval), or all."
        ),
    )
    allowed_events: list[EventLiteral] | None = Field(
        default=None,
        max_length=20,
        description="The events whose deliveries start runs; empty (the default): all.",
    )
    max_running: int | None = Field(
        default=None,
        ge=0,
        le=MAX_RUNNING,
        description="Maximum number of queued and running jobs of the project; 0 (the default): no limit.",
    )
    builder: bool | None = Field(
        default=None,
        description="Whether its jobs may use the capability `builder`; only an admin can grant it.",
    )
    token: str | None = Field(
        default=None,
        max_length=MAX_TOKEN_CHARS,
        description="A token of the forge, for private clones and statuses. Never shown; empty removes it.",
        json_schema_extra={"pattern": "^[!-~]*$"},
    )

    def settings(self) -> dict[str, Any]:
        """Return the settings that are given."""
        return self.model_dump(exclude_none=True, include=set(SETTINGS))

    @model_validator(mode="after")
    def _check_token(self) -> "ProjectFields":
        if not all("!" <= char <= "~" for char in self.token or ""):
            raise InvalidInput("token has characters that a token of a forge cannot have", "token")
        return self


SETTINGS = tuple(name for name in ProjectFields.model_fields if name != "token")


class ProjectRequest(ProjectFields):
    """A project to create; the caller becomes its owner."""

    name: _Name = Field(description="Unique, like `acme/site`.")
    git_url: str = Field(
        description="The repository, with credentials if it needs some.", json_schema_extra=_GIT_URL
    )


_CHANGEABLE = ("name", "git_url", "known_hosts", *ProjectFields.model_fields)


class ProjectChange(ProjectFields):
    """Changes to a project; at least one field."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {name: {"type": "null"} for name in _CHANGEABLE}},
        }
    )

    name: _Name | None = None
    git_url: str | None = Field(default=None, json_schema_extra=_GIT_URL)
    known_hosts: str | None = Field(
        default=None,
        max_length=MAX_KNOWN_HOSTS_CHARS,
        description="Keys of SSH servers, as `ssh-keyscan` prints them, for clones with the deploy key. "
        "Empty removes them; then the key that a server shows at the first clone is trusted.",
    )

    @model_validator(mode="after")
    def _check(self) -> "ProjectChange":
        if not self.model_dump(exclude_none=True):
            raise InvalidInput("nothing to change: give one of the fields")
        return self


class MemberRequest(Body):
    """The role of a user in a project."""

    username: ShortText
    role: _Role = Field(
        description="`read`: see runs; `write`: start, cancel and repeat them; `owner`: change the project."
    )


class MemberResponse(Schema):
    """A member of a project."""

    user_id: Id
    username: str
    role: ProjectRole


class ProjectListItem(Schema):
    """A project in a list."""

    project_id: Id
    name: str
    git_url: str = Field(description="Without credentials.")
    visibility: Visibility
    disabled: bool
    created_at: Time
    updated_at: Time


class CredentialResponse(Schema):
    """A credential of a project, without its value."""

    kind: CredentialKind
    public: str | None = Field(description="The public half of a key.")
    created_at: Time


class SettingsResponse(Schema):
    """The settings of a project that only owners see."""

    forge: ForgeKind
    forge_url: str | None
    default_branch: str | None
    default_image: str | None
    queue: str | None
    pull_requests: PullRequests
    allowed_events: list[str] | None
    max_running: int | None
    builder: bool
    webhook_url: str = Field(
        description="Where the forge sends its deliveries; only the path without `--public-url`."
    )
    status_problem: str | None = Field(
        description="Why the forge has not accepted the last commit status; `null` if it has."
    )
    credentials: list[CredentialResponse]


class ProjectResponse(ProjectListItem):
    """A project."""

    role: ProjectRole | None = Field(
        description="The caller's role; `null` for a caller who is not a member."
    )
    members: list[MemberResponse] = Field(description="Only for members and admins; else empty.")
    settings: SettingsResponse | None = Field(description="Only for owners and admins; else `null`.")


class WebhookSecretResponse(Schema):
    """The secret of a project's webhook, which is shown only here."""

    webhook_url: str
    webhook_secret: str


class DeployKeyResponse(Schema):
    """The SSH key of a project, for clones."""

    public_key: str = Field(description="Add it at the forge as a read-only deploy key.")


class NewProjectResponse(ProjectResponse):
    """A project that was created."""

    webhook_secret: str = Field(description="The forge signs its deliveries with it. Shown only here.")


class ProjectListResponse(Schema):
    """A page of projects, newest first."""

    projects: list[ProjectListItem]
    total: Count
    limit: Count
    next_cursor: Cursor | None


class ProjectCheckResponse(Schema):
    """The problems of a project's credentials."""

    repository: str | None = Field(description="Why the repository cannot be fetched; `null` if it can.")
    token: str | None = Field(
        description="Why the forge gets no commit statuses; `null` if the token can set them, as far as "
        "the forge says."
    )


class StatusResponse(Schema):
    """A commit status: the one to send, and the last sent one."""

    status_id: Id
    run_id: Id
    sha: str
    context: str
    state: StatusState
    description: str
    created_at: Time
    owed_since: Time | None = Field(description="`null`: it was sent, or will not be.")
    failures: Count = Field(description="The number of failures in a row.")
    problem: str | None = Field(description="The reason of the last failure.")
    sent_state: StatusState | None
    sent_description: str | None
    sent_at: Time | None


class StatusListResponse(Schema):
    """A page of commit statuses, newest first."""

    statuses: list[StatusResponse]
    next_cursor: Cursor | None


class StatusListQuery(Query):
    """A page of commit statuses."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")


class ProjectPath(Schema):
    """The id of a project, in the path."""

    project_id: Id


class MemberPath(ProjectPath):
    """The ids of a project and of one of its members, in the path."""

    user_id: Id


class ProjectListQuery(Query):
    """A page of projects."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: Cursor | None = Field(default=None, description="The `next_cursor` of the page before.")
    name: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="Only the project with this name."
    )


class BadgeQuery(Query):
    """The branch of a badge."""

    branch: str | None = Field(
        default=None, max_length=MAX_FILTER_CHARS, description="By default the project's default branch."
    )
