"""The schemas of users, tokens, invitations and the audit."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from reactorcide.domain.audit import Action
from reactorcide.domain.errors import InvalidInput
from reactorcide.web.api.schemas import MAX_FILTER_CHARS, PRINTABLE, Body, Count, Id, Query, ShortText, Time

RoleName = Literal["user", "admin"]
ScopeName = Literal["jobs:read", "jobs:write", "admin"]
AuditCursor = Annotated[str, Field(json_schema_extra={"pattern": "^[0-9]{1,18}$"})]
UserName = Annotated[
    str, Field(json_schema_extra={"minLength": 1, "maxLength": 128, "pattern": f"^{PRINTABLE}+$"})
]
Email = Annotated[str, Field(json_schema_extra={"format": "email", "maxLength": 254})]


class TokenPath(BaseModel):
    """Which token."""

    token_id: Id


class UserPath(BaseModel):
    """Which user."""

    user_id: Id


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


class AuditQuery(Query):
    """Which deeds, and which page of them."""

    limit: int = Field(default=20, ge=1, le=1000)
    cursor: AuditCursor | None = Field(default=None, description="The `next_cursor` of a page.")
    user_id: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
        description="Who did it; `operator@HOST` for the command line.",
    )
    action: Action | None = None
    subject: str | None = Field(
        default=None,
        max_length=MAX_FILTER_CHARS,
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
