"""Forges: the signature and format of their deliveries, and their API for commit statuses.

Pure: bytes go in, events and requests come out; nothing here does I/O.
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
        """Return the forge's name of the event; empty if there is none."""

    def read(self, headers: Headers, body: bytes) -> ForgeEvent | Ignored:
        """Return the event of a delivery; raises ``InvalidInput``, and no other error, for any bytes."""

    def status_request(self, repository: ForgeRepository, token: str, status: CommitStatus) -> HttpRequest:
        """Return the request that sets a commit status."""

    def has_accepted(self, answer: HttpAnswer) -> bool:
        """Return whether this answer means that the forge has the status."""

    def repository_request(self, repository: ForgeRepository, token: str) -> HttpRequest:
        """Return the request for a repository's data, to check a token."""

    def token_problem(self, answer: HttpAnswer) -> str | None:
        """Return a sentence that says why a token cannot set statuses, from the answer to that request.

        ``None`` if the forge reports no problem.
        """


FORGES: Mapping[ForgeKind, Forge] = {
    ForgeKind.GITHUB: GitHub(),
    ForgeKind.GITEA: Gitea(),
    ForgeKind.GITLAB: GitLab(),
}
"""Each kind of forge that sends deliveries."""
