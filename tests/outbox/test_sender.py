"""Statuses on their way to a forge: sent in order until they have arrived, whatever the forge does."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from time import monotonic

import pytest

from reactorcide.domain.errors import StoreError
from reactorcide.domain.forges import ForgeKind, StatusState
from reactorcide.domain.projects import CredentialKind, Project, Visibility
from reactorcide.domain.statuses import OwedStatus, StatusRecord
from reactorcide.domain.webhooks import Webhook, WebhookEvent
from reactorcide.lib.clock import now_ms
from reactorcide.lib.notifier import OUTBOX, LocalNotifier
from reactorcide.metrics import Metrics
from reactorcide.network.addresses import AddressRules
from reactorcide.network.http import HttpClient
from reactorcide.outbox import commit_statuses, sender
from reactorcide.outbox.commit_statuses import CommitStatuses
from reactorcide.outbox.sender import Line, Sender
from reactorcide.outbox.webhooks import WebhookMessages
from reactorcide.store import Store, outbox
from reactorcide.store.outbox import STATUSES, WEBHOOKS, Lane
from tests.support.http_server import answer_with, serving
from tests.support.store import chosen_database, new_store
from tests.support.waiting import wait_until
from tests.support.webhooks import owed_message

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "right"
DAY_MS = 24 * 3_600_000


class Forge:
    """A forge that takes statuses like Gitea, or refuses them as ``refuse`` does."""

    def __init__(self) -> None:
        self.accepted: list[dict[str, str]] = []
        self.contexts: list[str] = []
        self.refuse: Callable[[BaseHTTPRequestHandler, dict[str, str]], bool] = lambda request, status: False
        """Answers a request itself, and returns that it has."""
        self.port = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        status = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        status["sha"] = request.path.rpartition("/")[2]
        self.contexts.append(status["context"])
        if request.headers["Authorization"] != "token right":
            answer_with(401, body=b'{"message": "invalid token wrong"}')(request)
        elif not self.refuse(request, status):
            self.accepted.append(status)
            answer_with(201, body=b"{}")(request)

    def states(self, context: str = "ci") -> list[str]:
        return [status["state"] for status in self.accepted if status["context"] == context]


class House:
    """A store, a sender for it, and a forge."""

    def __init__(self, path: Path, forge: Forge) -> None:
        self.database = chosen_database(path / "jobs.db")
        self.store: Store = new_store(self.database)
        self.store.instance.id("instance")
        self.store.instance.open_vault()
        self.forge = forge
        self.metrics = Metrics()
        self.senders: list[Sender] = []
        self.notifier = LocalNotifier()

    def start(self, *, public_url: str | None = None, timeout_s: float = 5.0) -> Sender:
        http = HttpClient(AddressRules(allow=["127.0.0.1"]).refusal, timeout_s=timeout_s)
        lines: dict[str, Line] = {
            STATUSES: CommitStatuses(self.store, http, public_url),
            WEBHOOKS: WebhookMessages(self.store, http),
        }
        sender = Sender(self.store, lines, self.notifier, self.metrics)
        sender.start()
        self.senders.append(sender)
        return sender

    def project(self, *, token: str = TOKEN, port: int | None = None, owner_id: str = "u") -> str:
        project = Project(
            project_id=str(uuid.uuid4()),
            name=uuid.uuid4().hex,
            git_url=f"http://127.0.0.1:{port or self.forge.port}/acme/site.git",
            visibility=Visibility.PRIVATE,
            forge=ForgeKind.GITEA,
            created_at_ms=1,
            updated_at_ms=1,
        )
        with self.store.transaction() as tx:
            tx.projects.add(project, project.git_url, owner_id)
            tx.projects.set_credential(project.project_id, CredentialKind.TOKEN, token, now_ms=1)
        return project.project_id

    def owe_message(self, user_id: str, port: int) -> None:
        """Owe a message to a new webhook of a user."""
        webhook = Webhook(
            webhook_id=str(uuid.uuid4()),
            user_id=user_id,
            url=f"http://127.0.0.1:{port}/",
            events=(WebhookEvent.RUN,),
            project_ids=None,
            created_at_ms=1,
        )
        with self.store.transaction() as tx:
            tx.webhooks.add(webhook, "whsec_c2VjcmV0")
            tx.webhooks.owe(owed_message(webhook.webhook_id))
        self.notifier.announce(OUTBOX)

    def owe(self, project_id: str, state: str, context: str = "ci", *, turn: int = 1, at_ms: int = 0) -> bool:
        status = OwedStatus(
            project_id=project_id,
            sha=SHA,
            context=context,
            state=StatusState(state),
            description=state,
            run_id="r",
            turn=turn,
        )
        owes = self.store.outbox.owe_status(status, now_ms=at_ms or now_ms())
        self.notifier.announce(OUTBOX)
        return owes

    def status(self, project_id: str, context: str = "ci") -> StatusRecord:
        statuses = self.store.outbox.statuses(project_id, limit=100)
        (status,) = (item for item in statuses if item.context == context)
        return status

    def wait(self, condition: Callable[[], bool], what: str, deadline_s: float = 20) -> None:
        wait_until(condition, deadline_s, f"{what}; the forge has {self.forge.accepted}")

    def problem(self, project_id: str) -> str | None:
        return self.store.outbox.problem(STATUSES, project_id)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    forge = Forge()
    with serving(forge.answer) as port:
        forge.port = port
        house = House(tmp_path, forge)
        yield house
        for one in house.senders:
            one.stop(10)
        house.database.close()


def refuse_once(answer: Callable[[BaseHTTPRequestHandler], None]) -> Callable[..., bool]:
    answers = [answer]

    def refuse(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        if not answers:
            return False
        answers.pop()(request)
        return True

    return refuse


def test_owed_status_is_sent_with_a_link(house: House) -> None:
    house.start(public_url="https://ci.example/base")
    project_id = house.project()
    house.owe(project_id, "pending")
    house.wait(lambda: house.status(project_id).sent_state == "pending", "it has arrived")
    assert house.forge.accepted == [
        {
            "sha": SHA,
            "state": "pending",
            "context": "ci",
            "description": "pending",
            "target_url": "https://ci.example/base/runs/r",
        }
    ]
    status = house.status(project_id)
    assert (status.owed_since_ms, status.next_at_ms, status.problem) == (None, None, None)
    assert "reactorcide_outbox_sent_total" in house.metrics.render().decode()


def test_without_a_public_url_no_link_is_sent(house: House) -> None:
    house.start()
    house.owe(house.project(), "pending")
    house.wait(lambda: bool(house.forge.accepted), "it has arrived")
    assert "target_url" not in house.forge.accepted[0]


def test_status_owed_before_a_start_is_sent(house: House) -> None:
    project_id = house.project()
    house.owe(project_id, "pending")
    house.owe(project_id, "success")
    house.start()
    house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")
    assert house.forge.states() == ["success"]


def test_change_during_a_send_is_sent_afterwards(house: House) -> None:
    project_id = house.project()
    free, entered = threading.Event(), threading.Event()

    def wait(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        entered.set()
        free.wait(10)
        return False

    house.forge.refuse = wait
    house.start()
    house.owe(project_id, "pending")
    assert entered.wait(10)
    house.owe(project_id, "failure")
    house.owe(project_id, "success")
    free.set()
    house.wait(lambda: house.status(project_id).sent_state == "success", "the last has arrived")
    assert house.forge.states() == ["pending", "success"]


def test_the_status_of_an_older_run_changes_nothing(house: House) -> None:
    project_id = house.project()
    assert house.owe(project_id, "pending", turn=2)
    assert not house.owe(project_id, "error", turn=1)
    assert house.owe(project_id, "success", turn=2)
    assert not house.owe(project_id, "success", turn=2)
    assert house.status(project_id).version == 2


def garbage(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\0\xff" * 1000)


def huge(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 500 Oh\r\n\r\n")
    for _ in range(1600):
        request.wfile.write(b"x" * 65_536)


def silent(request: BaseHTTPRequestHandler) -> None:
    request.connection.recv(1)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (garbage, "cannot reach http://127.0.0.1:"),
        (huge, "answered 500 Internal Server Error to the status ci of 0123456789"),
        (silent, "did not answer within 0.5 s"),
        (answer_with(404), "the token may not see the repository, or there is none of that name, or no such"),
        (answer_with(422, body=b'{"message": "No commit"}'), "answered 422 Unprocessable Entity (No commit)"),
        (answer_with(403), "the project's token may not set commit statuses"),
        (answer_with(303), "answered 303 See Other"),
        (answer_with(307, {"Location": "http://169.254.169.254/"}), "redirects to another host"),
    ],
)
def test_failed_status_is_sent_again(
    house: House, answer: Callable[[BaseHTTPRequestHandler], None], problem: str
) -> None:
    project_id = house.project()
    house.forge.refuse = refuse_once(answer)
    house.start(timeout_s=0.5)
    house.owe(project_id, "success")
    house.wait(lambda: house.problem(project_id) is not None, "the problem is recorded")
    assert problem in (house.problem(project_id) or "")
    assert house.status(project_id).problem == house.problem(project_id)
    house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")
    house.wait(lambda: house.problem(project_id) is None, "there is no problem any more")
    assert house.status(project_id).problem is None
    assert len(house.forge.contexts) == 2


def test_wrong_token_is_reported_and_a_project_change_retries_at_once(house: House) -> None:
    project_id = house.project(token="wrong")
    house.start()
    for context in ("a", "b", "c"):
        house.owe(project_id, "success", context)
    house.wait(lambda: house.problem(project_id) is not None, "the problem is recorded")
    problem = house.problem(project_id) or ""
    assert "answered 401 Unauthorized (invalid token ***)" in problem
    assert "the project's token is wrong or has expired; set another one" in problem
    started = monotonic()
    house.wait(lambda: len(house.forge.contexts) >= 3, "after a second and two, one is tried each time")
    assert monotonic() - started > 1.5
    with house.store.transaction() as tx:
        tx.projects.set_credential(project_id, CredentialKind.TOKEN, "right", now_ms=2)
        tx.outbox.resume(STATUSES, project_id, now_ms=now_ms())
    house.wait(lambda: len(house.forge.accepted) == 3, "all have arrived", deadline_s=10)
    house.wait(lambda: house.problem(project_id) is None, "there is no problem any more")


def test_project_change_applies_to_a_running_send(house: House) -> None:
    project_id = house.project(token="wrong")
    entered, free = threading.Event(), threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        entered.set()
        free.wait(10)
        house.forge.answer(request)

    with serving(answer) as port:
        project = house.store.projects.get(project_id)
        forge_url = f"http://127.0.0.1:{port}"
        house.store.projects.save(replace(project, forge_url=forge_url), None)
        house.start()
        house.owe(project_id, "success")
        assert entered.wait(10)
        with house.store.transaction() as tx:
            tx.projects.set_credential(project_id, CredentialKind.TOKEN, TOKEN, now_ms=2)
            tx.outbox.resume(STATUSES, project_id, now_ms=now_ms())
        free.set()
        house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")
        assert len(house.forge.contexts) == 2
        house.wait(lambda: house.problem(project_id) is None, "there is no problem")


def test_refused_status_does_not_delay_others(house: House) -> None:
    project_id = house.project()

    def refuse(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        if status["context"] != "bad":
            return False
        answer_with(422)(request)
        return True

    house.forge.refuse = refuse
    for context in ("bad", "b", "c", "d"):
        house.owe(project_id, "success", context)
    house.start()
    house.wait(lambda: len(house.forge.accepted) == 3, "the others have arrived")
    house.wait(lambda: house.forge.contexts.count("bad") == 2, "it is tried again")
    assert house.status(project_id, "bad").owed_since_ms is not None


def test_after_many_refusals_the_rest_waits(house: House) -> None:
    project_id = house.project()

    def refuse(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        answer_with(404)(request)
        return True

    house.forge.refuse = refuse
    for number in range(100):
        house.owe(project_id, "success", f"c{number}")
    house.start()
    house.wait(lambda: len(house.forge.contexts) >= 6, "six are tried, three at a time")
    started = monotonic()
    house.wait(lambda: len(house.forge.contexts) >= 9, "three more are tried")
    assert monotonic() - started > 1
    assert len(house.forge.contexts) == 9


@pytest.mark.parametrize(
    "answer",
    [
        answer_with(429, {"Retry-After": "3"}),
        answer_with(403, {"Retry-After": "3"}),
        answer_with(503, {"Retry-After": "3"}),
        answer_with(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3"}),
    ],
)
def test_retry_after_of_the_forge_is_respected(
    house: House, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    project_id = house.project()
    house.forge.refuse = refuse_once(answer)
    house.start()
    house.owe(project_id, "success")
    house.wait(lambda: bool(house.forge.contexts), "it was asked")
    started = monotonic()
    house.wait(lambda: house.problem(project_id) is not None, "that is recorded")
    # Also nothing new, and not after a restart.
    house.owe(project_id, "success", "other")
    house.senders[0].stop(10)
    house.start()
    house.wait(lambda: len(house.forge.accepted) == 2, "both have arrived")
    assert 2.5 < monotonic() - started < 8


def test_pause_that_a_forge_asks_for_holds_for_all_projects_with_the_token(house: House) -> None:
    house.forge.refuse = refuse_once(answer_with(429, {"Retry-After": "3"}))
    house.start()
    first, second, other = house.project(), house.project(), house.project(token="wrong")
    house.owe(first, "success", "first")
    house.wait(lambda: house.problem(first) is not None, "the pause is recorded")
    started = monotonic()
    house.owe(second, "success", "second")
    house.owe(other, "success", "other")
    house.wait(lambda: "asks for a pause" in (house.problem(second) or ""), "the second waits, too")
    house.wait(lambda: "other" in house.forge.contexts, "another token does not wait")
    assert "second" not in house.forge.contexts
    house.wait(lambda: len(house.forge.accepted) == 2, "both have arrived")
    assert 2 < monotonic() - started < 8


def test_exhausted_rate_limit_is_respected_before_a_refusal(house: House) -> None:
    project_id = house.project()

    def take(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        house.forge.accepted.append(status)
        used_up = len(house.forge.accepted) == 1
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "2"} if used_up else {}
        answer_with(201, headers)(request)
        return True

    house.forge.refuse = take
    for context in ("a", "b"):
        house.owe(project_id, "success", context)
    house.start()
    house.wait(lambda: bool(house.forge.accepted), "one has arrived")
    started = monotonic()
    house.wait(lambda: len(house.forge.accepted) == 2, "both have arrived")
    assert monotonic() - started > 1.5
    assert house.problem(project_id) is None


def test_slow_forge_does_not_delay_other_projects(house: House) -> None:
    entered = threading.Event()
    free = threading.Event()

    def hang(request: BaseHTTPRequestHandler) -> None:
        entered.set()
        free.wait(20)

    with serving(hang) as port:
        slow, quick = house.project(port=port), house.project()
        house.start(timeout_s=20)
        house.owe(slow, "success")
        assert entered.wait(10)
        house.owe(quick, "success")
        house.wait(lambda: len(house.forge.accepted) == 1, "the other has arrived", deadline_s=5)
        free.set()


@pytest.mark.parametrize("kind", [STATUSES, WEBHOOKS])
def test_silent_servers_of_one_user_leave_threads_to_other_users(house: House, kind: str) -> None:
    """More lanes than there are threads; nothing has failed yet."""
    free, asked, arrived = threading.Event(), threading.Semaphore(0), threading.Event()

    def hang(request: BaseHTTPRequestHandler) -> None:
        asked.release()
        free.wait(30)

    def take(request: BaseHTTPRequestHandler) -> None:
        arrived.set()
        answer_with(201, body=b"{}")(request)

    def owe(user_id: str, port: int) -> None:
        if kind == STATUSES:
            house.owe(house.project(port=port, owner_id=user_id), "success")
        else:
            house.owe_message(user_id, port)

    with serving(hang) as silent, serving(take) as port:
        for _ in range(20):
            owe("mallory", silent)
        house.start(timeout_s=30)
        try:
            assert all(asked.acquire(timeout=10) for _ in range(8))
            owe("ann", port)
            assert arrived.wait(10)
        finally:
            free.set()


def test_lanes_take_turns(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has much to send does not keep its thread from the others."""
    monkeypatch.setattr(sender, "_MAX_THREADS", 1)
    monkeypatch.setattr(sender, "_TURN_S", 0.1)
    much, little = house.project(), house.project()
    for number in range(200):
        house.owe(much, "success", f"much {number}")
    house.owe(little, "success", "little")
    house.start()
    house.wait(lambda: len(house.forge.accepted) == 201, "all have arrived", deadline_s=60)
    assert [status["context"] for status in house.forge.accepted].index("little") < 150


def test_status_that_fails_for_long_is_given_up(house: House) -> None:
    project_id = house.project()
    house.forge.refuse = lambda request, status: answer_with(401)(request) is None
    house.owe(project_id, "success", "old", at_ms=now_ms() - 31 * DAY_MS)
    house.owe(project_id, "success", "new")
    house.start()
    house.wait(lambda: house.status(project_id, "old").owed_since_ms is None, "the old one is given up")
    assert house.status(project_id, "old").problem == "it could not be sent for 30 days"
    assert house.status(project_id, "new").owed_since_ms is not None


def test_corrected_clock_does_not_delay_statuses(house: House) -> None:
    project_id = house.project()
    year_2100_ms = 4_102_444_800_000
    house.owe(project_id, "pending", at_ms=year_2100_ms)
    status = house.status(project_id)
    house.store.outbox.status_failed(status, "x", next_at_ms=year_2100_ms + 600_000)
    house.store.outbox.pause(Lane(STATUSES, project_id, 5, "x"), until_ms=year_2100_ms + 600_000)
    house.start()
    house.wait(lambda: house.status(project_id).sent_state == "pending", "it has arrived")


def test_statuses_of_a_removed_project_are_sent_as_errors(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAY_ARRIVE_FOR_MS", 1000)
    project_id = house.project()
    house.owe(project_id, "success", "owed")
    house.owe(project_id, "success", "once more")
    sent = house.status(project_id, "once more")
    house.store.outbox.status_unanswered(sent, now_ms=now_ms())
    house.store.outbox.status_sent(sent, now_ms=now_ms())
    with house.store.transaction() as tx:
        project = tx.projects.get(project_id)
        commit_statuses.close(tx, project, now_ms=now_ms())
        tx.projects.remove(project_id)
    house.start()
    house.wait(lambda: len(house.forge.accepted) == 2, "both have arrived")
    descriptions = {status["context"]: status["description"] for status in house.forge.accepted}
    assert descriptions == {"owed": "the project was deleted", "once more": "success"}
    assert (house.forge.states("owed"), house.forge.states("once more")) == (["error"], ["success"])

    def is_clean() -> bool:
        house.store.outbox.remove_old(before_ms=0)
        return house.store.outbox.statuses(project_id, limit=1) == []

    house.wait(is_clean, "nothing is left of it")
    house.wait(lambda: house.store.outbox.destination(Lane(STATUSES, project_id)) is None, "nor its token")


def test_statuses_of_a_project_whose_token_was_removed_are_given_up(house: House) -> None:
    project_id = house.project()
    # By a clock that was wrong.
    house.owe(project_id, "success", at_ms=now_ms() + 60 * DAY_MS)
    house.store.projects.remove_credential(project_id, CredentialKind.TOKEN)
    house.start()
    house.wait(lambda: house.status(project_id).owed_since_ms is None, "it is given up")
    assert house.status(project_id).problem == "the project has no token for its forge any more"


def test_a_status_may_be_owed_after_one_was_given_up(house: House) -> None:
    project_id = house.project(token="wrong")
    house.start()
    house.owe(project_id, "pending", at_ms=now_ms() - 31 * DAY_MS)
    house.wait(lambda: house.status(project_id).owed_since_ms is None, "it is given up")
    with house.store.transaction() as tx:
        tx.projects.set_credential(project_id, CredentialKind.TOKEN, "right", now_ms=2)
        tx.outbox.resume(STATUSES, project_id, now_ms=now_ms())
    house.owe(project_id, "success")
    house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")


def test_unexpected_error_is_retried_with_delay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def fail(*_: object) -> None:
        tried.append(monotonic())
        raise ZeroDivisionError

    monkeypatch.setattr(commit_statuses.OwedStatus, "send", fail)
    project_id = house.project()
    house.start()
    house.owe(project_id, "success")
    house.wait(lambda: len(tried) == 3, "it is tried again")
    assert tried[2] - tried[1] > 1.8
    assert house.problem(project_id) == "an unexpected error, which the service's log has"
    monkeypatch.undo()
    house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")


def test_status_whose_arrival_cannot_be_recorded_is_sent_again_with_delay(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[float] = []

    def fail(*_: object, **__: object) -> None:
        sent.append(monotonic())
        raise StoreError("the disk is full")

    monkeypatch.setattr(outbox.Outbox, "status_sent", fail)
    project_id = house.project()
    house.start()
    house.owe(project_id, "success")
    house.wait(lambda: len(sent) == 2, "it is sent again")
    assert sent[1] - sent[0] > 0.9
    monkeypatch.undo()
    house.wait(lambda: house.status(project_id).sent_state == "success", "it has arrived")


def test_retry_delay_grows_to_ten_minutes_then_is_an_hour() -> None:
    delays = [sender._delay_s(failures) for failures in range(1, 14)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 3600, 3600]


def test_stop_does_not_wait_for_servers(house: House) -> None:
    free = threading.Event()
    entered = threading.Event()

    def hang(request: BaseHTTPRequestHandler, status: dict[str, str]) -> bool:
        entered.set()
        free.wait(20)
        return False

    house.forge.refuse = hang
    one = house.start(timeout_s=30)
    house.owe(house.project(), "success")
    assert entered.wait(10)
    started = monotonic()
    one.stop(0.5)
    assert monotonic() - started < 3
    one.stop(0.1)
    free.set()


def test_old_statuses_are_removed_but_not_owed_ones(house: House) -> None:
    project_id = house.project()
    house.owe(project_id, "success", "sent", at_ms=1)
    house.store.outbox.status_sent(house.status(project_id, "sent"), now_ms=2)
    house.owe(project_id, "success", "owed", at_ms=1)
    house.store.outbox.remove_old(before_ms=2)
    assert [item.context for item in house.store.outbox.statuses(project_id, limit=10)] == ["owed"]
