"""Projects: a repository, its members and their roles. Times are Unix milliseconds in UTC."""

import re
from enum import StrEnum

from reactorcide.domain.forges import ForgeKind
from reactorcide.lib.records import record

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
    """Who can see the runs of a project, besides its members and admins."""

    PRIVATE = "private"
    """Nobody; for others the project does not exist."""
    INTERNAL = "internal"
    """Every user of the service."""
    PUBLIC = "public"
    """Everyone, also without a token."""


class PullRequests(StrEnum):
    """Which pull requests start runs."""

    OFF = "off"
    """None."""
    TRUSTED = "trusted"
    """Those of branches of the repository itself; those of forks wait for approval."""
    ALL = "all"
    """All, also those of forks."""


class CredentialKind(StrEnum):
    """The kind of a project's credential."""

    WEBHOOK_SECRET = "webhook_secret"  # noqa: S105  # no password
    """The forge signs its deliveries with it."""
    PREVIOUS_WEBHOOK_SECRET = "previous_webhook_secret"  # noqa: S105  # no password
    """The previous secret, which is still accepted as a signature."""
    TOKEN = "token"  # noqa: S105  # no password
    """A token of the forge, for private clones and commit statuses."""
    DEPLOY_KEY = "deploy_key"
    """An SSH key for clones; its public half is at the forge."""
    KNOWN_HOSTS = "known_hosts"
    """The keys of SSH servers: set by an owner, or learned at the first connection. Not secret."""


class ProjectRole(StrEnum):
    """The role of a member; each role includes the previous ones."""

    READ = "read"
    """See the project, its runs, their jobs, logs and artifacts."""
    WRITE = "write"
    """Start, cancel and repeat runs."""
    OWNER = "owner"
    """Change the project, its members and its secrets."""

    def includes(self, other: "ProjectRole") -> bool:
        """Return whether this role includes ``other``."""
        order = list(ProjectRole)
        return order.index(self) >= order.index(other)


@record(kw_only=True)
class Project:
    """A repository whose workflows run for its members."""

    project_id: str
    name: str
    """Unique, like ``acme/site``."""
    git_url: str
    """Without credentials."""
    visibility: Visibility
    disabled: bool = False
    """Its deliveries are stored and start nothing, and no run can be started manually."""
    forge: ForgeKind = ForgeKind.NONE
    forge_url: str | None = None
    """The start page of a forge that is self-hosted; ``None``: the host of ``git_url``."""
    default_branch: str | None = None
    """``None``: the branch of the repository's HEAD."""
    default_image: str | None = None
    """Default image of its jobs; ``None``: the service's default."""
    queue: str | None = None
    """Default queue of its jobs; ``None``: the service's default."""
    pull_requests: PullRequests = PullRequests.TRUSTED
    allowed_events: tuple[str, ...] | None = None
    """The names of the events whose deliveries start runs; ``None``: all."""
    max_running: int | None = None
    """Maximum number of jobs that run at once; ``None``: no limit."""
    builder: bool = False
    """Whether its jobs can build images, with the operator's BuildKit. An admin grants it."""
    created_at_ms: int
    updated_at_ms: int


@record(kw_only=True)
class Credential:
    """A credential of a project, without its secret part."""

    kind: CredentialKind
    public: str | None
    """The public half of a key."""
    created_at_ms: int


@record(kw_only=True)
class Member:
    """A user with a role in a project."""

    user_id: str
    username: str
    role: ProjectRole


def is_name(text: str) -> bool:
    """Return whether a text is a valid project name."""
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None


def is_forge_url(text: str) -> bool:
    """Return whether a text is a valid URL of a forge's start page."""
    return len(text) <= MAX_FORGE_URL_CHARS and _FORGE_URL.fullmatch(text) is not None


def is_known_hosts(text: str) -> bool:
    """Return whether a text consists of valid lines of a ``known_hosts`` file."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return len(text) <= MAX_KNOWN_HOSTS_CHARS and all(_KNOWN_HOST.fullmatch(line) for line in lines)
