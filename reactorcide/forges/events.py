"""Parsing events of GitHub, Gitea, Forgejo and Gogs, which have nearly the same format."""

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.events import EventName
from reactorcide.domain.forges import ForgeEvent, Ignored
from reactorcide.forges.payload import Payload

BRANCHES = "refs/heads/"
TAGS = "refs/tags/"

_OPENED = ("opened", "reopened")
_NEW_HEAD = ("synchronize", "synchronized")


def of_ref(
    ref: str,
    sha: str,
    *,
    repository: str,
    before: str = "",
    message: str = "",
    actor: str = "",
    url: str = "",
) -> ForgeEvent | Ignored:
    """Return the event name for a branch or tag that is now at a commit; an empty commit: it was deleted."""
    is_tag = ref.startswith(TAGS)
    name = ref.removeprefix(TAGS if is_tag else BRANCHES)
    if name in ("", ref):
        return Ignored(f"{ref or 'nothing'} was pushed, which is neither a branch nor a tag")
    if not sha:
        return Ignored("tag deleted" if is_tag else "branch deleted")
    return ForgeEvent(
        name=EventName.TAG_CREATED if is_tag else EventName.PUSH,
        ref=ref,
        sha=sha,
        before="" if is_tag else before,
        branch="" if is_tag else name,
        tag=name if is_tag else "",
        message=message,
        actor=actor,
        url=url,
        repository=repository,
    )


def push(payload: Payload) -> ForgeEvent | Ignored:
    """Return the event of a push. The object of an annotated tag is not its commit: git resolves that."""
    after = payload.sha("after")
    head = payload.part("head_commit")
    message = head.text("message")
    if not message:
        commits = [commit for commit in payload.parts("commits") if commit.text("id") == after]
        message = commits[0].text("message") if commits else ""
    return of_ref(
        payload.ref("ref"),
        after,
        before=payload.sha("before"),
        message=message,
        actor=_user(payload, "sender", "pusher"),
        url=payload.url("compare", "compare_url"),
        repository=full_name(payload),
    )


def pull_request(payload: Payload) -> ForgeEvent | Ignored:
    """Return the event of a pull request."""
    pull = payload.part("pull_request")
    number = payload.number("number") or pull.number("number")
    if not pull or not number:
        raise InvalidInput("the payload has no pull_request with a number")
    action = payload.text("action")
    name = _pull_request_event(action, payload, pull)
    if name is None:
        return Ignored(f"{action or 'no action'} changes neither the head nor the base of a pull request")
    # Gogs has no object for the two ends, and no commit of them.
    head, base = pull.part("head"), pull.part("base")
    head_repo = head.part("repo") or pull.part("head_repo")
    base_repo = base.part("repo") or pull.part("base_repo") or payload.part("repository")
    base_branch = base.ref("ref") or pull.ref("base_branch")
    if not base_branch:
        raise InvalidInput("the payload's pull_request has no base branch")
    return ForgeEvent(
        name=name,
        ref=pull_request_ref(name, f"refs/pull/{number}/head", base_branch),
        sha=pull_request_sha(name, head=head.sha("sha"), merged=pull.sha("merge_commit_sha")),
        branch=head.ref("ref") or pull.ref("head_branch"),
        actor=_user(payload, "sender"),
        number=number,
        base_branch=base_branch,
        base_sha=base.sha("sha"),
        head_url=head_repo.url("clone_url"),
        author=_user(pull, "user"),
        is_fork=_differ(head_repo, base_repo),
        title=pull.text("title"),
        url=pull.url("html_url"),
        repository=full_name(payload),
    )


def full_name(payload: Payload) -> str:
    """Return the path of a delivery's repository."""
    return payload.part("repository").text("full_name")


def pull_request_ref(name: EventName, head_ref: str, base_branch: str) -> str:
    """Return the ref to run for a pull request: its base, once it is closed or merged."""
    is_over = name in (EventName.PULL_REQUEST_CLOSED, EventName.PULL_REQUEST_MERGED)
    return f"{BRANCHES}{base_branch}" if is_over else head_ref


def pull_request_sha(name: EventName, *, head: str, merged: str) -> str:
    """Return the commit to run for a pull request; empty: the commit of its ref."""
    if name is EventName.PULL_REQUEST_MERGED:
        return merged
    return "" if name is EventName.PULL_REQUEST_CLOSED else head


def _pull_request_event(action: str, payload: Payload, pull: Payload) -> EventName | None:
    if action in _OPENED:
        return EventName.PULL_REQUEST_OPENED
    if action == "closed":
        return EventName.PULL_REQUEST_MERGED if pull.flag("merged") else EventName.PULL_REQUEST_CLOSED
    changes = payload.part("changes")
    # Of GitHub the one, of Gitea the other.
    has_new_base = action == "edited" and ("base" in changes or "ref" in changes)
    if action in _NEW_HEAD or has_new_base:
        return EventName.PULL_REQUEST_UPDATED
    return None


def _differ(head: Payload, base: Payload) -> bool:
    """Return whether two repositories differ, or one is unknown because it may have been deleted."""
    for one, other in (
        (head.number("id"), base.number("id")),
        (head.text("full_name"), base.text("full_name")),
    ):
        if one and other:
            return one != other
    return True


def _user(payload: Payload, *names: str) -> str:
    for name in names:
        if user := payload.part(name).text("login", "username", "name"):
            return user
    return ""
