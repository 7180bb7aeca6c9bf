"""Deliveries, on a real database and queue, from real repositories."""

import resource
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reactorcide.deliveries import read, receive, redeliver, retention, work
from reactorcide.domain.deliveries import MAX_BODY_BYTES, OBJECTS, Delivery, DeliveryStatus
from reactorcide.domain.errors import (
    Forbidden,
    InvalidInput,
    JobFailed,
    NotFound,
    StoreError,
    TooLarge,
    Unauthorized,
)
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.runs import Commit, Run, RunFilter, RunStatus
from reactorcide.domain.secrets import REDACTED
from reactorcide.lib.clock import now_ms
from reactorcide.lib.ids import first_id
from reactorcide.projects import change
from reactorcide.worker.deliverer import Deliverer
from tests.support.dialects import (
    DIALECTS,
    NO_COMMIT,
    Dialect,
    GiteaDialect,
    GitHubDialect,
    Pull,
    Repo,
)
from tests.support.dialects import Delivery as Sent
from tests.support.runs import repository
from tests.support.waiting import wait_until
from tests.worker.conftest import USER, House, run_context

CI = "name: CI\non: [push]\njobs: {a: {command: 'true', checkout: false}}\n"
FILES = {
    "workflows/ci.yaml": CI,
    "workflows/docs.yaml": CI.replace("CI", "Docs").replace("jobs:", "paths: {include: [docs/**]}\njobs:"),
    "workflows/release.yaml": CI.replace("CI", "Release").replace("push", "tag"),
    "workflows/review.yaml": CI.replace("CI", "Review").replace("push", "pull_request"),
    "workflows/after.yaml": CI.replace("CI", "After").replace(
        "push", "pull_request_merged, pull_request_closed"
    ),
}
REPO = Repo(1, "acme/site", "https://forge.example")
FORK = Repo(2, "mona/site", "https://forge.example")


class Desk:
    """A project with a forge, whose deliveries the test works on itself, and whose runs no worker takes."""

    def __init__(
        self, house: House, path: Path, dialect: Dialect, files: dict[str, str], **fields: Any
    ) -> None:
        self.dialect = dialect
        self.git = repository(path / uuid.uuid4().hex, files)
        self.house = house
        self.store = house.context.store
        self.context = run_context(house.context, house.preparation)
        created, self.secret = change.create(
            house.context,
            fields.pop("user", USER),
            fields.pop("name", "acme/site"),
            f"file://{self.git.path}",
            {"forge": dialect.kind.value, **fields},
        )
        self.project_id = created.project_id

    def change(self, **fields: Any) -> None:
        change.change(self.house.context, USER, self.project_id, fields)

    def head(self, ref: str = "HEAD") -> str:
        return self.git.git("rev-parse", ref)

    def pushed(self, before: str = NO_COMMIT, branch: str = "main") -> Sent:
        message = self.git.git("log", "-1", "--format=%B")
        return self.dialect.push(REPO, f"refs/heads/{branch}", before, self.head(), message=message)

    def pull(self, **fields: Any) -> Pull:
        defaults: dict[str, Any] = {
            "number": 12,
            "head_sha": self.head(),
            "head_branch": "fix",
            "base_sha": self.head("main"),
            "base_branch": "main",
            "head_repo": REPO,
        }
        return Pull(**defaults | fields)

    def receive(self, sent: Sent, delivery_id: str | None = None, **fields: str) -> Delivery:
        headers, body = self.dialect.request(sent, self.secret, delivery_id=delivery_id)
        lower = {name.lower(): value for name, value in (headers | fields).items()}
        project = receive.expecting(self.house.context, self.project_id)
        return receive.receive(self.house.context, project, lower, [body])

    def worked(self, delivery: Delivery) -> Delivery:
        """Return what became of a delivery."""
        work.work_on(self.context, self.store.deliveries.get(self.project_id, delivery.delivery_id))
        return self.store.deliveries.get(self.project_id, delivery.delivery_id)

    def became(self, sent: Sent, delivery_id: str | None = None) -> str:
        return self.worked(self.receive(sent, delivery_id)).outcome or ""

    def runs(self) -> list[Run]:
        runs, _ = self.store.runs.page(RunFilter(project_id=self.project_id), limit=1000, after=None)
        return sorted(runs, key=lambda run: run.number)

    def workflows(self) -> list[str]:
        return [run.workflow_id for run in self.runs()]

    def objects(self) -> list[str]:
        return [item.key for item in self.house.context.objects.list(OBJECTS)]

    def page(self, **options: Any) -> list[Delivery]:
        defaults = {"status": None, "limit": 100, "after": None}
        return read.page(self.house.context, USER, self.project_id, **defaults | options)[0]


Open = Callable[..., Desk]


@pytest.fixture
def open_desk(house: House, tmp_path: Path) -> Open:
    def opened(dialect: str = "github", files: dict[str, str] = FILES, **fields: Any) -> Desk:
        return Desk(house, tmp_path, DIALECTS[dialect], files, **fields)

    return opened


@pytest.fixture(params=DIALECTS)
def desk(request: pytest.FixtureRequest, open_desk: Open) -> Desk:
    return open_desk(request.param)


@pytest.fixture
def github(open_desk: Open) -> Desk:
    return open_desk()


def test_a_push_starts_a_run_of_each_workflow_that_names_it(desk: Desk) -> None:
    before = desk.head()
    after = desk.git.commit("src", "1")
    delivery = desk.receive(desk.pushed(before))
    assert (delivery.status, delivery.outcome, desk.runs()) == (DeliveryStatus.WAITING, None, [])
    done = desk.worked(delivery)
    assert (done.status, done.outcome, done.due_at_ms) == (DeliveryStatus.STARTED, "2 runs started", None)
    ci, docs = desk.runs()
    assert done.run_ids == (ci.run_id, docs.run_id)
    assert (ci.workflow_id, ci.status, docs.status) == ("ci", RunStatus.RUNNING, RunStatus.SKIPPED)
    assert (ci.sha, ci.event["sha"], ci.event["branch"]) == (after, after, "main")
    assert ci.event["ref"] == "refs/heads/main"
    assert ci.event["actor"] == "mona"
    assert ci.event["message"].startswith("src: ")


def test_new_branch_is_compared_with_its_merge_base(desk: Desk) -> None:
    desk.git.git("checkout", "--quiet", "-b", "fix")
    (desk.git.path / "docs").mkdir()
    desk.git.commit("docs/a", "1")
    desk.git.commit("src", "1")
    assert desk.became(desk.pushed(branch="fix")) == "2 runs started"
    assert {run.status for run in desk.runs()} == {RunStatus.RUNNING}


def test_forced_push_without_its_previous_commit_runs(desk: Desk) -> None:
    assert desk.became(desk.pushed(before="f" * 40)) == "2 runs started"
    assert {run.status for run in desk.runs()} == {RunStatus.RUNNING}


def test_tag_with_several_deliveries_starts_one_run(desk: Desk) -> None:
    for number in range(1, 3):
        desk.git.git("tag", "--annotate", "--force", "--message", "first", "v1")
        deliveries = [desk.receive(sent) for sent in desk.dialect.tag(REPO, "v1", desk.head("v1"))]
        outcomes = [desk.worked(delivery).outcome or "" for delivery in deliveries]
        assert outcomes[0] == "run started"
        assert all(outcome.endswith("has reported the same tag") for outcome in outcomes[1:])
        assert desk.workflows() == ["release"] * number
        assert {(run.sha, run.event["tag"]) for run in desk.runs()} == {(desk.head("v1^{commit}"), "v1")}
    # The same tag, deleted and created again.
    deleted = desk.dialect.push(REPO, "refs/tags/v1", desk.head("v1"), NO_COMMIT)
    assert desk.became(deleted) == "ignored: tag deleted"
    for sent in reversed(desk.dialect.tag(REPO, "v1", desk.head("v1"))):
        desk.became(sent)
    assert desk.workflows() == ["release"] * 3


def test_create_event_alone_starts_a_run(open_desk: Open) -> None:
    desk = open_desk("gogs")
    assert isinstance(desk.dialect, GiteaDialect)
    desk.git.git("tag", "v1")
    assert desk.became(desk.dialect.create(REPO, "v1", desk.head())) == "run started"


def test_pull_requests_start_runs(desk: Desk) -> None:
    main = desk.head()
    desk.git.git("checkout", "--quiet", "-b", "fix")
    fixed = desk.git.commit("src", "1")
    desk.git.git("update-ref", desk.dialect.pull_ref.format(12), fixed)
    for action in ("opened", "updated", "rebased"):
        assert desk.became(desk.dialect.pull_request(REPO, action, desk.pull())) == "run started"
    assert desk.became(desk.dialect.pull_request(REPO, "labelled", desk.pull())).startswith("ignored: ")
    assert desk.workflows() == ["review"] * 3
    assert {(run.sha, run.event["number"], run.event["branch"]) for run in desk.runs()} == {
        (fixed, "12", "fix")
    }
    names = [run.event["name"] for run in desk.runs()]
    assert names == ["pull_request_opened", "pull_request_updated", "pull_request_updated"]
    # Closed it runs at the base, merged at the merge.
    assert desk.became(desk.dialect.pull_request(REPO, "closed", desk.pull())) == "run started"
    merged = desk.pull(merge_sha=main)
    assert desk.became(desk.dialect.pull_request(REPO, "merged", merged)) == "run started"
    assert [(run.workflow_id, run.sha) for run in desk.runs()[3:]] == [("after", main)] * 2


def test_merge_runs_workflows_with_changed_paths(open_desk: Open) -> None:
    text = FILES["workflows/after.yaml"].replace("jobs:", "paths: {include: [docs]}\njobs:")
    desk = open_desk("github", {"workflows/after.yaml": text})
    for path, status in (("docs", RunStatus.RUNNING), ("src", RunStatus.SKIPPED)):
        desk.git.git("checkout", "--quiet", "-b", path)
        desk.git.commit(path, "1")
        desk.git.git("checkout", "--quiet", "main")
        # What has changed there before is not of the merge.
        base = desk.git.commit("meanwhile", path)
        desk.git.git("merge", "--quiet", "--no-edit", "--no-ff", path)
        pull = desk.pull(base_sha=base, merge_sha=desk.head())
        desk.became(desk.dialect.pull_request(REPO, "merged", pull))
        assert desk.runs()[-1].status is status


def test_delivery_of_another_repository_starts_nothing(desk: Desk) -> None:
    """The webhook of an organization tells of all its repositories."""
    other, pull = Repo(3, "acme/other", "https://forge.example"), desk.pull()
    sent = [
        *desk.dialect.tag(other, "v1", desk.head()),
        desk.dialect.push(other, "refs/heads/main", NO_COMMIT, desk.head()),
        desk.dialect.pull_request(other, "opened", pull),
    ]
    own = desk.dialect.push(Repo(1, "Acme/Site", "https://x"), "refs/heads/main", NO_COMMIT, desk.head())
    # This one is at no forge, so that nothing can be compared.
    assert desk.became(own) == "2 runs started"
    for url, path in (
        ("https://127.0.0.1:1/acme/site.git", "acme/site"),
        ("ssh://git@127.0.0.1:1/git/acme/site", "git/acme/site"),
    ):
        change.change(desk.house.context, USER, desk.project_id, {}, git_url=url)
        assert {desk.became(delivery) for delivery in sent} == {
            f"ignored: it is about the repository acme/other, and the project's is {path}"
        }
        # Its own one is fetched, which fails here: nothing listens there.
        assert desk.became(own).startswith("it is tried again")
    assert len(desk.runs()) == 2


def test_a_fork_waits_for_approval(desk: Desk) -> None:
    main = desk.head()
    desk.git.git("checkout", "--quiet", "-b", "fix")
    fixed = desk.git.commit(".reactorcide/workflows/review.yaml", "name: [\n")
    desk.git.git("update-ref", desk.dialect.pull_ref.format(12), fixed)
    opened = desk.dialect.pull_request(REPO, "opened", desk.pull(head_repo=FORK))
    assert desk.became(opened) == "run started, waiting for approval"
    merged = desk.dialect.pull_request(REPO, "merged", desk.pull(head_repo=FORK, merge_sha=main))
    assert desk.became(merged) == "run started"
    waiting, after = desk.runs()
    # The files are those of the base.
    assert (waiting.workflow_id, waiting.status, waiting.sha) == ("review", RunStatus.WAITING, fixed)
    assert (waiting.is_trusted, after.is_trusted) == (False, True)
    # For the job's variables. GitLab does not tell the base, and Gogs not even the repository.
    assert waiting.event["base_sha"] == main
    if "head_url" in waiting.event:
        assert waiting.event["head_url"] == FORK.clone_url


def test_ignored_delivery_has_a_reason(desk: Desk) -> None:
    push = desk.pushed()
    assert desk.became(desk.dialect.push(REPO, "refs/heads/x", desk.head(), NO_COMMIT)) == (
        "ignored: branch deleted"
    )
    desk.change(allowed_events=["tag_created"])
    assert desk.became(push) == "ignored: push is none of the project's allowed events"
    desk.change(allowed_events=[], pull_requests="off")
    opened = desk.dialect.pull_request(REPO, "opened", desk.pull())
    assert desk.became(opened) == "ignored: the project takes no pull requests"
    desk.change(disabled=True)
    assert desk.became(push) == "ignored: the project is disabled"
    desk.change(disabled=False)
    desk.git.git("commit", "--quiet", "--allow-empty", "--message", "Mend it [skip ci]")
    assert desk.became(desk.pushed()) == "ignored: [skip ci] in the commit's message"
    # A pull request does not tell its message: git does.
    desk.git.git("update-ref", desk.dialect.pull_ref.format(12), desk.head())
    assert desk.became(opened := desk.dialect.pull_request(REPO, "opened", desk.pull())) == (
        "ignored: the project takes no pull requests"
    )
    desk.change(pull_requests="all")
    assert desk.became(opened) == "ignored: [skip ci] in the commit's message"
    desk.git.git("rm", "-r", "--quiet", ".reactorcide")
    desk.git.commit("README", "2")
    assert desk.became(desk.pushed()) == "no workflow matches"
    assert desk.runs() == []


def test_repeated_delivery_counts_once(desk: Desk) -> None:
    first = desk.receive(desk.pushed(), "one")
    again = desk.receive(desk.pushed(), "one")
    assert again == first
    assert len(desk.objects()) == 1
    done = desk.worked(first)
    assert desk.receive(desk.pushed(), "one") == done
    desk.worked(first)
    assert desk.workflows() == ["ci", "docs"]
    # One that has started nothing is processed again.
    desk.change(disabled=True)
    assert desk.became(desk.pushed(), "two") == "ignored: the project is disabled"
    desk.change(disabled=False)
    assert desk.became(desk.pushed(), "two") == "2 runs started"


def test_concurrent_repeated_delivery_counts_once(github: Desk) -> None:
    sent = github.pushed()
    with ThreadPoolExecutor(8) as pool:
        delivery_ids = list(pool.map(lambda _: github.receive(sent, "one").delivery_id, range(8)))
        assert len(set(delivery_ids)) == len(github.objects()) == len(github.page()) == 1
        delivery = github.store.deliveries.get(github.project_id, delivery_ids[0])
        list(pool.map(lambda _: work.work_on(github.context, delivery), range(4)))
    assert github.workflows() == ["ci", "docs"]


def test_unsigned_delivery_stores_nothing(desk: Desk) -> None:
    headers, body = desk.dialect.request(desk.pushed(), "wrong")
    project = receive.expecting(desk.house.context, desk.project_id)
    lower = {name.lower(): value for name, value in headers.items()}
    for chunks in ([body], [body, *[b" " * 65536] * 20]):
        with pytest.raises(Unauthorized):
            receive.receive(desk.house.context, project, lower, chunks)
    with pytest.raises(InvalidInput, match="has no"):
        receive.receive(desk.house.context, project, {}, [body])
    assert desk.objects() == []
    assert desk.page() == []


def test_large_delivery_is_accepted_up_to_a_limit(desk: Desk) -> None:
    name, payload = desk.pushed()
    large = name, payload | {"padding": "x" * (2 << 20)}
    delivery = desk.receive(large)
    assert delivery.size_bytes > 2 << 20
    assert desk.worked(delivery).status is DeliveryStatus.STARTED
    view = read.view(desk.house.context, USER, desk.project_id, delivery.delivery_id)
    assert (len(view.body), view.is_cut) == (read.MAX_RETURNED_BYTES, True)
    project = receive.expecting(desk.house.context, desk.project_id)
    headers, _ = desk.dialect.request(desk.pushed(), desk.secret)
    lower = {name.lower(): value for name, value in headers.items()}
    with pytest.raises(TooLarge):
        receive.receive(desk.house.context, project, lower, (b" " * 65536 for _ in range(10_000)))
    assert MAX_BODY_BYTES < 65536 * 10_000
    assert desk.objects() == [delivery.object_key]


def test_delivery_sent_byte_by_byte_has_linear_cost(desk: Desk) -> None:
    looked = 0

    class Piece(bytes):
        def __len__(self) -> int:
            nonlocal looked
            looked += 1
            return super().__len__()

    headers, body = desk.dialect.request(desk.pushed(), desk.secret)
    lower = {name.lower(): value for name, value in headers.items()}
    project = receive.expecting(desk.house.context, desk.project_id)
    delivery = receive.receive(
        desk.house.context, project, lower, (Piece(body[at : at + 1]) for at in range(len(body)))
    )
    assert delivery.size_bytes == len(body)
    assert looked <= 10 * len(body)


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (b"[],", "failed: "),
        (b'{"":0},', "failed: reading the payload takes more than 512 MiB of memory"),
        (b"[", "failed: the payload is nested too deeply"),
        (b"1.5,", "failed: the payload is not JSON"),
    ],
)
def test_large_hostile_payload_does_not_slow_the_service(github: Desk, part: bytes, problem: str) -> None:
    body = b'{"a":[' + part * ((24 << 20) // len(part))
    headers = {"x-github-event": "push", "x-github-delivery": "one"}
    signed = {name.lower(): value for name, value in github.dialect.sign(body, github.secret).items()}
    project = receive.expecting(github.house.context, github.project_id)
    delivery = receive.receive(github.house.context, project, headers | signed, [body])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (github.worked(delivery).outcome or "").startswith(problem)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 150 << 10


def test_unavailable_commit_is_retried_for_ten_minutes(github: Desk) -> None:
    _, payload = github.pushed()
    delivery = github.receive(("push", payload | {"after": "f" * 40}))
    tried = github.worked(delivery)
    assert tried.status is DeliveryStatus.WAITING
    assert (tried.outcome or "").startswith("it is tried again: git: ")
    assert tried.due_at_ms is not None
    assert 1_000 < tried.due_at_ms - now_ms() <= 2_000
    assert github.runs() == []
    github.store.deliveries.retry(
        tried, "later", due_at_ms=now_ms(), tried_at_ms=now_ms() - work.TRY_FOR_MS + 10_000
    )
    assert github.worked(delivery).status is DeliveryStatus.WAITING
    github.store.deliveries.retry(tried, "later", due_at_ms=now_ms(), tried_at_ms=now_ms() - work.TRY_FOR_MS)
    failed = github.worked(delivery)
    assert failed.status is DeliveryStatus.FAILED
    (run,) = github.runs()
    assert (run.status, run.workflow_id, run.file) == (RunStatus.FAILED, "config", "")
    assert (run.sha, failed.run_ids) == ("f" * 40, (run.run_id,))
    assert failed.outcome == f"failed: {run.reason}"


def test_late_commit_is_run(github: Desk, tmp_path: Path) -> None:
    elsewhere = github.git.copied(tmp_path / "elsewhere")
    after = elsewhere.commit("src", "1")
    sent = github.dialect.push(REPO, "refs/heads/main", github.head(), after)
    delivery = github.worked(github.receive(sent))
    assert delivery.status is DeliveryStatus.WAITING
    github.git.git("pull", "--quiet", str(elsewhere.path), "main")
    assert github.worked(delivery).outcome == "2 runs started"
    assert github.runs()[0].sha == after


def test_malformed_yaml_is_a_failed_run(open_desk: Open) -> None:
    desk = open_desk(files={"workflows/ci.yaml": CI.replace("name: CI", "name: CI\nid: main")})
    assert desk.became(desk.pushed()) == "run started"
    desk.git.commit(".reactorcide/workflows/ci.yaml", "name: [\n")
    assert desk.became(desk.pushed()).startswith("failed: .reactorcide/workflows/ci.yaml:")
    assert [(run.workflow_id, run.status) for run in desk.runs()] == [
        ("main", RunStatus.RUNNING),
        ("main", RunStatus.FAILED),
    ]


def test_unreadable_delivery_has_a_reason(github: Desk) -> None:
    assert github.became(("push", {"ref": 1})) == "failed: the payload's ref is not a text"
    assert github.page()[0].status is DeliveryStatus.FAILED


def test_ping_is_answered_with_what_deliveries_start(github: Desk) -> None:
    assert isinstance(github.dialect, GitHubDialect)
    ping = github.dialect.ping(REPO, ["push"])
    delivery = github.receive(ping)
    assert delivery.outcome == (
        "ping: the webhook works, and sends no pull requests; all events start the workflows of acme/site "
        "that name them; pull requests of forks once they are approved"
    )
    assert (delivery.status, delivery.due_at_ms) == (DeliveryStatus.IGNORED, None)
    github.change(disabled=True)
    assert "disabled" in (github.receive(ping).outcome or "")


def test_redelivery_processes_a_delivery_again(desk: Desk) -> None:
    delivery = desk.worked(desk.receive(desk.pushed()))
    again = redeliver.redeliver(desk.house.context, USER, desk.project_id, delivery.delivery_id)
    assert (again.status, again.run_ids) == (DeliveryStatus.WAITING, delivery.run_ids)
    done = desk.worked(again)
    assert done.run_ids == tuple(run.run_id for run in desk.runs())
    assert desk.workflows() == ["ci", "docs"] * 2


def test_only_owners_see_deliveries(github: Desk) -> None:
    delivery = github.receive(github.pushed())
    context = github.house.context
    github.store.projects.set_member(github.project_id, USER.user_id, ProjectRole.WRITE)
    for call in (
        lambda: github.page(),
        lambda: read.view(context, USER, github.project_id, delivery.delivery_id),
        lambda: redeliver.redeliver(context, USER, github.project_id, delivery.delivery_id),
    ):
        with pytest.raises(Forbidden):
            call()


def test_delivery_shows_no_secrets(desk: Desk) -> None:
    name, payload = desk.pushed()
    sent = name, payload | {"secret": desk.secret}
    delivery = desk.receive(sent, authorization="Basic xyz", cookie="a=b")
    view = read.view(desk.house.context, USER, desk.project_id, delivery.delivery_id)
    text = f"{view.delivery.headers} {view.body}"
    assert desk.secret not in text
    assert "xyz" not in text
    assert "a=b" not in text
    fields, _ = desk.dialect.request(sent, desk.secret)
    secret = {name.lower() for name in fields if "signature" in name.lower() or name == "X-Gitlab-Token"}
    assert {view.delivery.headers[name] for name in secret} == {REDACTED}
    assert '"ref": "refs/heads/main"' in view.body


def test_project_without_a_forge_accepts_no_deliveries(github: Desk) -> None:
    delivery = github.receive(github.pushed())
    github.change(forge="none")
    assert github.worked(delivery).outcome == "failed: the project names no forge any more"
    with pytest.raises(NotFound):
        receive.expecting(github.house.context, github.project_id)
    with pytest.raises(NotFound):
        receive.expecting(github.house.context, "nope")


def test_deliveries_are_removed_with_their_project(github: Desk) -> None:
    delivery = github.receive(github.pushed())
    project = receive.expecting(github.house.context, github.project_id)
    change.remove(github.house.context, USER, github.project_id)
    assert github.objects() == []
    work.work_on(github.context, delivery)
    headers, body = github.dialect.request(github.pushed(), github.secret)
    lower = {name.lower(): value for name, value in headers.items()}
    with pytest.raises((NotFound, Unauthorized)):
        receive.receive(github.house.context, project, lower, [body])
    assert github.objects() == []


def test_renamed_project_still_accepts_deliveries(github: Desk) -> None:
    github.change(name="acme/other")
    assert github.became(github.pushed()) == "2 runs started"
    assert github.runs()[0].event["project"] == "acme/other"


def test_deliveries_are_removed_after_thirty_days(github: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = github.worked(github.receive(github.pushed()))
    waiting = github.receive(github.pushed())
    context = github.house.context
    retention.remove_old(context)
    assert len(github.page()) == 2
    monkeypatch.setattr(retention, "now_ms", lambda: now_ms() + (retention.KEEP_DAYS * 86_400_000) + 1000)
    retention.remove_old(context)
    assert [delivery.delivery_id for delivery in github.page()] == [waiting.delivery_id]
    assert github.objects() == [waiting.object_key] != [old.object_key]


def test_body_without_a_row_is_removed_at_the_next_start(github: Desk) -> None:
    delivery = github.receive(github.pushed())
    github.house.context.objects.put(f"{OBJECTS}left/body", [b"x"])
    receive.remove_orphans(github.house.context)
    assert github.objects() == [delivery.object_key]


def test_body_without_a_row_that_may_be_in_progress_elsewhere_is_kept(github: Desk) -> None:
    objects = github.house.context.objects
    early, late = (f"{OBJECTS}{first_id(at_ms)}-7000-8000-000000000000/body" for at_ms in (1000, 3000))
    for key in (early, late):
        objects.put(key, [b"x"])
    receive.remove_orphans(github.house.context, before_id=first_id(2000))
    assert github.objects() == [late]


def test_deliveries_are_paged(github: Desk) -> None:
    for _ in range(5):
        github.receive(github.pushed())
    newest = github.page(limit=3)
    last = newest[-1]
    rest = github.page(after=(last.created_at_ms, last.delivery_id))
    assert len({delivery.delivery_id for delivery in newest + rest}) == 5
    github.worked(newest[0])
    assert [item.delivery_id for item in github.page(status=DeliveryStatus.STARTED)] == [
        newest[0].delivery_id
    ]
    assert len(github.page(status=DeliveryStatus.WAITING)) == 4


def test_waiting_deliveries_of_a_restored_backup_expire(github: Desk) -> None:
    delivery = github.receive(github.pushed())
    github.store.deliveries.expire_waiting("ignored: restored from a backup")
    work.work_on(github.context, delivery)
    assert github.page()[0].outcome == "ignored: restored from a backup"
    assert github.runs() == []


def test_deliverer_processes_new_and_waiting_deliveries(github: Desk) -> None:
    waiting = github.receive(github.pushed())
    deliverer = Deliverer(github.context)
    deliverer.start()
    try:
        wait_until(lambda: len(github.runs()) == 2, 20, "what was left is processed")
        began = time.monotonic()
        arrived = github.receive(github.pushed())
        wait_until(lambda: len(github.runs()) == 4, 20, "what arrives is processed")
        assert time.monotonic() - began < 20
    finally:
        deliverer.stop(10)
    deliverer.stop(1)
    ids = [run_id for delivery in (waiting, arrived) for run_id in github.worked(delivery).run_ids]
    assert ids == [run.run_id for run in github.runs()]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("deliver")]


@pytest.mark.parametrize("is_retry", [True, False])
def test_hanging_servers_do_not_delay_other_projects(open_desk: Open, is_retry: bool) -> None:
    """Neither of the same user those that are tried again, nor of another user those that are new."""
    hanging = [open_desk(name=f"hangs{number}") for number in range(9)]
    other = open_desk(name="other", user=USER if is_retry else replace(USER, user_id="other"))
    free = threading.Event()
    fetches: list[str] = []

    def commit(git_url: str, *arguments: Any, **options: Any) -> Commit:
        fetches.append(git_url)
        if git_url == f"file://{other.git.path}":
            return other.house.preparation.commit(git_url, *arguments, **options)
        free.wait(60)
        raise JobFailed("it hangs")

    for desk in hanging:
        delivery = desk.receive(desk.pushed())
        if is_retry:
            desk.store.deliveries.retry(delivery, "again", due_at_ms=1, tried_at_ms=now_ms())
    deliverer = Deliverer(replace(other.context, commits=SimpleNamespace(commit=commit)))
    deliverer.start()
    try:
        share = 2 if is_retry else 4
        wait_until(lambda: len(fetches) == share, 20, "the share of one user hangs")
        other.receive(other.pushed())
        wait_until(lambda: len(other.runs()) == 2, 20, "the other's delivery is processed")
        assert len(fetches) == share + 1
    finally:
        free.set()
        deliverer.stop(10)


def test_unexpected_error_is_given_up_after_retries(
    github: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = github.receive(github.pushed())
    monkeypatch.setattr(work, "_request", lambda *arguments: 1 / 0)
    assert (github.worked(delivery).outcome or "").startswith("it is tried again: unexpectedly")
    github.store.deliveries.retry(
        delivery, "later", due_at_ms=now_ms(), tried_at_ms=now_ms() - work.TRY_FOR_MS
    )
    assert github.worked(delivery).status is DeliveryStatus.FAILED
    assert "failed unexpectedly" in caplog.text
    caplog.clear()


def test_failing_database_is_retried(github: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = github.receive(github.pushed())

    def full(*arguments: object, **options: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(work, "start_for_project", full)
        assert github.worked(delivery).outcome == "it is tried again: the disk is full"
    assert github.worked(delivery).outcome == "2 runs started"
