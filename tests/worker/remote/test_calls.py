"""The calls of workers, one by one: each may be repeated, and none is taken from the wrong worker."""

import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from reactorcide.app.worker import ServiceAddress, WorkerService
from reactorcide.domain.errors import ConfigurationError
from reactorcide.domain.workers import PROTOCOL
from reactorcide.settings import Settings
from reactorcide.worker.remote.transport import ServiceAway, Transport
from tests.support.client import Client, Job
from tests.support.ports import free_port
from tests.support.remote import add_worker
from tests.support.service import Service

QUEUE = "by-hand"


@dataclass
class Hand:
    """A worker whose calls a test makes itself."""

    hub: Service
    client: Client
    worker_id: str
    session_id: str

    def next(self, *held: tuple[str, int], free: int = 1, wait: float = 5) -> dict[str, Any]:
        """Return what there is to do."""
        body = {
            "free": free,
            "wait": wait,
            "held": [{"job_id": job_id, "attempt": attempt} for job_id, attempt in held],
        }
        response = self.client.request("POST", f"worker/sessions/{self.session_id}/next", json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def assigned(self, **fields: Any) -> tuple[Job, dict[str, Any]]:
        """Submit a job, and return it with its assignment."""
        job = self.hub.admin.submit(queue_name=QUEUE, **fields)
        (assignment,) = self.next()["assigned"]
        assert assignment["job_id"] == job["job_id"]
        return job, assignment

    def call(self, assignment: dict[str, Any], method: str, path: str, **options: Any) -> requests.Response:
        """Call a path of an attempt with its lease token."""
        address = f"worker/attempts/{assignment['job_id']}/{assignment['attempt']}/{path}"
        headers = {"X-Lease-Token": assignment["lease_token"]} | options.pop("headers", {})
        return self.client.request(method, address, headers=headers, **options)

    def piece(self, assignment: dict[str, Any], at: int, text: bytes, **more: Any) -> requests.Response:
        """Send a piece of the log without an index."""
        query = {"offset": at, "index_offset": 0} | more
        headers = {"Content-Type": "application/octet-stream"}
        return self.call(assignment, "PUT", "log", params=query, data=text, headers=headers)

    def finish(self, assignment: dict[str, Any], **fields: Any) -> requests.Response:
        """End an attempt."""
        body = {"exit_code": 0, "log_bytes": 0, "index_bytes": 0} | fields
        return self.call(assignment, "POST", "finish", json=body)


@pytest.fixture
def hand(hub: Service) -> Iterator[Hand]:
    """A worker that has begun its session."""
    made = new_hand(hub)
    yield made
    assert hub.admin.request("DELETE", f"workers/{made.worker_id}").status_code == 204


def new_hand(hub: Service) -> Hand:
    """Add a worker, and begin its session."""
    worker_id, token = add_worker(hub, f"hand-{uuid.uuid4().hex[:8]}", QUEUE)
    client = hub.client(uuid.uuid4().hex)
    registration = {"token": token, "secret": client.token}
    assert hub.anonymous().request("POST", "worker/register", json=registration).status_code == 200
    made = Hand(hub, client, worker_id, str(uuid.uuid4()))
    session = {"session_id": made.session_id, "host": "here", "version": "0", "protocol": 1}
    session |= {"concurrency": 1, "queues": [], "lost_after": 300}
    response = client.request("POST", "worker/sessions", json=session)
    assert response.json()["worker_id"] == worker_id
    return made


def stale(response: requests.Response) -> bool:
    """Return whether a call was refused because the attempt is not the worker's."""
    return response.status_code == 409 and response.json()["error"] == "attempt_stale"


def test_an_unconfirmed_assignment_is_repeated_and_a_cancel_is_told_once(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned(job_env_vars={"API_TOKEN": "a-real-secret"})
    assert assignment["definition"]["job_env_vars"] == {"API_TOKEN": "a-real-secret"}
    (again,) = hand.next(wait=0)["assigned"]
    assert (again["lease_token"], again["attempt"]) == (assignment["lease_token"], 1)
    key = job["job_id"], 1
    assert hand.next(key, wait=0) == {"assigned": [], "cancelled": []}
    hub.admin.cancel(job)
    assert hand.next(key)["cancelled"] == [{"job_id": job["job_id"], "attempt": 1}]
    assert hand.call(assignment, "POST", "renew").json() == {"cancelled": True}
    assert hand.finish(assignment, exit_code=None, error="cancelled").status_code == 204
    assert hub.admin.job(job)["status"] == "cancelled"


def test_pieces_of_a_log_are_taken_at_its_end_and_recognized_when_repeated(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert hand.piece(assignment, 0, b"one").json() == {"log_bytes": 3, "index_bytes": 0}
    assert hand.piece(assignment, 0, b"one").json()["log_bytes"] == 3
    # What was sent again has grown meanwhile.
    assert hand.piece(assignment, 0, b"one two").json()["log_bytes"] == 7
    for at, text in ((8, b"late"), (0, b"ONE two"), (0, b"o")):
        response = hand.piece(assignment, at, text)
        assert (response.status_code, response.json()["error"]) == (409, "log_conflict"), response.text
        assert response.headers["X-Log-Ends"] == "7:0"
    assert hand.piece(assignment, 3, b"!", replace=True).json()["log_bytes"] == 4
    assert hand.finish(assignment, log_bytes=7).json()["error"] == "log_conflict"
    assert hand.finish(assignment, log_bytes=4).status_code == 204
    assert hub.admin.job(job)["status"] == "completed"


def test_an_end_is_repeated_with_the_same_body_alone(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    failed = {"exit_code": 3, "error": "exit code 3"}
    for _ in range(2):
        assert hand.finish(assignment, **failed).status_code == 204
    assert stale(hand.finish(assignment))
    assert stale(hand.call(assignment, "POST", "renew"))
    ended = hub.admin.job(job)
    assert (ended["status"], ended["exit_code"]) == ("failed", 3)


def test_only_retries_permit_another_run(hub: Service, hand: Hand) -> None:
    _, assignment = hand.assigned(retries=1)
    again = {"reason": "exit code 1", "delay": 0, "retries_used": 2, "log_bytes": 0, "index_bytes": 0}
    assert hand.call(assignment, "POST", "try-again", json=again).status_code == 400
    for _ in range(2):
        response = hand.call(assignment, "POST", "try-again", json=again | {"retries_used": 1})
        assert response.status_code == 204
    (second,) = hand.next()["assigned"]
    assert (second["attempt"], second["retries_used"]) == (2, 1)
    assert second["lease_token"] != assignment["lease_token"]
    assert hand.call(second, "POST", "try-again", json=again).status_code == 400
    assert hand.finish(second).status_code == 204


def test_an_attempt_is_of_its_worker_and_its_lease(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert stale(hand.call(assignment | {"lease_token": "0" * 64}, "POST", "renew"))
    assert stale(hand.call(assignment | {"attempt": 2}, "POST", "renew"))
    _, token = add_worker(hub, f"other-{uuid.uuid4().hex[:8]}")
    other = hub.client(uuid.uuid4().hex)
    body = {"token": token, "secret": other.token}
    assert hub.anonymous().request("POST", "worker/register", json=body).status_code == 200
    stolen = Hand(hub, other, "", hand.session_id)
    for method, path in (("POST", "renew"), ("GET", "source"), ("GET", "inputs"), ("DELETE", "artifacts")):
        assert stale(stolen.call(assignment, method, path)), path
    response = other.request("POST", f"worker/sessions/{hand.session_id}/next", json={"free": 1, "held": []})
    assert (response.status_code, response.json()["error"]) == (409, "session_gone")
    for path in ("../../x", "a//b", "/etc/passwd"):
        address = f"artifacts/{path.replace('/', '%2F')}"
        response = hand.call(assignment, "PUT", address, data=b"x")
        assert response.status_code in (400, 404), response.text
    assert hand.finish(assignment).status_code == 204
    assert hub.admin.artifacts(job) == []


def test_a_body_that_breaks_off_is_not_what_is_wrong(hub: Service, hand: Hand) -> None:
    _, assignment = hand.assigned()
    head = (
        f"PUT /api/v1/worker/attempts/{assignment['job_id']}/1/artifacts/a HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {hand.client.token}\r\nX-Lease-Token: {assignment['lease_token']}\r\n"
        "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port), 20) as sender:
        sender.sendall(head.encode())
        # The service wants the body.
        assert sender.recv(4096).startswith(b"HTTP/1.1 100 ")
        sender.sendall(b"4\r\nhalf\r\nand no more chunks\r\n")
        answer = b"".join(iter(lambda: sender.recv(4096), b""))
    # Else its worker would take the name of the artifact for too long.
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert b"send it again" in answer
    assert hand.finish(assignment).status_code == 204


def test_versions_one_apart_understand_each_other_and_others_get_a_sentence(hub: Service, hand: Hand) -> None:
    session = {"session_id": hand.session_id, "host": "here", "version": "0", "concurrency": 1}
    session |= {"queues": [], "lost_after": 300}
    for protocol in (PROTOCOL, PROTOCOL + 1):
        response = hand.client.request("POST", "worker/sessions", json=session | {"protocol": protocol})
        assert (response.status_code, response.json()["protocol"]) == (200, PROTOCOL)
    response = hand.client.request("POST", "worker/sessions", json=session | {"protocol": PROTOCOL + 2})
    assert response.status_code == 409
    assert "upgrade the older one of the two" in response.json()["message"]


def test_a_file_for_a_service_that_is_away_can_be_sent_later() -> None:
    transport = Transport(f"http://127.0.0.1:{free_port()}", lambda: "secret")
    with pytest.raises(ServiceAway, match="refused"):
        transport.send("PUT", "attempts/job/1/artifacts/a", [b"content"], lease="token")


def test_secrets_cross_no_network_in_plain_text(tmp_path: Any) -> None:
    settings = Settings(data_dir=tmp_path)
    for url, sentence in (("http://ci.example.com", "in plain text"), ("ci.example.com", "is not a URL")):
        address = ServiceAddress(url=url, token="rcw_0", ca_file=None, lost_after_s=300)
        with pytest.raises(ConfigurationError, match=sentence):
            WorkerService(settings, address, {}, lambda problem: None)
