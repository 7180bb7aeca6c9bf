"""Users, their tokens, and who is calling. Times are Unix milliseconds in UTC."""

from enum import StrEnum

from reactorcide.domain.audit import Actor
from reactorcide.lib.networks import network_of
from reactorcide.lib.records import record


class Role(StrEnum):
    """The role of a user."""

    USER = "user"
    """Own jobs and own tokens."""
    ADMIN = "admin"
    """The jobs of all users, too."""


class Scope(StrEnum):
    """A scope of a token."""

    JOBS_READ = "jobs:read"
    """Read jobs, their logs and artifacts, and the queues."""
    JOBS_WRITE = "jobs:write"
    """Submit jobs; with ``jobs:read``, change those that exist."""
    ADMIN = "admin"
    """Admin rights: the jobs of all users, users, invitations, the audit."""


@record(kw_only=True)
class User:
    """A user of the service."""

    user_id: str
    username: str
    email: str | None
    role: Role
    is_active: bool
    created_at_ms: int

    @property
    def is_admin(self) -> bool:
        """Return whether the user can see and change the jobs of all users."""
        return self.role is Role.ADMIN

    @property
    def is_anonymous(self) -> bool:
        """Return whether nobody knows who it is."""
        return False

    @property
    def actor(self) -> Actor:
        """Return the actor for audit entries."""
        return Actor(user_id=self.user_id)


SERVICE_USER = User(
    user_id="00000000-0000-0000-0000-000000000000",
    username="reactorcide",
    email=None,
    role=Role.USER,
    is_active=False,
    created_at_ms=0,
)
"""The owner of project runs that no person starts. It is not in the database, so it cannot sign in."""


@record(kw_only=True)
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
    """``None``: all rights of its user."""


@record(kw_only=True)
class Caller(User):
    """The authenticated user of a request, limited by the token, with the client's address."""

    token: Token
    address: str | None
    request_id: str | None

    @property
    def scopes(self) -> frozenset[Scope]:
        """The rights of this request: never more than the user's role allows."""
        scopes = frozenset(Scope) if self.token.scopes is None else self.token.scopes
        return scopes if self.role is Role.ADMIN else scopes - {Scope.ADMIN}

    @property
    def is_admin(self) -> bool:
        """Return whether the user is an admin and the token has the admin scope."""
        return Scope.ADMIN in self.scopes

    @property
    def share(self) -> tuple[str, ...]:
        """Return whose share of the service's slots for long requests this call uses."""
        return (self.user_id,)

    @property
    def actor(self) -> Actor:
        """Return the actor for audit entries."""
        return Actor(
            user_id=self.user_id,
            token_id=self.token.token_id,
            address=self.address,
            request_id=self.request_id,
        )


@record(kw_only=True)
class Anonymous(Caller):
    """A client without a token, which can only read public projects."""

    @classmethod
    def at(cls, address: str | None, request_id: str | None) -> "Anonymous":
        """Return the anonymous caller at an address."""
        # One id for all: together they have as many slots for long requests as one user.
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
    def share(self) -> tuple[str, ...]:
        """Return the share of the client's network within that of everybody without a token."""
        return (self.user_id, network_of(self.address or ""))

    @property
    def is_anonymous(self) -> bool:
        """Return whether nobody knows who it is."""
        return True


@record(kw_only=True)
class Invitation:
    """A single-use right to register; only the SHA-256 of its value is stored."""

    invitation_id: str
    role: Role
    email: str | None
    created_by: str | None
    """The inviting admin; the invitation is void once they are not an admin. ``None``: the operator."""
    created_at_ms: int
    expires_at_ms: int
