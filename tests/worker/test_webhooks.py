"""Webhooks: messages about runs and jobs, on a real database and queue, over real HTTP."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from reactorcide import backup
from reactorcide.accounts import AccountContext, users
from reactorcide.domain.accounts import User
from reactorcide.domain.audit import operator
from reactorcide.domain.errors import Forbidden, InvalidInput, NotFound
from reactorcide.domain.projects import ProjectRole
from reactorcide.domain.webhooks import WebhookMessage
from reactorcide.network.addresses import AddressRules
from reactorcide.network.http import HttpClient
from reactorcide.outbox.sender import Sender
from reactorcide.outbox.webhooks import Announcer, WebhookMessages, signature
from reactorcide.runs import cancel, rerun
from reactorcide.store import webhooks
from reactorcide.store.outbox import WEBHOOKS
from reactorcide.webhooks import change
from tests.support.http_server import answer_with, serving
from tests.support.waiting import wait_until
from tests.worker.conftest import House
from tests.worker.test_statuses import Project, workflow

PASSES = workflow(a="command: exit 0")
FAILS = workflow(a="command: exit 1")


@dataclass
class Receiver:
    """A server that takes messages and remembers them."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    """What it answers first."""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.requests.append(({name.lower(): value for name, value in request.headers.items()}, body))
        answer_with(self.statuses.pop(0) if self.statuses else 204)(request)

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    with serving(receiver.answer) as port:
        receiver.port = port
        yield receiver


class Hook:
    """A project with a webhook, and the sender of its messages."""

    def __init__(self, house: House, receiver: Receiver, *events: str, allow: str = "127.0.0.1") -> None:
        self.house = house
        self.store = house.context.store
        self.receiver = receiver
        self.user: User = users.create(AccountContext(self.store), "ann", by=operator())
        self.project = Project(house, token=None)
        self.store.projects.set_member(self.project.project_id, self.user.user_id, ProjectRole.OWNER)
        url = f"http://127.0.0.1:{receiver.port}/hook"
        view, self.secret = change.create(house.context, self.user, url, events, [self.project.project_id])
        self.webhook_id = view.webhook.webhook_id
        http = HttpClient(AddressRules(allow=[allow], internal=False).refusal, timeout_s=5)
        self.sender = Sender(
            self.store,
            {WEBHOOKS: WebhookMessages(self.store, http)},
            house.context.notifier,
            house.context.metrics,
            announce=Announcer(self.store, "https://ci.example").announce,
        )
        house.worker()

    def messages(self) -> list[WebhookMessage]:
        return self.store.webhooks.messages(self.webhook_id, limit=200)

    def run(self, text: str, **options: Any) -> str:
        run_id = self.project.push(text, **options).run_id
        self.over(run_id)
        return run_id

    def over(self, run_id: str) -> None:
        wait_until(lambda: self.store.runs.get(run_id).is_final, 20, "the run is over")

    def wait_for(self, *types: str) -> None:
        wait_until(lambda: self.receiver.types() == [*types], 20, f"{types} are told")


def test_message_is_signed_and_describes_the_event(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    hook.sender.start()
    run_id = hook.run(PASSES)
    hook.wait_for("run.running", "run.completed")
    hook.sender.stop(10)
    headers, body = receiver.requests[1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(hook.secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    message = json.loads(body)
    assert message["data"]["project"]["project_id"] == hook.project.project_id
    run = message["data"]["run"]
    assert (run["run_id"], run["status"], run["workflow"]) == (run_id, "completed", "ci")
    assert run["url"] == f"https://ci.example/runs/{run_id}"
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 2


def test_job_messages_name_their_node(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "job")
    hook.sender.start()
    hook.run(PASSES)
    wait_until(lambda: "job.completed" in receiver.types(), 20, "the end is told")
    hook.sender.stop(10)
    # A worker may be quicker than the record that the job is queued.
    types = [name for name in receiver.types() if name != "job.queued"]
    assert types == ["job.submitted", "job.running", "job.completed"]
    assert json.loads(receiver.requests[-1][1])["data"]["job"]["node"] == "a"


def test_failure_and_recovery_are_separate_events(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "failure", "recovery")
    hook.sender.start()
    hook.run(PASSES)
    run_id = hook.run(FAILS)
    hook.wait_for("failure")
    # A cancelled run says nothing.
    cancelled = hook.project.push(workflow(a="command: print x; hang"))
    cancel.cancel(hook.project.context, hook.user, cancelled.run_id)
    # Neither does another kind of event.
    hook.run(PASSES, name="tag_created")
    hook.run(FAILS)
    hook.wait_for("failure", "failure")
    hook.run(PASSES)
    hook.wait_for("failure", "failure", "recovery")
    hook.run(PASSES)
    # A scheduled run has its message, too.
    hook.run(FAILS.replace("on: [push", "on: [schedule, push"), name="schedule")
    hook.wait_for("failure", "failure", "recovery", "failure")
    # So is a run that is repeated.
    rerun.rerun(hook.project.context, hook.user, run_id, "all")
    hook.over(run_id)
    hook.wait_for("failure", "failure", "recovery", "failure", "failure")
    hook.sender.stop(10)


def test_changes_before_the_start_are_sent_once(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    hook.run(PASSES)
    assert hook.messages() == []
    announcer = Announcer(hook.store, None)
    while announcer.announce(1):
        pass
    announcer.announce(1)
    assert [message.type for message in hook.messages()][::-1] == ["run.running", "run.completed"]
    hook.sender.start()
    hook.wait_for("run.running", "run.completed")
    hook.sender.stop(10)


def test_a_former_owner_gets_no_messages(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    hook.store.projects.set_member(hook.project.project_id, hook.user.user_id, ProjectRole.WRITE)
    hook.run(PASSES)
    Announcer(hook.store, None).announce(1)
    assert hook.messages() == []


def test_webhook_gets_no_messages_of_other_projects(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    hook.over(Project(house, token=None).push(PASSES).run_id)
    Announcer(hook.store, None).announce(1)
    assert hook.messages() == []


def test_refusing_receiver_is_retried_with_the_same_id(house: House, receiver: Receiver) -> None:
    receiver.statuses = [500, 404]
    hook = Hook(house, receiver, "failure")
    hook.sender.start()
    hook.run(FAILS)
    hook.wait_for("failure", "failure", "failure")
    wait_until(lambda: hook.messages()[0].sent_at_ms is not None, 20, "it has arrived")
    hook.sender.stop(10)
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1


def test_a_message_is_sent_again_on_request(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "failure")
    hook.sender.start()
    hook.run(FAILS)
    hook.wait_for("failure")
    (message,) = hook.messages()
    change.redeliver(house.context, hook.user, hook.webhook_id, message.message_id)
    hook.wait_for("failure", "failure")
    hook.sender.stop(10)
    assert receiver.requests[0][0]["webhook-id"] == receiver.requests[1][0]["webhook-id"]
    with pytest.raises(NotFound):
        change.redeliver(house.context, hook.user, hook.webhook_id, hook.webhook_id)


def test_webhook_is_disabled_after_410_gone(house: House, receiver: Receiver) -> None:
    receiver.statuses = [410]
    hook = Hook(house, receiver, "run")
    for _ in range(2):
        hook.run(PASSES)
    hook.sender.start()

    def disabled() -> bool:
        return change.get(house.context, hook.user, hook.webhook_id).webhook.disabled_at_ms is not None

    wait_until(disabled, 20, "it is disabled")
    sentence = "answered 410 Gone: the webhook is disabled until it is changed"

    def all_failed() -> bool:
        return all(sentence in (message.problem or "") for message in hook.messages())

    wait_until(all_failed, 20, "all are given up")
    assert sentence in (change.get(house.context, hook.user, hook.webhook_id).problem or "")
    hook.run(PASSES)
    cursor = hook.store.webhooks.cursor
    last_id = hook.store.events.after(0, None, limit=1000)[-1].event_id
    wait_until(lambda: cursor() == last_id, 20, "the last run has been looked at")
    assert (len(receiver.requests), len(hook.messages())) == (1, 4)
    # Not what was given up, but what happens from now on.
    change.change(house.context, hook.user, hook.webhook_id, events=["failure"])
    assert change.get(house.context, hook.user, hook.webhook_id).problem is None
    hook.run(FAILS)
    hook.wait_for("run.running", "failure")
    hook.sender.stop(10)


def test_renewed_and_previous_secret_both_sign(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(house, receiver, "failure")
    hook.sender.start()
    second = change.renew_secret(house.context, hook.user, hook.webhook_id)
    hook.run(FAILS)
    hook.wait_for("failure")
    third = change.renew_secret(house.context, hook.user, hook.webhook_id)
    hook.run(FAILS)
    hook.wait_for("failure", "failure")
    monkeypatch.setattr(webhooks, "PREVIOUS_SIGNS_FOR_MS", 0)
    hook.run(FAILS)
    hook.wait_for("failure", "failure", "failure")
    hook.sender.stop(10)

    def signatures(headers: dict[str, str], body: bytes, *secrets: str) -> str:
        at_s = int(headers["webhook-timestamp"])
        return " ".join(signature(secret, headers["webhook-id"], at_s, body) for secret in secrets)

    for (headers, body), secrets in zip(
        receiver.requests, [(second, hook.secret), (third, second), (third,)], strict=True
    ):
        assert headers["webhook-signature"] == signatures(headers, body, *secrets)


def test_an_internal_address_is_refused(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "failure", allow="192.0.2.1")
    hook.sender.start()
    hook.run(FAILS)

    def problem() -> str:
        return change.get(house.context, hook.user, hook.webhook_id).problem or ""

    wait_until(lambda: "127.0.0.1 is a loopback address" in problem(), 20, "it is refused")
    hook.sender.stop(10)
    assert receiver.requests == []


def test_only_owners_and_admins_create_webhooks(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    bob = users.create(AccountContext(hook.store), "bob", by=operator())
    project_id = hook.project.project_id

    def create(user: User, projects: list[str] | None, url: str = "https://hook.example/") -> None:
        change.create(house.context, user, url, ["run"], projects)

    with pytest.raises(NotFound):
        create(bob, [project_id])
    hook.store.projects.set_member(project_id, bob.user_id, ProjectRole.WRITE)
    with pytest.raises(Forbidden):
        create(bob, [project_id])
    with pytest.raises(InvalidInput, match="name the projects"):
        create(hook.user, None)
    for url in (
        "ftp://x/",
        "https://",
        "https://u:p@x/",
        "https://x/\n",
        "http://[/",
        "http://x:0/",
        "https://ü/",
    ):
        with pytest.raises(InvalidInput):
            create(hook.user, [project_id], url)
    with pytest.raises(NotFound):
        change.get(house.context, bob, hook.webhook_id)


def test_pending_messages_of_a_backup_are_not_sent_after_a_restore(house: House, receiver: Receiver) -> None:
    hook = Hook(house, receiver, "run")
    hook.run(PASSES)
    Announcer(hook.store, None).announce(1)
    open_run = hook.project.push(PASSES.replace("exit 0", "print x; hang"))
    for worker in house.workers:
        worker.stop(10)
    backup._resume(house.database.path, "restored from a backup")
    assert hook.store.runs.get(open_run.run_id).is_final
    Announcer(hook.store, None).announce(1)
    assert {message.owed_since_ms for message in hook.messages()} == {None}


def test_number_of_pending_messages_is_limited(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_OWED", 3)
    hook = Hook(house, receiver, "run")
    for _ in range(3):
        hook.run(PASSES)
    Announcer(hook.store, None).announce(1)
    owed = [message.owed_since_ms is not None for message in hook.messages()]
    assert owed == [True] * 3 + [False] * 3
    assert hook.messages()[-1].problem == "too many later ones were waiting"
