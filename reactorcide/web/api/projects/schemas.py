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
        # An id would be taken for one.
        json_schema_extra={"pattern": f"^(?![0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$){NAME}$"},
    ),
]
_Visibility = Literal["private", "internal", "public"]
_Role = Literal["read", "write", "owner"]


class ProjectFields(Body):
    """What may be set of a project, at its creation or later."""

    visibility: _Visibility | None = Field(
        default=None,
        description=(
            "Who sees the runs: members (`private`, the default), every user (`internal`), or anybody, also "
            "without a token (`public`)."
        ),
    )
    disabled: bool | None = Field(
        default=None, description="Deliveries are kept and start nothing, and nobody starts a run by hand."
    )
    forge: Literal["github", "gitea", "gitlab", "none"] | None = Field(
        default=None,
        description=(
            "Which kind sends the deliveries and gets the statuses; `gitea` is Forgejo and Gogs, too. By "
            "default what the host of `git_url` tells, else `none`."
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
        description="Empty (the default): the one that the repository names.",
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
            "Which start runs: none, those of the repository's own branches (the default; those of forks "
            "wait for approval), or all."
        ),
    )
    allowed_events: list[EventLiteral] | None = Field(
        default=None,
        max_length=20,
        description="The only events whose deliveries start runs; empty (the default): all.",
    )
    max_running: int | None = Field(
        default=None,
        ge=0,
        le=MAX_RUNNING,
        description="Most jobs of the project that are queued or run at once; 0 (the default): no bound.",
    )
    builder: bool | None = Field(
        default=None,
        description="Whether its jobs may have the capability `builder`; only an admin grants it.",
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
            raise InvalidInput("token has characters that no token of a forge has", "token")
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
    """What is to change in a project; at least one field."""

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
        "Empty forgets them; then the key that a server has is trusted at the first clone.",
    )

    @model_validator(mode="after")
    def _check(self) -> "ProjectChange":
        if not self.model_dump(exclude_none=True):
            raise InvalidInput("nothing to change: give one of the fields")
        return self


class MemberRequest(Body):
    """A user and the role to have in a project."""

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
    public: str | None = Field(description="What anybody may see of it: the public half of a key.")
    created_at: Time


class SettingsResponse(Schema):
    """What only owners of a project see."""

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
        description="Why the forge has not taken the last commit status; `null` if it has."
    )
    credentials: list[CredentialResponse]


class ProjectResponse(ProjectListItem):
    """A project."""

    role: ProjectRole | None = Field(description="The caller's; `null` if they are not a member.")
    members: list[MemberResponse] = Field(description="For members and admins; else empty.")
    settings: SettingsResponse | None = Field(description="For owners and admins; else `null`.")


class WebhookSecretResponse(Schema):
    """The secret of a project's webhook, which is shown only here."""

    webhook_url: str
    webhook_secret: str


class DeployKeyResponse(Schema):
    """The SSH key of a project, for clones."""

    public_key: str = Field(description="The forge has to know it, as a deploy key that may only read.")


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
    """What a project lacks."""

    repository: str | None = Field(description="Why the repository cannot be fetched; `null` if it can.")
    token: str | None = Field(
        description="Why the forge is told no commit statuses; `null` if the token may set them, as far as "
        "the forge says."
    )


class StatusResponse(Schema):
    """A commit status: what the forge is to be told, and what it was told last."""

    status_id: Id
    run_id: Id
    sha: str
    context: str
    state: StatusState
    description: str
    created_at: Time
    owed_since: Time | None = Field(description="`null`: the forge has been told, or will not be.")
    failures: Count = Field(description="How often in a row it could not be sent.")
    problem: str | None = Field(description="Why it could not be sent last.")
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
