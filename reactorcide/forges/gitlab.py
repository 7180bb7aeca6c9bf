"""GitLab: https://docs.gitlab.com/user/project/integrations/webhook_events, /api/commits."""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from reactorcide.domain.errors import InvalidInput, Unauthorized
from reactorcide.domain.events import EventName
from reactorcide.domain.forges import (
    CommitStatus,
    ForgeEvent,
    ForgeRepository,
    Ignored,
    StatusState,
)
from reactorcide.domain.http import HttpAnswer, HttpRequest
from reactorcide.forges import events, requests, signatures
from reactorcide.forges.ids import delivery_id
from reactorcide.forges.payload import Headers, Payload, parse
from reactorcide.forges.repositories import answer_problem

_MAX_TEXT_CHARS = 255
_DEVELOPER = 30
"""The access level that may set a commit status."""
_STATES = {StatusState.FAILURE: "failed", StatusState.ERROR: "failed"}
"""States that have another name in GitLab."""
_ALREADY = b"Cannot transition status via"
_ACTIONS = {
    "open": EventName.PULL_REQUEST_OPENED,
    "reopen": EventName.PULL_REQUEST_OPENED,
    "close": EventName.PULL_REQUEST_CLOSED,
    "merge": EventName.PULL_REQUEST_MERGED,
}


class GitLab:
    """See ``Forge``."""

    def verify(
        self, headers: Headers, chunks: Iterable[bytes], secrets: Sequence[str], *, now_s: float
    ) -> None:
        """See ``Forge.verify``; the secret itself, or the newer signature where it is sent."""
        if headers.get("webhook-signature"):
            signatures.check_standard(headers, chunks, secrets, now_s)
        elif token := headers.get("x-gitlab-token"):
            signatures.check_plain(token, secrets)
        else:
            raise Unauthorized("the request has no X-Gitlab-Token; set the project's secret in the webhook")

    def delivery_id(self, headers: Headers) -> str:
        """See ``Forge.delivery_id``."""
        return delivery_id(headers, ["idempotency-key", "webhook-id", "x-gitlab-event-uuid"])

    def event_name(self, headers: Headers) -> str:
        """See ``Forge.event_name``."""
        return headers.get("x-gitlab-event", "")

    def read(self, headers: Headers, body: bytes) -> ForgeEvent | Ignored:
        """See ``Forge.read``."""
        payload = parse(headers, body)
        # System hooks have the same header for all, and an object_kind that may be missing.
        kind = payload.text("object_kind", "event_name")
        if kind in ("push", "tag_push"):
            return _push(payload)
        if kind == "merge_request":
            return _merge_request(payload)
        return Ignored(f"{kind or 'a payload without object_kind'} starts nothing")

    def status_request(self, repository: ForgeRepository, token: str, status: CommitStatus) -> HttpRequest:
        """See ``Forge.status_request``."""
        body = {
            "state": _STATES.get(status.state, status.state.value),
            "name": status.context[:_MAX_TEXT_CHARS],
            "description": status.description[:_MAX_TEXT_CHARS],
        }
        return requests.status(_project_url(repository), _headers(token), status, body)

    def has_accepted(self, answer: HttpAnswer) -> bool:
        """See ``Forge.has_accepted``; GitLab refuses a status that the commit has already."""
        return answer.is_success or (answer.status == 400 and _ALREADY in answer.body)

    def repository_request(self, repository: ForgeRepository, token: str) -> HttpRequest:
        """See ``Forge.repository_request``."""
        return requests.repository(_project_url(repository), _headers(token))

    def token_problem(self, answer: HttpAnswer) -> str | None:
        """See ``Forge.token_problem``."""
        problem = answer_problem(answer)
        level = None if problem else _access_level(answer)
        if level is not None and level < _DEVELOPER:
            return "the token's role in the project is too low; setting a commit status needs Developer"
        return problem


def _access_level(answer: HttpAnswer) -> int | None:
    """Return the highest access level in an answer about a project; ``None`` if it has none."""
    try:
        permissions = answer.json()["permissions"]
        levels = [access["access_level"] for access in permissions.values() if access is not None]
    except (LookupError, TypeError, AttributeError):
        return None
    return max((level for level in levels if isinstance(level, int)), default=None)


def _push(payload: Payload) -> ForgeEvent | Ignored:
    after = payload.sha("after")
    # For an annotated tag ``after`` is its object, and ``checkout_sha`` the commit, or null after a deletion.
    sha = payload.sha("checkout_sha") if after else ""
    commits = [commit for commit in payload.parts("commits") if commit.text("id") == (sha or after)]
    return events.of_ref(
        payload.ref("ref"),
        sha or after,
        before=payload.sha("before"),
        message=commits[0].text("message") if commits else "",
        actor=payload.text("user_username", "user_name"),
        url=payload.part("project").url("web_url"),
        repository=_path(payload),
    )


def _merge_request(payload: Payload) -> ForgeEvent | Ignored:
    about = payload.part("object_attributes")
    number = about.number("iid")
    base_branch = about.ref("target_branch")
    if not number or not base_branch:
        raise InvalidInput("the payload's object_attributes has no iid or no target_branch")
    action = about.text("action")
    name = _ACTIONS.get(action)
    # An update has ``oldrev`` if there are new commits, and the changed ``target_branch`` if the base
    # changed.
    if action == "update" and ("oldrev" in about or "target_branch" in payload.part("changes")):
        name = EventName.PULL_REQUEST_UPDATED
    if name is None:
        return Ignored(f"{action or 'no action'} changes neither the head nor the base of a merge request")
    commit = about.part("last_commit")
    source, target = about.number("source_project_id"), about.number("target_project_id")
    is_over = name in (EventName.PULL_REQUEST_CLOSED, EventName.PULL_REQUEST_MERGED)
    return ForgeEvent(
        name=name,
        ref=events.pull_request_ref(name, f"refs/merge-requests/{number}/head", base_branch),
        sha=events.pull_request_sha(name, head=commit.sha("id"), merged=about.sha("merge_commit_sha")),
        branch=about.ref("source_branch"),
        message="" if is_over else commit.text("message"),
        actor=payload.part("user").text("username", "name"),
        number=number,
        base_branch=base_branch,
        head_url=about.part("source").url("git_http_url", "http_url"),
        is_fork=not source or source != target,
        title=about.text("title"),
        url=about.url("url"),
        repository=_path(payload),
    )


def _path(payload: Payload) -> str:
    return payload.part("project").text("path_with_namespace")


def _project_url(repository: ForgeRepository) -> str:
    return f"{repository.forge_url}/api/v4/projects/{quote(repository.path, safe='')}"


def _headers(token: str) -> dict[str, str]:
    return {"Accept": "application/json", "PRIVATE-TOKEN": token}
