"""Users, their tokens, and who is calling. Times are Unix milliseconds in UTC."""

from dataclasses import dataclass
from enum import StrEnum

from reactorcide.domain.audit import Actor


class Role(StrEnum):
    """What a user may do."""

    USER = "user"
    """Own jobs and own tokens."""
    ADMIN = "admin"
    """Everybody's jobs too."""


class Scope(StrEnum):
    """What a token may be limited to."""

    JOBS_READ = "jobs:read"
    """See jobs, their logs and artifacts, and the queues."""
    JOBS_WRITE = "jobs:write"
    """Submit jobs; with ``jobs:read``, change those that exist."""
    ADMIN = "admin"
    """What only admins may: everybody's jobs, users, invitations, the audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may submit jobs."""

    user_id: str
    username: str
    email: str | None
    role: Role
    is_active: bool
    created_at_ms: int

    @property
    def is_admin(self) -> bool:
        """Return whether the user sees and touches everybody's jobs."""
        return self.role is Role.ADMIN

    @property
    def is_anonymous(self) -> bool:
        """Return whether nobody knows who it is."""
        return False

    @property
    def actor(self) -> Actor:
        """Return who the audit says it was."""
        return Actor(user_id=self.user_id)


SERVICE_USER = User(
    user_id="00000000-0000-0000-0000-000000000000",
    username="reactorcide",
    email=None,
    role=Role.USER,
    is_active=False,
    created_at_ms=0,
)
"""Whose runs those of projects are that no person starts. It is in no table, so that it cannot sign in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token without its value: only the SHA-256 of that is stored."""

    token_id: str
    user_id: str
    name: str
    created_at_ms: int
    expires_at_ms: int | None
    last_used_at_ms: int | None
    is_active: bool
    scopes: frozenset[Scope] | None = None
    """``None``: whatever its user may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(User):
    """A user as a request shows them: no more than their token allows, and seen at an address."""

    token: Token
    address: str | None
    request_id: str | None

    @property
    def scopes(self) -> frozenset[Scope]:
        """What this call may do: never more than the user's role allows."""
        scopes = frozenset(Scope) if self.token.scopes is None else self.token.scopes
        return scopes if self.role is Role.ADMIN else scopes - {Scope.ADMIN}

    @property
    def is_admin(self) -> bool:
        """Return whether the user is an admin and the token says so, too."""
        return Scope.ADMIN in self.scopes

    @property
    def actor(self) -> Actor:
        """Return who the audit says it was."""
        return Actor(
            user_id=self.user_id,
            token_id=self.token.token_id,
            address=self.address,
            request_id=self.request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous(Caller):
    """Whoever sends a request without a token: they see what is of public projects, and change nothing."""

    @classmethod
    def at(cls, address: str | None, request_id: str | None) -> "Anonymous":
        """Return whoever sends a request from an address."""
        # One for all: together they have as many slots for long answers as one user.
        user_id = "anonymous"
        return cls(
            user_id=user_id,
            username="",
            email=None,
            role=Role.USER,
            is_active=False,
            created_at_ms=0,
            token=Token(
                token_id="",
                user_id=user_id,
                name="",
                created_at_ms=0,
                expires_at_ms=None,
                last_used_at_ms=None,
                is_active=False,
                scopes=frozenset({Scope.JOBS_READ}),
            ),
            address=address,
            request_id=request_id,
        )

    @property
    def is_anonymous(self) -> bool:
        """Return whether nobody knows who it is."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """The right to become a user, once; of its value only the SHA-256 is stored."""

    invitation_id: str
    role: Role
    email: str | None
    created_by: str | None
    """An admin; the invitation is worth nothing once they are none. ``None``: the operator."""
    created_at_ms: int
    expires_at_ms: int
