"""Users and their tokens. Times are Unix milliseconds in UTC."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a user may do."""

    USER = "user"
    """Own jobs and own tokens."""
    ADMIN = "admin"
    """Everybody's jobs too."""


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
        """Tell whether the user sees and touches everybody's jobs."""
        return self.role is Role.ADMIN


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
