"""Projects: a repository and who may do what with its runs. Times are Unix milliseconds in UTC."""

import re
from dataclasses import dataclass
from enum import StrEnum

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
MAX_NAME_CHARS = 128
_NAME = re.compile(NAME)


class Visibility(StrEnum):
    """Who sees the runs of a project, beside its members and admins."""

    PRIVATE = "private"
    """Nobody; to others there is no such project."""
    INTERNAL = "internal"
    """Every user of the service."""


class ProjectRole(StrEnum):
    """What a member may do; each role includes those before it."""

    READ = "read"
    """See the project, its runs, their jobs, logs and artifacts."""
    WRITE = "write"
    """Start, cancel and repeat runs."""
    OWNER = "owner"
    """Change the project, its members and its secrets."""

    def includes(self, other: "ProjectRole") -> bool:
        """Return whether a member with this role may do all that ``other`` allows."""
        order = list(ProjectRole)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A repository whose workflows run for its members."""

    project_id: str
    name: str
    """Unique, like ``acme/site``."""
    git_url: str
    """Without credentials."""
    visibility: Visibility
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user with a role in a project."""

    user_id: str
    username: str
    role: ProjectRole


def is_name(text: str) -> bool:
    """Return whether a project may have this name."""
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None
