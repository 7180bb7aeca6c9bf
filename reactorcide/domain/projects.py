"""Projects: a repository and who may do what with its runs. Times are Unix milliseconds in UTC."""

import re
from dataclasses import dataclass
from enum import StrEnum

from reactorcide.domain.forges import ForgeKind

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*"
MAX_NAME_CHARS = 128
_NAME = re.compile(NAME)
FORGE_URL = r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]*)*"
"""A regular expression for the start page of a forge."""
MAX_KNOWN_HOSTS_CHARS = 16_384
MAX_FORGE_URL_CHARS = 2048
_FORGE_URL = re.compile(FORGE_URL)
_KNOWN_HOST = re.compile(
    r"(?:@cert-authority |@revoked )?[!-~]+ "
    r"(?:ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+={0,2}(?: [ -~]*)?"
)


class Visibility(StrEnum):
    """Who sees the runs of a project, beside its members and admins."""

    PRIVATE = "private"
    """Nobody; to others there is no such project."""
    INTERNAL = "internal"
    """Every user of the service."""
    PUBLIC = "public"
    """Anybody, also without a token."""


class PullRequests(StrEnum):
    """Which pull requests start runs."""

    OFF = "off"
    """None."""
    TRUSTED = "trusted"
    """Those of branches of the repository itself; those of forks wait for approval."""
    ALL = "all"
    """All, also those of forks."""


class CredentialKind(StrEnum):
    """What a credential of a project is for."""

    WEBHOOK_SECRET = "webhook_secret"  # noqa: S105  # no password
    """The forge signs its deliveries with it."""
    PREVIOUS_WEBHOOK_SECRET = "previous_webhook_secret"  # noqa: S105  # no password
    """The one before, which deliveries may be signed with still."""
    TOKEN = "token"  # noqa: S105  # no password
    """Of the forge: for private clones, and for the statuses of commits."""
    DEPLOY_KEY = "deploy_key"
    """An SSH key for clones; its public half is at the forge."""
    KNOWN_HOSTS = "known_hosts"
    """The keys of SSH servers: given, or those that were seen first. Not secret."""


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
    disabled: bool = False
    """Its deliveries are kept and start nothing, and nobody starts a run by hand."""
    forge: ForgeKind = ForgeKind.NONE
    forge_url: str | None = None
    """The start page of a forge that is self-hosted; ``None``: the host of ``git_url``."""
    default_branch: str | None = None
    """``None``: the one that the repository's HEAD names."""
    default_image: str | None = None
    """Of jobs that name none; ``None``: the service's."""
    queue: str | None = None
    """Of jobs that name none; ``None``: the service's default."""
    pull_requests: PullRequests = PullRequests.TRUSTED
    allowed_events: tuple[str, ...] | None = None
    """The names of the events whose deliveries start runs; ``None``: all."""
    max_running: int | None = None
    """Most jobs that run at once; ``None``: as many as there is room for."""
    builder: bool = False
    """Whether its jobs may build images, with the operator's BuildKit. An admin grants it."""
    created_at_ms: int
    updated_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential of a project, without what is secret of it."""

    kind: CredentialKind
    public: str | None
    """What anybody may see of it: the public half of a key."""
    created_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user with a role in a project."""

    user_id: str
    username: str
    role: ProjectRole


def is_name(text: str) -> bool:
    """Return whether a project may have this name."""
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None


def is_forge_url(text: str) -> bool:
    """Return whether a text may be the start page of a forge."""
    return len(text) <= MAX_FORGE_URL_CHARS and _FORGE_URL.fullmatch(text) is not None


def is_known_hosts(text: str) -> bool:
    """Return whether a text may be the keys of SSH servers, in lines of a ``known_hosts`` file."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return len(text) <= MAX_KNOWN_HOSTS_CHARS and all(_KNOWN_HOST.fullmatch(line) for line in lines)
