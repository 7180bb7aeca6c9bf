"""The schemas of users, tokens, invitations and the audit."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from reactorcide.domain.audit import Action
from reactorcide.domain.definition import PRINTABLE
from reactorcide.domain.errors import InvalidInput
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, Body, Count, Id, Query, Schema, ShortText, Time

RoleName = Literal["user", "admin"]
ScopeName = Literal["jobs:read", "jobs:write", "admin"]
AuditCursor = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9]{1,18}$"})]
UserName = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "maxLength": 128, "pattern": f"^{PRINTABLE}+$"})
]
Email = Annotated[str, Field(json_schema_extra={"format": "email", "maxLength": 254})]


class TokenPath(Schema):
    """The id of a token, in the path."""

    token_id: Id


class UserPath(Schema):
    """The id of a user, in the path."""

    user_id: Id


class TokenRequest(Body):
    """A token to create."""

    name: ShortText
    expires_at: Time | None = Field(default=None, description="A time in the future; by default never.")
    scopes: list[ScopeName] | None = Field(
        default=None, min_length=1, description="By default the scopes of the token that creates it."
    )


class TokenResponse(Schema):
    """A token, without its value."""

    token_id: Id
    name: str
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    is_active: bool
    scopes: list[ScopeName] | None = Field(description="`null`: all rights of its user.")


class NewTokenResponse(Schema):
    """A new token with its value, which is shown only once."""

    token_id: Id
    token: str
    name: str
    created_at: Time
    expires_at: Time | None
    scopes: list[ScopeName] | None


class TokenListResponse(Schema):
    """The caller's tokens."""

    tokens: list[TokenResponse]


class UserResponse(Schema):
    """A user."""

    user_id: Id
    username: str
    email: str | None
    role: RoleName
    is_active: bool
    created_at: Time


class UserListResponse(Schema):
    """All users, by name."""

    users: list[UserResponse]


class UserRequest(Body):
    """A user to create."""

    username: UserName
    email: Email | None = None
    role: RoleName = "user"


class UserChange(Body):
    """Changes to a user, at least one. Fields that are left out stay as they are."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {"role": {"type": "null"}, "is_active": {"type": "null"}}},
        }
    )

    role: RoleName | None = None
    is_active: bool | None = Field(default=None, description="`false`: all their tokens are refused.")

    @model_validator(mode="after")
    def _check(self) -> "UserChange":
        if self.role is None and self.is_active is None:
            raise InvalidInput("nothing to change: give role or is_active")
        return self


class InvitationRequest(Body):
    """An invitation to create."""

    role: RoleName = "user"
    email: Email | None = None
    expires_at: Time | None = Field(
        default=None, description="A time in the future; by default in seven days."
    )


class InvitationResponse(Schema):
    """A new invitation with its value, which is shown only once."""

    invitation_id: Id
    invitation: str
    role: RoleName
    email: str | None
    created_at: Time
    expires_at: Time


class LinkResponse(Schema):
    """A new one-time link to the web page, which is shown only once."""

    url: str
    expires_at: Time


class RegisterRequest(Body):
    """A registration with an invitation."""

    invitation: ShortText
    username: UserName
    email: Email | None = Field(default=None, description="By default that of the invitation.")


class RegisterResponse(NewTokenResponse):
    """The new user, with the first token."""

    user: UserResponse


class AuditQuery(Query):
    """Filters of the audit entries, and a page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: AuditCursor | None = Field(default=None, description="The `next_cursor` of the page before.")
    user_id: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
        description="The user who acted; `operator@HOST` for the command line.",
    )
    action: Action | None = None
    subject: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
        description="The id of a job, token, user or invitation.",
    )


class DeedResponse(Schema):
    """An audit entry: who did what, and when."""

    at: Time
    user_id: str
    token_id: Id | None
    address: str | None
    request_id: str | None
    action: Action
    subject: str


class AuditResponse(Schema):
    """A page of audit entries, newest first."""

    deeds: list[DeedResponse]
    total: Count
    limit: Count
    next_cursor: AuditCursor | None
