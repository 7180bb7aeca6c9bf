"""Forges: how each signs and writes its deliveries, and how it is told a commit's status.

Nothing here reads, stores or sends: bytes go in, events and requests come out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from reactorcide.domain.forges import (
    CommitStatus,
    ForgeEvent,
    ForgeKind,
    ForgeRepository,
    Ignored,
)
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.forges.gitea import Gitea
from reactorcide.forges.github import GitHub
from reactorcide.forges.gitlab import GitLab
from reactorcide.forges.payload import Headers


class Forge(Protocol):
    """A kind of forge. Names in ``headers`` are in lower case; all calls are thread-safe."""

    def verify(
        self, headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], *, now_s: float
    ) -> None:
        """Raise ``Unauthorized`` unless a delivery is signed with one of these secrets.

        ``chunks`` are the raw bytes of the body, and are read once; ``now_s`` is the Unix time.
        """

    def delivery_id(self, headers: Headers) -> str:
        """Return the id of a delivery, the same when it is sent again; raises ``InvalidInput``."""

    def event_name(self, headers: Headers) -> str:
        """Return what the forge calls the event; empty where it does not say."""

    def read(self, headers: Headers, body: bytes) -> ForgeEvent | Ignored:
        """Return the event that a delivery tells; raises ``InvalidInput``, whatever the bytes are."""

    def status_request(self, repository: ForgeRepository, token: str, status: CommitStatus) -> HttpRequest:
        """Return the request that tells the forge a commit's status."""

    def has_accepted(self, answer: HttpAnswer) -> bool:
        """Return whether, by this answer, the forge has the status that it was told."""

    def repository_request(self, repository: ForgeRepository, token: str) -> HttpRequest:
        """Return the request that asks about a repository, to check a token."""

    def token_problem(self, answer: HttpAnswer) -> str | None:
        """Return in a sentence what keeps a token from setting statuses, by the answer to that request.

        ``None``: nothing does, as far as the forge says.
        """


FORGES: Mapping[ForgeKind, Forge] = {
    ForgeKind.GITHUB: GitHub(),
    ForgeKind.GITEA: Gitea(),
    ForgeKind.GITLAB: GitLab(),
}
"""Each kind of forge that sends deliveries."""
