"""GitHub and GitHub Enterprise Server: https://docs.github.com/en/webhooks, /en/rest/commits/statuses."""

from collections.abc import Iterable, Sequence
from urllib.parse import quote, urlsplit

from reactorcide.domain.forges import CommitStatus, ForgeEvent, ForgeRepository, Ignored
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.forges import events, requests, signatures
from reactorcide.forges.ids import delivery_id
from reactorcide.forges.payload import Headers, Payload, parse
from reactorcide.forges.repositories import answer_problem

_MAX_DESCRIPTION_CHARS = 140
_NEEDED = {"push": "pushes", "pull_request": "pull requests"}


class GitHub:
    """See ``Forge``."""

    def verify(
        self, headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], *, now_s: float
    ) -> None:
        """See ``Forge.verify``."""
        signatures.check_hex(headers, chunks, secrets, [("x-hub-signature-256", "sha256=")])

    def delivery_id(self, headers: Headers) -> str:
        """See ``Forge.delivery_id``."""
        return delivery_id(headers, ["x-github-delivery"])

    def event_name(self, headers: Headers) -> str:
        """See ``Forge.event_name``."""
        return headers.get("x-github-event", "")

    def read(self, headers: Headers, body: bytes) -> ForgeEvent | Ignored:
        """See ``Forge.read``."""
        name = self.event_name(headers)
        payload = parse(headers, body)
        if name == "push":
            return events.push(payload)
        if name == "pull_request":
            return events.pull_request(payload)
        if name == "ping":
            return _ping(payload)
        if name == "create":
            return Ignored("create tells nothing that a push does not")
        return Ignored(f"{name or 'a request without X-GitHub-Event'} starts nothing")

    def status_request(self, repository: ForgeRepository, token: str, status: CommitStatus) -> HttpRequest:
        """See ``Forge.status_request``."""
        body = {
            "state": status.state.value,
            "context": status.context,
            "description": status.description[:_MAX_DESCRIPTION_CHARS],
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


def push_problem(answer: HttpAnswer) -> str | None:
    """Return a sentence if a token cannot push, according to the answer about a repository."""
    try:
        permissions = answer.json()["permissions"]
        may_push = permissions["push"] or permissions["admin"]
    except (LookupError, TypeError):
        # Not every kind of token gets the permissions in the answer.
        return None
    return None if may_push else "the token may only read the repository; setting a commit status needs write"


def _ping(payload: Payload) -> Ignored:
    sent = payload.part("hook").words("events")
    missing = [phrase for name, phrase in _NEEDED.items() if name not in sent and "*" not in sent]
    if not sent or not missing:
        return Ignored("the webhook works")
    return Ignored(f"the webhook works, and sends no {' and no '.join(missing)}")


def _repository_url(repository: ForgeRepository) -> str:
    host = urlsplit(repository.forge_url).hostname
    api = "https://api.github.com" if host == "github.com" else f"{repository.forge_url}/api/v3"
    return f"{api}/repos/{quote(repository.path)}"


def _headers(token: str) -> dict[str, str]:
    return {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }
