"""One suite for all forges: their deliveries are read as the same events, and only if signed."""

import base64
import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactorcide.domain.errors import InvalidInput, Unauthorized
from reactorcide.domain.events import EventName
from reactorcide.domain.forges import (
    CommitStatus,
    ForgeEvent,
    ForgeKind,
    ForgeRepository,
    Ignored,
    StatusState,
)
from reactorcide.domain.http import HttpAnswer
from reactorcide.forges import FORGES
from reactorcide.forges.repositories import repository_at
from tests.support.dialects import (
    DIALECTS,
    NO_COMMIT,
    Delivery,
    Dialect,
    GiteaDialect,
    GitHubDialect,
    Pull,
    Repo,
    digest,
    standard_signature,
)

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
REPO = Repo(1, "acme/site", "https://forge.example")
FORK = Repo(2, "mona/site", "https://forge.example")
OLD, NEW, MERGE = "a" * 40, "b" * 40, "c" * 40
PULL = Pull(number=12, head_sha=NEW, head_branch="fix", base_sha=OLD, base_branch="main", head_repo=REPO)


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def lower(fields: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in fields.items()}


def read(dialect: Dialect, delivery: Delivery, **options: Any) -> ForgeEvent | Ignored:
    """Return what the forge's reader says to a delivery, which it has verified."""
    forge = FORGES[dialect.kind]
    fields, body = dialect.request(delivery, SECRET, **options)
    headers = lower(fields)
    forge.verify(headers, [body[:7], body[7:]], [SECRET], now_s=time.time())
    assert forge.event_name(headers) == delivery[0]
    return forge.read(headers, body)


def event(dialect: Dialect, delivery: Delivery, **options: Any) -> ForgeEvent:
    answer = read(dialect, delivery, **options)
    assert isinstance(answer, ForgeEvent)
    return answer


def test_push_of_a_branch_is_read(dialect: Dialect) -> None:
    for form in (False, True):
        push = event(dialect, dialect.push(REPO, "refs/heads/a/b", OLD, NEW), form=form)
        assert (push.name, push.branch, push.tag) == (EventName.PUSH, "a/b", "")
        assert (push.ref, push.sha, push.before) == ("refs/heads/a/b", NEW, OLD)
        assert (push.message, push.actor, push.is_fork) == ("Say hello", "mona", False)
        assert push.url.startswith("https://forge.example/acme/site")


def test_new_branch_has_no_previous_commit(dialect: Dialect) -> None:
    assert event(dialect, dialect.push(REPO, "refs/heads/new", NO_COMMIT, NEW)).before == ""


def test_deleted_branch_or_tag_starts_nothing(dialect: Dialect) -> None:
    answer = read(dialect, dialect.push(REPO, "refs/heads/old", OLD, NO_COMMIT))
    assert answer == Ignored("branch deleted")
    answer = read(dialect, dialect.push(REPO, "refs/tags/v1", OLD, NO_COMMIT))
    assert answer == Ignored("tag deleted")


def test_push_of_a_tag_is_read(dialect: Dialect) -> None:
    """Where a forge tells it twice both are the same, but for who tells."""
    events = [event(dialect, delivery) for delivery in dialect.tag(REPO, "v1.0", NEW)]
    assert {(one.name, one.tag, one.branch, one.ref, one.sha, one.before) for one in events} == {
        (EventName.TAG_CREATED, "v1.0", "", "refs/tags/v1.0", NEW, "")
    }
    assert [one.is_create for one in events] == ([True, False] if len(events) == 2 else [False])


def test_create_event_of_a_branch_starts_nothing(dialect: Dialect) -> None:
    if isinstance(dialect, GitHubDialect):
        assert isinstance(read(dialect, GiteaDialect().create(REPO, "new", NEW, "branch")), Ignored)


def test_the_object_of_an_annotated_tag_of_gitlab_is_not_its_commit() -> None:
    name, payload = DIALECTS["gitlab"].push(REPO, "refs/tags/v1", NO_COMMIT, NEW)
    assert event(DIALECTS["gitlab"], (name, payload | {"checkout_sha": MERGE})).sha == MERGE


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("opened", EventName.PULL_REQUEST_OPENED),
        ("reopened", EventName.PULL_REQUEST_OPENED),
        ("updated", EventName.PULL_REQUEST_UPDATED),
        ("rebased", EventName.PULL_REQUEST_UPDATED),
    ],
)
def test_a_pull_request_runs_at_its_head(dialect: Dialect, action: str, name: EventName) -> None:
    opened = event(dialect, dialect.pull_request(REPO, action, PULL, user="lisa"))
    assert (opened.name, opened.number, opened.branch, opened.base_branch) == (name, 12, "fix", "main")
    assert opened.ref == dialect.pull_ref.format(12)
    assert opened.sha == (NEW if dialect.tells_head_sha else "")
    assert (opened.actor, opened.title, opened.is_fork) == ("lisa", "Mend the roof", False)
    assert opened.head_url == "https://forge.example/acme/site.git"
    assert opened.url.startswith("https://forge.example/acme/site/")


def test_label_of_a_pull_request_starts_nothing(dialect: Dialect) -> None:
    assert isinstance(read(dialect, dialect.pull_request(REPO, "labelled", PULL)), Ignored)


def test_closed_pull_request_runs_at_its_base(dialect: Dialect) -> None:
    merged = event(dialect, dialect.pull_request(REPO, "merged", replace(PULL, merge_sha=MERGE)))
    assert (merged.name, merged.ref, merged.sha) == (EventName.PULL_REQUEST_MERGED, "refs/heads/main", MERGE)
    # GitHub's closed ones have the commit of a merge that was only tried.
    closed = event(dialect, dialect.pull_request(REPO, "closed", replace(PULL, merge_sha=MERGE)))
    assert (closed.name, closed.ref, closed.sha) == (EventName.PULL_REQUEST_CLOSED, "refs/heads/main", "")
    fast = event(dialect, dialect.pull_request(REPO, "merged", PULL))
    assert (fast.name, fast.sha) == (EventName.PULL_REQUEST_MERGED, "")


def test_pull_request_of_a_fork_is_recognized(dialect: Dialect) -> None:
    for head_repo in (FORK, None):
        opened = event(dialect, dialect.pull_request(REPO, "opened", replace(PULL, head_repo=head_repo)))
        assert opened.is_fork
        assert opened.ref == dialect.pull_ref.format(12)


def test_ping_reports_missing_events() -> None:
    github = DIALECTS["github"]
    assert isinstance(github, GitHubDialect)
    assert read(github, github.ping(REPO, ["push", "pull_request"])) == Ignored("the webhook works")
    assert read(github, github.ping(REPO, ["*"])) == Ignored("the webhook works")
    assert read(github, github.ping(REPO, ["push"])) == Ignored(
        "the webhook works, and sends no pull requests"
    )


def test_another_event_starts_nothing(dialect: Dialect) -> None:
    answer = read(dialect, ("issues", {"object_kind": "issue", "action": "opened"}))
    assert isinstance(answer, Ignored)
    assert answer.reason.endswith("starts nothing")


def test_delivery_id_is_read(dialect: Dialect) -> None:
    forge = FORGES[dialect.kind]
    fields, _ = dialect.request(dialect.push(REPO, "refs/heads/main", OLD, NEW), SECRET, delivery_id="one")
    headers = lower(fields)
    assert forge.delivery_id(headers) == "one"
    with pytest.raises(InvalidInput, match="has no"):
        forge.delivery_id({})
    field = dialect.id_field.lower()
    for bad in ("a b", "x" * 129, "é"):
        with pytest.raises(InvalidInput, match="is not an id"):
            forge.delivery_id(headers | {field: bad})


def test_only_signed_deliveries_are_accepted(dialect: Dialect) -> None:
    forge = FORGES[dialect.kind]
    fields, body = dialect.request(dialect.push(REPO, "refs/heads/main", OLD, NEW), SECRET)
    headers = lower(fields)
    # Renewed: both count.
    forge.verify(headers, [body], ["newer", SECRET], now_s=time.time())
    for secrets in (["newer"], [], [""]):
        with pytest.raises(Unauthorized):
            forge.verify(headers, [body], secrets, now_s=time.time())
    signatures = dialect.sign(body, SECRET) | standard_signature(body, SECRET, "x", 1)
    unsigned = {name: value for name, value in headers.items() if name not in lower(signatures)}
    with pytest.raises(Unauthorized, match="has no"):
        forge.verify(unsigned, [body], [SECRET], now_s=time.time())
    signed = set(headers) & set(lower(signatures))
    for bad in (" ", "é\udce9", "sha256=", "v1,", digest(body, ""), "x" * 10_000):
        with pytest.raises(Unauthorized):
            forge.verify(headers | dict.fromkeys(signed, bad), [body], [SECRET, ""], now_s=time.time())
    cut = {name: headers[name][:-1] for name in signed}
    with pytest.raises(Unauthorized):
        forge.verify(headers | cut, [body], [SECRET], now_s=time.time())
    if dialect.name != "gitlab":
        with pytest.raises(Unauthorized):
            forge.verify(headers, [body + b" "], [SECRET], now_s=time.time())


def test_old_signed_delivery_of_gitlab_is_refused() -> None:
    forge, body = FORGES[ForgeKind.GITLAB], b"{}"
    for secret in (SECRET, "plain"):
        headers = standard_signature(body, secret, "one", 1_000_000)
        forge.verify(headers, [body], [secret], now_s=1_000_299)
        headers["webhook-signature"] = f"v1a,x {headers['webhook-signature']}"
        forge.verify(headers, [body], [secret], now_s=1_000_000)
        for now_s in (1_000_301, 999_699):
            with pytest.raises(Unauthorized, match="clock"):
                forge.verify(headers, [body], [secret], now_s=now_s)
        with pytest.raises(Unauthorized, match="signature"):
            forge.verify(headers | {"webhook-id": "two"}, [body], [secret], now_s=1_000_000)
        # Where the signature is wrong, a right secret does not help.
        wrong = headers | {"webhook-signature": "v1,x", "x-gitlab-token": secret}
        with pytest.raises(Unauthorized, match="signature"):
            forge.verify(wrong, [body], [secret], now_s=1_000_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
EVENTS = ["push", "pull_request", "create", "ping", "Push Hook", "é", ""]
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type", "idempotency-key", "webhook-id", "webhook-timestamp", "webhook-signature",
            "x-gitlab-token", "x-gitlab-event", "x-github-event", "x-github-delivery", "x-hub-signature-256",
            "x-gitea-event", "x-gitea-delivery", "x-gitea-signature", "x-gogs-event",
        ]
    ),
    st.text(max_size=20) | st.sampled_from([*EVENTS, "application/x-www-form-urlencoded", "1"]),
    max_size=6,
)  # fmt: skip


@given(headers=HEADERS, body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_raise_only_the_documented_error(headers: dict[str, str], body: bytes) -> None:
    for forge in FORGES.values():
        for call in (
            lambda: forge.verify(headers, [body], [SECRET, "x"], now_s=1.0),  # noqa: B023  # called at once
            lambda: forge.delivery_id(headers),  # noqa: B023  # as above
            lambda: forge.read(headers, body),  # noqa: B023  # as above
            lambda: forge.token_problem(HttpAnswer(status=200, body=body)),  # noqa: B023  # as above
            lambda: forge.has_accepted(HttpAnswer(status=400, body=body)),  # noqa: B023  # as above
        ):
            with suppress(InvalidInput, Unauthorized):
                call()


@given(data=st.data())
def test_wrong_types_in_a_payload_are_clear_errors(data: st.DataObject) -> None:
    """Whatever takes the place of a part of a real payload, what comes out can be stored."""
    dialect = data.draw(st.sampled_from(list(DIALECTS.values())))
    deliveries = [
        dialect.push(REPO, "refs/heads/main", OLD, NEW),
        dialect.pull_request(REPO, "rebased", PULL),
        *dialect.tag(REPO, "v1", NEW),
    ]
    name, payload = data.draw(st.sampled_from(deliveries))
    payload = json.loads(json.dumps(payload))
    at, key = payload, data.draw(st.sampled_from(sorted(payload)))
    while isinstance(at[key], dict) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at)))
    at[key] = data.draw(JSON | st.sampled_from(["\ud800", "\0", "x" * 10_000, 2**64, -1, True, [[1]]]))
    fields, body = dialect.request((name, payload), SECRET)
    event = None
    with suppress(InvalidInput):
        event = FORGES[dialect.kind].read(lower(fields), body)
    if isinstance(event, ForgeEvent):
        texts = (event.ref, event.branch, event.tag, event.message, event.actor, event.title, event.url)
        assert all(len(text) <= 4096 and "\0" not in text for text in texts)
        "".join(texts).encode()


def test_unreadable_payload_is_refused() -> None:
    forge = FORGES[ForgeKind.GITHUB]
    headers = {"x-github-event": "push"}
    form = headers | {"content-type": "application/x-www-form-urlencoded"}
    for fields, body, problem in [
        (headers, b"[" * 200_000, "nested too deeply"),
        (headers, b'{"a":' * 200_000, "nested too deeply"),
        (headers, b"\xff\xfe{}", "not UTF-8"),
        (headers, b"", "not JSON"),
        (headers, b"[]", "not a JSON object"),
        (headers, b'{"ref":' + b"9" * 5000 + b"}", "not JSON: too many digits"),
        (form, b"a=1", "not JSON"),
        (form, b"&".join([b"a=1"] * 100), "not JSON"),
        (form, b"payload=%ff", "not UTF-8"),
        (headers, b'{"ref": 1}', "the payload's ref is not a text"),
        (headers, b'{"ref": "refs/heads/main", "after": "HEAD"}', "after is not a commit"),
    ]:
        with pytest.raises(InvalidInput, match=problem):
            forge.read(fields, body)


STATUS = CommitStatus(
    sha=NEW,
    context="reactorcide/push/ci",
    state=StatusState.FAILURE,
    description="x" * 300,
    target_url="https://ci.example/runs/1",
)


def test_status_request_has_the_documented_form(dialect: Dialect) -> None:
    forge = FORGES[dialect.kind]
    for state in StatusState:
        request = forge.status_request(
            ForgeRepository("https://f.example/x", "acme/a b"), "tok", replace(STATUS, state=state)
        )
        assert request.method == "POST"
        assert request.url.endswith(f"/statuses/{NEW}")
        assert " " not in request.url
        assert "tok" in "".join(request.headers.values())
        assert "tok" not in repr(request)
        sent = json.loads(request.body)
        assert sent["target_url"] == "https://ci.example/runs/1"
        assert "reactorcide/push/ci" in sent.values()
    untold = forge.status_request(
        ForgeRepository("https://f.example", "a/b"), "t", replace(STATUS, target_url=None)
    )
    assert "target_url" not in json.loads(untold.body)
    assert forge.has_accepted(HttpAnswer(status=201, body=b"{}"))
    for code in (400, 401, 404, 422, 429, 500, 302):
        assert not forge.has_accepted(HttpAnswer(status=code, body=b"{}"))


def test_the_status_api_of_each_forge_has_its_url() -> None:
    def request(kind: ForgeKind, url: str, forge_url: str | None = None) -> str:
        return FORGES[kind].status_request(repository_at(url, forge_url), "t", STATUS).url

    github = f"https://api.github.com/repos/acme/site/statuses/{NEW}"
    for credentials in ("x:y", "[REDACTED]", "ci:[REDACTED]"):
        assert request(ForgeKind.GITHUB, f"https://{credentials}@github.com/acme/site.git") == github
    assert request(ForgeKind.GITHUB, "git@github.com:acme/site.git") == github
    assert request(ForgeKind.GITHUB, "ssh://git@github.com:22/acme/site") == github
    assert request(ForgeKind.GITHUB, "https://ghe.example:8443/acme/site") == (
        f"https://ghe.example:8443/api/v3/repos/acme/site/statuses/{NEW}"
    )
    assert request(
        ForgeKind.GITEA, "http://forge.example/base/acme/site.git", "http://forge.example/base/"
    ) == (f"http://forge.example/base/api/v1/repos/acme/site/statuses/{NEW}")
    assert request(ForgeKind.GITLAB, "https://gitlab.example/group/sub/site.git") == (
        f"https://gitlab.example/api/v4/projects/group%2Fsub%2Fsite/statuses/{NEW}"
    )
    for bad in ("/srv/git/site", "https://forge.example/", "git://x/a/b", "https://[x/a/b", "file:///a/b"):
        with pytest.raises(InvalidInput, match="does not lead to a repository"):
            repository_at(bad, None)


def test_duplicate_status_of_gitlab_counts_as_sent() -> None:
    answer = b'{"message":"Cannot transition status via :enqueue from :pending"}'
    assert FORGES[ForgeKind.GITLAB].has_accepted(HttpAnswer(status=400, body=answer))
    assert not FORGES[ForgeKind.GITHUB].has_accepted(HttpAnswer(status=400, body=answer))


def test_token_problems_are_reported() -> None:
    for kind, forge in FORGES.items():
        request = forge.repository_request(ForgeRepository("https://f.example", "a/b"), "tok")
        assert request.method == "GET"
        assert request.body == b""
        assert "create a new one" in (forge.token_problem(HttpAnswer(status=401, body=b"")) or "")
        assert "may not see" in (forge.token_problem(HttpAnswer(status=404, body=b"")) or "")
        assert "500" in (forge.token_problem(HttpAnswer(status=500, body=b"")) or "")
        assert forge.token_problem(HttpAnswer(status=200, body=b"{}")) is None
        if kind is ForgeKind.GITLAB:
            low = b'{"permissions": {"project_access": {"access_level": 20}, "group_access": null}}'
            high = low.replace(b"null", b'{"access_level": 40}')
        else:
            low = b'{"permissions": {"admin": false, "push": false, "pull": true}}'
            high = b'{"permissions": {"admin": false, "push": true, "pull": true}}'
        assert "commit status needs" in (forge.token_problem(HttpAnswer(status=200, body=low)) or "")
        assert forge.token_problem(HttpAnswer(status=200, body=high)) is None
