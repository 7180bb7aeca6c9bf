"""Following a log and the status changes of jobs, by text and by server-sent events."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import docker
import pytest
import requests

from tests.conftest import NewService
from tests.support.client import Client, Job
from tests.support.service import Service
from tests.support.waiting import wait_until

Event = dict[str, Any]


@contextmanager
def events(api: Client, path: str, last_id: str | None = None, **params: object) -> Iterator[Iterator[Event]]:
    """Yield server-sent events as they come: ``id``, ``event`` and ``data``, which is parsed."""
    headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
    with api.request("GET", path, params=params, headers=headers, stream=True) as response:
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield parsed(response.iter_lines(chunk_size=None))


def parsed(lines: Iterator[bytes]) -> Iterator[Event]:
    fields: Event = {}
    for line in lines:
        name, _, value = line.decode().partition(": ")
        if not line:
            if "data" in fields:
                yield fields | {"data": json.loads(fields["data"])}
            fields = {}
        elif name:
            fields[name] = value


def log_path(job: Job) -> str:
    return f"jobs/{job['job_id']}/logs"


def test_log_is_streamed_as_events(api: Client) -> None:
    job = api.submit("echo one; sleep 0.2; echo two >&2; sleep 0.2; printf '\\377end'; exit 3")
    with events(api, log_path(job)) as stream:
        *pieces, end = list(stream)
    assert [(item["data"]["stream"], item["data"]["text"]) for item in pieces] == [
        ("stdout", "one\n"),
        ("stderr", "two\n"),
        ("stdout", "\ufffdend"),
        ("service", "\n[reactorcide] exit code 3\n"),
    ]
    assert [item["id"] for item in pieces[:3]] == ["1:4", "1:8", "1:12"]
    assert end["event"] == "end"
    assert end["data"] == {"status": "failed", "exit_code": 3, "error": "exit code 3"}
    with events(api, log_path(job), "1:4", tail=1) as stream:
        assert [item["data"] for item in stream] == [item["data"] for item in [*pieces[1:], end]]
    with events(api, log_path(job), "8", stream="stdout") as stream:
        assert [item["data"].get("text") for item in stream] == ["\ufffdend", None]
    with events(api, log_path(job), pieces[-1]["id"]) as stream:
        assert [item["event"] for item in stream] == ["end"]


def test_long_output_is_split_into_several_events(api: Client) -> None:
    job = api.run("seq 50000; printf '%0100000d' 7; echo; echo ü")
    with events(api, log_path(job)) as stream:
        *pieces, _ = list(stream)
    texts = [item["data"]["text"] for item in pieces]
    assert "".join(texts).encode() == api.log(job)
    assert max(len(text) for text in texts) <= 1 << 16
    assert [item["id"] for item in pieces] == [
        f"1:{len(''.join(texts[: number + 1]).encode())}" for number in range(len(texts))
    ]
    # Cut behind a line, where there is one.
    assert all(text.endswith("\n") or "\n" not in text for text in texts)


@pytest.mark.parametrize(
    ("position", "params"),
    [("1:4:4", {}), ("x", {}), ("1:-4", {}), ("1:4", {"attempt": 2, "follow": "true"})],
)
def test_malformed_position_is_refused_by_name(api: Client, position: str, params: dict[str, object]) -> None:
    job = api.run("echo one")
    headers = {"Last-Event-ID": position, "Accept": "text/event-stream"}
    response = api.request("GET", log_path(job), params=params, headers=headers)
    assert (response.status_code, response.json()["error"]) in ((400, "invalid_input"), (404, "not_found"))


def test_text_stream_resumes_at_a_position(api: Client) -> None:
    job = api.run("seq 10")
    for position, tail, expected, start in (
        ("1:16", None, b"9\n10\n", "1:16"),
        ("16", 1, b"9\n10\n", "1:16"),
        (None, 1, b"10\n", "1:18"),
        (None, None, api.log(job), "1:0"),
    ):
        headers = {} if position is None else {"Last-Event-ID": position}
        params = {"follow": "true"} | ({} if tail is None else {"tail": str(tail)})
        response = api.request("GET", log_path(job), params=params, headers=headers)
        assert (response.content, response.headers["X-Log-Position"]) == (expected, start)


def test_text_stream_can_have_one_stream_and_times(api: Client) -> None:
    job = api.submit("echo one; echo two >&2; sleep 0.3; echo three")
    with api.follow(job, stream="stdout", timestamps="true") as lines:
        stamped = [line.split(b" ") for line in lines]
    assert [text for _, text in stamped] == [b"one", b"three"]
    first, second = (datetime.fromisoformat(stamp.decode()) for stamp, _ in stamped)
    assert 0.2 < (second - first).total_seconds() < 5


def test_follower_continues_with_the_next_attempt(api: Client) -> None:
    job = api.submit("echo try; exit 1", retries=1)
    with events(api, log_path(job)) as stream:
        *pieces, end = list(stream)
    assert [item["id"].split(":")[0] for item in pieces] == ["1", "1", "2", "2"]
    assert end["data"]["status"] == "failed"
    with events(api, log_path(job), pieces[0]["id"], attempt=1) as stream:
        assert [item["data"].get("text") for item in stream] == ["[reactorcide] exit code 1\n", None]


def test_line_arrives_within_100_ms(api: Client) -> None:
    job = api.submit("for i in $(seq 15); do echo $i; sleep 0.1; done")
    lags_ms = []
    with events(api, log_path(job)) as stream:
        for item in stream:
            if item.get("event") != "end":
                written = datetime.fromisoformat(item["data"]["t"]).timestamp()
                lags_ms.append((time.time() - written) * 1000)
    # The median, for this machine has other things to do as well.
    assert sorted(lags_ms)[len(lags_ms) // 2] < 100


def test_half_closed_client_gets_the_whole_log(api: Client, service: Service) -> None:
    # Longer than it takes until the service looks whether the client is there.
    job = api.wait(api.submit("sleep 3; echo said"), "running")
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(
            f"GET /api/v1/jobs/{job['job_id']}/logs?follow=true HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {api.token}\r\nConnection: close\r\n\r\n".encode()
        )
        client.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.read() == b"said\n"


@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
def test_disconnected_follower_frees_its_slot(new_service: NewService, talks: bool) -> None:
    service = new_service(stream_slots=1)
    api = service.admin
    job = api.wait(api.submit("while :; do echo x; done" if talks else "sleep 60"), "running")
    if talks:
        wait_until(lambda: bool(api.log(job, tail=1)), 20, "it prints")
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(
            f"GET /api/v1/jobs/{job['job_id']}/logs?follow=true HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {api.token}\r\n\r\n".encode()
        )
        assert client.recv(12) == b"HTTP/1.1 200"
        busy = api.request("GET", log_path(job), params={"follow": "true"}, stream=True)
        assert (busy.status_code, "Retry-After" in busy.headers) == (503, True)
    closed_at_s = time.monotonic()

    def is_free() -> bool:
        with api.request("GET", "events", stream=True) as response:
            return response.status_code == 200

    wait_until(is_free, 5, "the place is free")
    assert time.monotonic() - closed_at_s < 2.5
    api.cancel(job)


def test_status_changes_are_streamed(api: Client) -> None:
    with events(api, "events") as stream:
        job = api.run("exit 3")
        changes = []
        for item in stream:
            if item["data"]["job_id"] == job["job_id"]:
                changes.append(item)
                if item["data"]["to"] == "failed":
                    break
    assert [(item["data"]["from"], item["data"]["to"]) for item in changes] == [
        (None, "submitted"),
        ("submitted", "queued"),
        ("queued", "running"),
        ("running", "failed"),
    ]
    last = changes[-1]["data"]
    assert (last["name"], last["queue_name"], last["attempt"], last["reason"]) == (
        "test",
        "default",
        1,
        "exit code 3",
    )
    with events(api, "events", changes[1]["id"]) as stream:
        again = (item for item in stream if item["data"]["job_id"] == job["job_id"])
        assert [next(again), next(again)] == changes[2:]


def test_users_get_status_changes_of_own_jobs_only(service: Service) -> None:
    user = service.add_user("cut-off")
    with events(user, "events") as stream:
        service.admin.run()
        mine = user.run()
        assert next(stream)["data"]["job_id"] == mine["job_id"]


def test_event_id_of_a_deleted_job_is_not_reused(api: Client) -> None:
    with events(api, "events") as stream:
        deleted = api.run()
        last = next(item for item in stream if item["data"]["to"] == "completed")
    assert last["data"]["job_id"] == deleted["job_id"]
    api.request("DELETE", f"jobs/{deleted['job_id']}")
    job = api.run()
    with events(api, "events", last["id"]) as stream:
        assert next(stream)["data"]["job_id"] == job["job_id"]


def test_event_ids_reveal_nothing_of_jobs_of_others(new_service: NewService) -> None:
    service = new_service()
    user, other = service.add_user("ann"), service.add_user("bob")
    with events(user, "events") as stream:
        job = user.run()
        changes = [next(stream) for _ in range(4)]
    ids = [item["id"] for item in changes]
    assert {len(event_id) for event_id in ids} == {64}
    assert len(set(ids)) == 4
    with events(user, "events", "0") as stream:
        assert [next(stream) for _ in changes] == changes
    with events(service.admin, "events", "0") as stream:
        assert not {next(stream)["id"] for _ in changes} & set(ids)
    # They lead on where they were, after a restart too; but nobody else, and nobody by a guessed number.
    service.stop()
    service.start()
    for followed in (events(user, "events", ids[1]), events(user, "events", after=ids[1])):
        with followed as stream:
            assert [next(stream)["data"] for _ in range(2)] == [item["data"] for item in changes[2:]]
    assert changes[-1]["data"] == changes[-1]["data"] | {"job_id": job["job_id"], "to": "completed"}
    for client, sent in ((other, ids[1]), (user, "1"), (user, ids[1][::-1]), (user, ids[1][:-4])):
        response = client.request("GET", "events", headers={"Last-Event-ID": sent}, stream=True)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_input")


def test_malformed_event_id_is_refused(api: Client) -> None:
    for response, field in (
        (api.request("GET", "events", headers={"Last-Event-ID": "yesterday"}), "Last-Event-ID"),
        (api.request("GET", "events", params={"after": "yesterday"}), "after"),
    ):
        assert response.status_code == 400
        assert response.json()["details"][0]["field"] == field


@pytest.mark.parametrize("reader", ["text", "events"])
def test_follower_that_reconnects_after_a_crash_sees_every_byte_once(
    new_service: NewService, engine: docker.APIClient, reader: str
) -> None:
    service = new_service()
    api = service.admin
    job = api.submit(
        "i=0; while [ $i -lt 4000 ]; do echo out $i; echo err $i >&2; i=$((i+1));"
        " [ $((i % 100)) = 0 ] && sleep 0.1; done; exit 3"
    )
    wait_until(lambda: len(api.log(job)) > 10_000, 20, "it prints")
    received, position = b"", None
    while True:
        headers: dict[str, str] = {"Last-Event-ID": position} if position else {}
        headers |= {"Accept": "text/event-stream"} if reader == "events" else {}
        params = {} if reader == "events" else {"follow": "true"}
        ended = False
        try:
            with api.request("GET", log_path(job), params=params, headers=headers, stream=True) as response:
                if reader == "text":
                    start = int(response.headers["X-Log-Position"].partition(":")[2])
                    assert start == len(received)
                    for chunk in response.iter_content(None):
                        received += chunk
                        position = f"1:{len(received)}"
                        if len(received) > 20_000 and service_is_first(service):
                            service.kill()
                    ended = True
                else:
                    for item in parsed(response.iter_lines(chunk_size=None)):
                        if item.get("event") == "end":
                            ended = True
                            break
                        received += item["data"]["text"].encode()
                        position = item["id"]
                        if len(received) > 20_000 and service_is_first(service):
                            service.kill()
        except OSError:
            pass
        if ended:
            break
        service.start()
    assert received == api.log(job)
    for stream in (b"out", b"err"):
        own = [line for line in received.splitlines() if line.startswith(stream)]
        assert own == [b"%s %d" % (stream, i) for i in range(4000)]
    assert received.endswith(b"[reactorcide] exit code 3\n")


def service_is_first(service: Service) -> bool:
    """Tell whether the service has not been started again yet."""
    return service.log_text().count("Reactorcide listens on") == 1


def test_followers_end_with_their_token_user_or_role(service: Service) -> None:
    user = service.add_user("revoked")
    token = user.request("POST", "tokens", json={"name": "second"}).json()
    silent, loud = user.submit("sleep 60"), user.submit("while sleep 0.2; do echo more; done")
    user.wait(silent, "running")
    user.wait(loud, "running")
    by_token = [follow(service.client(token["token"]), path) for path in ("events", log_path(loud))]
    by_user = [follow(user, path) for path in ("events", log_path(silent), log_path(loud))]
    user.request("DELETE", f"tokens/{token['token_id']}").raise_for_status()
    for response in by_token:
        assert_is_cut_off(response)
    disabled = {"is_active": False}
    service.admin.request(
        "PATCH", f"users/{user.get('users/me')['user_id']}", json=disabled
    ).raise_for_status()
    for response in by_user:
        assert_is_cut_off(response)
    service.admin.cancel(silent)
    service.admin.cancel(loud)


def follow(api: Client, path: str) -> requests.Response:
    response = api.request("GET", path, params={"follow": "true"} if "logs" in path else {}, stream=True)
    assert response.status_code == 200, response.text
    return response


def assert_is_cut_off(response: requests.Response) -> None:
    with response, pytest.raises(requests.exceptions.ChunkedEncodingError):
        for _ in response.iter_content(chunk_size=None):
            pass
