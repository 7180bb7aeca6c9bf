"""Gitea, Forgejo and Gogs: https://docs.gitea.com/usage/webhooks, and the API document of each server.

Gitea sends the fields of Gogs and GitHub as well as its own, Forgejo those of all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote

from reactorcide.domain.forges import CommitStatus, ForgeEvent, ForgeRepository, Ignored
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.forges import events, requests, signatures
from reactorcide.forges.github import push_problem
from reactorcide.forges.ids import delivery_id, first
from reactorcide.forges.payload import Headers, Payload, parse
from reactorcide.forges.repositories import answer_problem

_DIALECTS = ("gitea", "forgejo", "gogs")
_SIGNATURES = [*((f"x-{name}-signature", "") for name in _DIALECTS), ("x-hub-signature-256", "sha256=")]
_DELIVERIES = [*(f"x-{name}-delivery" for name in _DIALECTS), "x-github-delivery"]
_EVENTS = [*(f"x-{name}-event" for name in _DIALECTS), "x-github-event"]


class Gitea:
    """See ``Forge``."""

    def verify(
        self, headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], *, now_s: float
    ) -> None:
        """See ``Forge.verify``."""
        signatures.check_hex(headers, chunks, secrets, _SIGNATURES)

    def delivery_id(self, headers: Headers) -> str:
        """See ``Forge.delivery_id``."""
        return delivery_id(headers, _DELIVERIES)

    def event_name(self, headers: Headers) -> str:
        """See ``Forge.event_name``."""
        return first(headers, _EVENTS)

    def read(self, headers: Headers, body: bytes) -> ForgeEvent | Ignored:
        """See ``Forge.read``."""
        name = self.event_name(headers)
        payload = parse(headers, body)
        if name == "push":
            return events.push(payload)
        if name in ("pull_request", "pull_request_sync"):
            return events.pull_request(payload)
        if name == "create":
            return _create(payload)
        return Ignored(f"{name or 'a request without X-Gitea-Event'} starts nothing")

    def status_request(self, repository: ForgeRepository, token: str, status: CommitStatus) -> HttpRequest:
        """See ``Forge.status_request``."""
        body = {
            "state": status.state.value,
            "context": status.context,
            "description": status.description,
        }
        return requests.status(_repository_url(repository), _headers(token), status, body)

    def has_accepted(self, answer: HttpAnswer) -> bool:
        """See ``Forge.has_accepted``."""
        return answer.is_success

    def repository_request(self, repository: ForgeRepository, token: str) -> HttpRequest:
        """See ``Forge.repository_request``."""
        return requests.repository(_repository_url(repository), _headers(token))

    def token_problem(self, answer: HttpAnswer) -> str | None:
        """See ``Forge.token_problem``."""
        return answer_problem(answer) or push_problem(answer)


def _create(payload: Payload) -> ForgeEvent | Ignored:
    """Return that a tag was created; the same tag may come as a push, too."""
    if payload.text("ref_type") != "tag":
        return Ignored("create of a branch tells nothing that its push does not")
    tag = payload.ref("ref").removeprefix(events.TAGS)
    sender = payload.part("sender").text("login", "username")
    event = events.of_ref(
        f"{events.TAGS}{tag}", payload.sha("sha"), repository=events.full_name(payload), actor=sender
    )
    return replace(event, is_create=True) if isinstance(event, ForgeEvent) else event


def _repository_url(repository: ForgeRepository) -> str:
    return f"{repository.forge_url}/api/v1/repos/{quote(repository.path)}"


def _headers(token: str) -> dict[str, str]:
    return {"Accept": "application/json", "Authorization": f"token {token}"}
