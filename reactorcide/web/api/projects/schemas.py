"""The schemas of projects and their members."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reactorcide.domain.definition import JOB_FIELDS
from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.projects import MAX_NAME_CHARS, NAME, ProjectRole, Visibility
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Body, Count, Cursor, Id, Query, ShortText, Time

_GIT_URL = dict({item.name: item.about for item in JOB_FIELDS}["git_url"].schema)
_Name = Annotated[
    str,
    Field(
        max_length=MAX_NAME_CHARS,
        # An id would be taken for one.
        json_schema_extra={"pattern": f"^(?![0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$){NAME}$"},
    ),
]
_Visibility = Literal["private", "internal"]
_Role = Literal["read", "write", "owner"]


class ProjectRequest(Body):
    """A project to create; the caller becomes its owner."""

    name: _Name = Field(description="Unique, like `acme/site`.")
    git_url: str = Field(
        description="The repository, with credentials if it needs some.", json_schema_extra=_GIT_URL
    )
    visibility: _Visibility = Field(
        default="private", description="`private`: for members; `internal`: every user sees the runs."
    )


class ProjectChange(Body):
    """What is to change in a project; at least one field."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {name: {"type": "null"} for name in ("name", "git_url", "visibility")}},
        }
    )

    name: _Name | None = None
    git_url: str | None = Field(default=None, json_schema_extra=_GIT_URL)
    visibility: _Visibility | None = None

    @model_validator(mode="after")
    def _check(self) -> "ProjectChange":
        if self.name is None and self.git_url is None and self.visibility is None:
            raise InvalidInput("nothing to change: give name, git_url or visibility")
        return self


class MemberRequest(Body):
    """A user and the role to have in a project."""

    username: ShortText
    role: _Role = Field(
        description="`read`: see runs; `write`: start, cancel and repeat them; `owner`: change the project."
    )


class MemberResponse(BaseModel):
    """A member of a project."""

    user_id: Id
    username: str
    role: ProjectRole


class ProjectListItem(BaseModel):
    """A project in a list."""

    project_id: Id
    name: str
    git_url: str = Field(description="Without credentials.")
    visibility: Visibility
    created_at: Time
    updated_at: Time


class ProjectResponse(ProjectListItem):
    """A project."""

    role: ProjectRole | None = Field(description="The caller's; `null` if they are no member.")
    members: list[MemberResponse] = Field(description="For members and admins; else empty.")


class ProjectListResponse(BaseModel):
    """A page of projects, newest first."""

    projects: list[ProjectListItem]
    total: Count
    limit: Count
    next_cursor: Cursor | None


class ProjectPath(BaseModel):
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
