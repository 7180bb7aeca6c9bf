"""Events of a forge (GitHub, Gitea, GitLab and others), and commit statuses for it."""

from enum import StrEnum

from reactorcide.domain.events import EventName
from reactorcide.lib.records import record


class ForgeKind(StrEnum):
    """A kind of forge, which decides the format of deliveries and of commit statuses."""

    GITHUB = "github"
    GITEA = "gitea"
    """Also Forgejo, and Gogs, which knows no commit statuses."""
    GITLAB = "gitlab"
    NONE = "none"
    """No deliveries and no commit statuses."""


@record(kw_only=True)
class ForgeEvent:
    """An event at a forge, from a delivery. Missing texts are empty. All values are claims of the sender.
    Only ``sha`` and ``ref`` select code, always of the project's own repository.
    """

    name: EventName
    ref: str
    """The full ref of the commit to run, in the project's own repository."""
    sha: str = ""
    """The commit to run, or the object of a tag; empty: the commit of ``ref``."""
    before: str = ""
    """Of a push: the branch's previous commit, which may not exist any more. Empty for a new branch."""
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
    """A new tag was reported by ``create``; the same forge may also report it by ``push``."""


@record
class Ignored:
    """A delivery whose event starts no run."""

    reason: str


@record
class ForgeRepository:
    """A repository at a forge: the URL of the forge's start page, without a slash at its end, and a path."""

    forge_url: str
    path: str
    """Like ``acme/site``."""


class StatusState(StrEnum):
    """The state of a commit status."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@record(kw_only=True)
class CommitStatus:
    """A commit status for a forge; a later one with the same context replaces it."""

    sha: str
    context: str
    state: StatusState
    description: str
    """One sentence, cut to the forge's maximum length."""
    target_url: str | None = None
