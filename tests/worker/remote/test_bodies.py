"""What a worker says is checked before anything of it is stored: users read it."""

import time
from typing import Any

from tests.support.service import Service
from tests.worker.remote.test_calls import Hand, hand

__all__ = ["hand"]

_HANDED_OVER = {"container_id": "c", "container_started_at": "2026-01-01T00:00:00Z", "log_offset": 0}


def refused(response: Any, *parts: str) -> bool:
    """Return whether an answer is a 400 with a sentence that has these parts."""
    assert response.status_code == 400, (response.status_code, response.text)
    assert response.json()["error"] == "invalid_input"
    return all(part in response.json()["message"] for part in parts)


def test_nothing_of_an_attempt_is_before_its_claim(hub: Service, hand: Hand) -> None:
    before_s = time.time()
    job, assignment = hand.assigned()
    ages: dict[str, Any] = {"age_ms": 10**12}
    assert hand.call(assignment, "POST", "handing-over", json=_HANDED_OVER | ages).status_code == 204
    assert hand.call(assignment, "POST", "started", json=ages).status_code == 204
    (again,) = hand.next(wait=0)["assigned"]
    for name in ("handing_over_age_ms", "started_age_ms"):
        assert again[name] <= (time.time() - before_s) * 1000 + 1000, name
    shown = hub.admin.job(job)
    assert shown["started_at"] >= shown["created_at"]
    assert hand.finish(assignment).status_code == 204


def test_no_name_has_a_nul(hub: Service, hand: Hand) -> None:
    session: dict[str, Any] = {"session_id": hand.session_id, "host": "here", "version": "0", "protocol": 1}
    session |= {"concurrency": 1, "queues": [], "lost_after": 300}
    for name, value in (("host", "a\0b"), ("version", "a\0b"), ("session_id", "\0" * 36)):
        response = hand.client.request("POST", "worker/sessions", json=session | {name: value})
        assert refused(response, name)
    body = {"free": 0, "held": [], "trouble": "no \0 engine"}
    assert refused(
        hand.client.request("POST", f"worker/sessions/{hand.session_id}/next", json=body), "trouble"
    )
    assert refused(hub.admin.request("POST", "tokens", json={"name": "a\0b"}), "name")


def test_an_end_with_a_nul_in_its_reason_is_an_end(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert hand.finish(assignment, exit_code=1, error="no file a\0b").status_code == 204
    assert hub.admin.job(job)["status"] == "failed"
