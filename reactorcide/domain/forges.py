"""What happens at a forge (GitHub, Gitea, GitLab and others), and what is said to one."""

from dataclasses import dataclass
from enum import StrEnum

from reactorcide.domain.events import EventName


class ForgeKind(StrEnum):
    """A kind of forge: how its deliveries are read, and how it is told a commit's status."""

    GITHUB = "github"
    GITEA = "gitea"
    """Also Forgejo, and Gogs, which knows no commit statuses."""
    GITLAB = "gitlab"
    NONE = "none"
    """It sends no deliveries and is told nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeEvent:
    """An event at a forge, as a delivery tells it. Texts are empty where it does not have them.

    All is what the sender says. Only ``sha`` and ``ref`` lead to code: that of the project's own repository.
    """

    name: EventName
    ref: str
    """The full ref that leads to the commit to run, in the project's own repository."""
    sha: str = ""
    """The commit to run, or a tag's object; empty: what ``ref`` leads to."""
    before: str = ""
    """Of a push, the branch's commit before; it may be gone. Empty for a new branch."""
    branch: str = ""
    """Of a pull request, the head's."""
    tag: str = ""
    message: str = ""
    """Of the commit."""
    actor: str = ""
    """The name of the user who did it."""
    number: int | None = None
    """Of a pull request."""
    base_branch: str = ""
    base_sha: str = ""
    """Of a pull request: a commit of the base branch when the event happened."""
    head_url: str = ""
    """Of a pull request: the URL of the repository that its head is in. Never fetch from there."""
    author: str = ""
    """Of a pull request: the name of the user who opened it."""
    is_fork: bool = False
    """Whether the head of a pull request is in another repository, or in an unknown one."""
    title: str = ""
    """Of a pull request."""
    url: str = ""
    """A page about it, http or https."""
    repository: str = ""
    """The path of the repository at the forge, like ``acme/site``."""
    is_create: bool = False
    """A new tag was told by ``create``; the same forge may tell it by ``push`` as well."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A delivery that tells nothing that starts a run."""

    reason: str


@dataclass(frozen=True, slots=True)
class ForgeRepository:
    """A repository at a forge: the URL of the forge's start page, without a slash at its end, and a path."""

    forge_url: str
    path: str
    """Like ``acme/site``."""


class StatusState(StrEnum):
    """What a commit status says."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitStatus:
    """What a forge is told about a commit; another one with the same context takes its place."""

    sha: str
    context: str
    state: StatusState
    description: str
    """One sentence; a forge gets as much of it as it takes."""
    target_url: str | None = None
