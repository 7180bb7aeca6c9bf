"""The schemas of named secrets."""

from typing import Annotated

from pydantic import Field, StringConstraints

from reactorcide.domain.definition import MIN_SECRET_CHARS
from reactorcide.domain.named_secrets import MAX_NAME_CHARS, MAX_RULES, NAME
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.runs.schemas import EventLiteral
from reactorcide.web.api.schemas import Body, Id, Schema, ShortText, Time

_GLOB = (
    r"^(?!(?:[^\x00]*/)?\.{0,2}(?:/|$))"
    r"(?![^\x00]*(?:[^/\x00]\*\*|\*\*[^/\x00]))[^\x00]+$"
)
_Name = Annotated[str, Field(max_length=MAX_NAME_CHARS, pattern=f"^{NAME}$")]
_Glob = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), Field(json_schema_extra={"pattern": _GLOB})
]


class SecretRequest(Body):
    """A secret of a project: its value, and the rules for its use. Missing fields have their defaults."""

    value: str | None = Field(
        default=None,
        description="At most 32 KiB as UTF-8. Never shown again. The value stays if it is left out.",
        json_schema_extra={
            "minLength": MIN_SECRET_CHARS,
            "maxLength": MAX_VALUE_BYTES,
            "pattern": r"^[^\x00]*$",
        },
    )
    events: list[EventLiteral] | None = Field(
        default=None,
        max_length=MAX_RULES,
        description="By default all but `pull_request_opened` and `pull_request_updated`.",
    )
    branches: list[_Glob] | None = Field(
        default=None,
        max_length=MAX_RULES,
        description="Globs of branches, of a pull request its head; by default any branch or tag.",
    )
    workflows: list[ShortText] | None = Field(
        default=None, max_length=MAX_RULES, description="Ids of workflows; by default any."
    )


class SharedSecretRequest(SecretRequest):
    """A secret of the service."""

    projects: list[ShortText] = Field(
        default_factory=list,
        max_length=MAX_RULES,
        description="Names or ids of the projects that may use it; by default none.",
    )


class SecretUseResponse(Schema):
    """The last run of a workflow that used a secret."""

    project_id: Id
    workflow: str
    run_id: Id
    at: Time


class SecretResponse(Schema):
    """A secret without its value."""

    name: str
    project_id: Id | None = Field(description="`null` for a secret of the service.")
    events: list[str] | None
    branches: list[str] | None
    workflows: list[str] | None
    projects: list[str] = Field(description="Of a secret of the service: the projects that may use it.")
    created_at: Time
    updated_at: Time
    last_used_at: Time | None
    uses: list[SecretUseResponse] = Field(description="At most 20 workflows, the last use first.")


class SecretListResponse(Schema):
    """Secrets by name."""

    secrets: list[SecretResponse]


class SharedSecretPath(Schema):
    """The name of a secret, in the path."""

    name: _Name


class SecretPath(ProjectPath):
    """The id of a project and the name of one of its secrets, in the path."""

    name: _Name
