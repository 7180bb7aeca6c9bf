"""What a worker says is checked before anything of it is stored: users read it."""

import json
import time
from typing import Any

import pytest

from tests.conftest import NewService
from tests.support.service import Service
from tests.worker.remote.test_calls import Hand, hand, new_hand

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


SHA = "0" * 64
A: dict[str, Any] = {"path": "a", "size": 5, "sha256": SHA}
FILE: dict[str, Any] = {"path": "a.xml", "passed": 1, "failed": 0, "skipped": 0, "problem": None}
FAILURE: dict[str, Any] = {"file": "a.xml", "suite": "s", "name": "n", "message": "m", "text": "t"}
REPORT: dict[str, Any] = {"files": [FILE], "failures": [FAILURE], "truncated": False, "summary": "a\0b"}
PATHS = ("../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "a//b", "", 5, None, {"a": 1})


def put(hand: Hand, assignment: dict[str, Any], path: str, data: bytes = b"hello") -> Any:
    """Store an artifact, a listing or a report."""
    return hand.call(assignment, "PUT", path, data=data, headers={"Content-Type": "application/octet-stream"})


def copy(hand: Hand, assignment: dict[str, Any], path: str, new_path: str) -> Any:
    """Store a copy of an artifact."""
    body = {"path": path, "new_path": new_path}
    return hand.call(assignment, "POST", "artifact-copies", json=body)


def where(change: dict[str, Any], name: str) -> str:
    """Return what a refusal names: the field, or the whole body if that is not UTF-8."""
    return "Invalid JSON" if "\\ud800" in json.dumps(change) else name


def listed(hand: Hand, assignment: dict[str, Any], *artifacts: Any, truncated: object = False) -> Any:
    """List artifacts."""
    body = {"artifacts": artifacts, "truncated": truncated}
    return put(hand, assignment, "listing", json.dumps(body).encode())


def test_a_listing_is_taken_as_a_whole_or_not_at_all(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert put(hand, assignment, "artifacts/a").status_code == 200
    wrong: list[dict[str, Any]] = [
        *({"size": size} for size in ("x", float("nan"), 10**400, 1, -5, None, True, 5.5, [1])),
        *({"sha256": value} for value in (None, "", "0" * 63, "G" * 64, 0)),
        *({"path": path} for path in (*PATHS, "missing")),
        {"is_executable": "q"},
        {"owner": "root"},
    ]
    for change in wrong:
        assert refused(listed(hand, assignment, A | change), where(change, "artifacts")), change
    assert refused(listed(hand, assignment, A, A), "twice")
    assert refused(listed(hand, assignment, A, truncated=0), "truncated")
    for body in (b"", b"[]", b"{", b"null", b"[" * 100_000, b"\xff"):
        assert refused(put(hand, assignment, "listing", body)), body
    assert hand.finish(assignment, has_artifacts=True).status_code == 204
    assert hub.admin.artifacts(job) == []


def test_a_listed_artifact_is_downloaded_whole(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert put(hand, assignment, "artifacts/a").status_code == 200
    assert listed(hand, assignment, A).status_code == 204
    assert put(hand, assignment, "artifacts/a", b"longer than listed").status_code == 200
    assert hand.finish(assignment, has_artifacts=True).status_code == 204
    response = hub.admin.request("GET", f"jobs/{job['job_id']}/artifacts/a")
    assert (response.status_code, response.content) == (200, b"longer than listed")


def test_a_report_is_taken_as_a_whole_or_not_at_all(hub: Service, hand: Hand) -> None:
    job, assignment = hand.assigned()
    assert put(hand, assignment, "artifacts/a").status_code == 200
    assert listed(hand, assignment, A).status_code == 204
    counts = ("x", -5, 10**30, 1.5, float("nan"), True)
    wrong: list[dict[str, Any]] = [
        *({"files": [FILE | {"passed": count}]} for count in counts),
        *({"files": [FILE | {"path": path}]} for path in PATHS),
        *({"failures": [FAILURE | {name: 5}]} for name in FAILURE),
        {"failures": [FAILURE | {"suite": "\ud800"}]},
        {"failures": [FAILURE] * 10_000},
        {"files": {"a": 1}},
        {"failures": "abc"},
        {"truncated": 0},
        *({"summary": summary} for summary in (5, {"a": 1}, "\ud800")),
    ]
    for change in wrong:
        body = json.dumps(REPORT | change).encode()
        answer = put(hand, assignment, "report", body)
        assert refused(answer, where(change, next(iter(change)))), str(change)[:200]
    assert put(hand, assignment, "report", json.dumps(REPORT).encode()).status_code == 204
    assert hand.finish(assignment, has_artifacts=True).status_code == 204
    tests = hub.admin.get(f"jobs/{job['job_id']}/tests")
    assert (tests["passed"], tests["files"], tests["failures"]) == (1, [FILE], [FAILURE])
    summary = hub.admin.request("GET", f"jobs/{job['job_id']}/summary")
    assert summary.text == "a\0b"


def test_a_path_above_or_below_an_artifact_is_refused(hand: Hand) -> None:
    _, assignment = hand.assigned()
    for path in ("a", "b/c"):
        assert put(hand, assignment, f"artifacts/{path}").status_code == 200
    for path in ("a/b", "a/b/c", "b"):
        assert refused(put(hand, assignment, f"artifacts/{path}"), "its path"), path
        assert refused(copy(hand, assignment, "a", path), "its path"), path
    assert put(hand, assignment, "artifacts/a").status_code == 200
    # With nothing stored there is nothing in the way.
    assert hand.call(assignment, "DELETE", "artifacts").status_code == 204
    assert put(hand, assignment, "artifacts/a/b").status_code == 200
    assert hand.finish(assignment).status_code == 204


@pytest.mark.parametrize("size_bytes", [900 << 10, 1])
def test_copies_count_like_uploads(new_service: NewService, size_bytes: int) -> None:
    service = new_service(max_artifact_bytes="1m", max_artifacts=3, concurrency=0)
    hand = new_hand(service)
    _, assignment = hand.assigned()
    assert put(hand, assignment, "artifacts/a", b"x" * size_bytes).status_code == 200
    answers = [copy(hand, assignment, "a", f"copy-{number}") for number in range(30)]
    stored = [f"copy-{number}" for number, answer in enumerate(answers) if answer.status_code == 204]
    # A worker that was interrupted stores them again.
    assert 3 <= len(stored) < 12
    assert (len(stored) + 1) * size_bytes <= 4 << 20
    assert answers[-1].status_code == 413
    assert "--max-artifact" in answers[-1].json()["message"]
    assert put(hand, assignment, "artifacts/b", b"x" * size_bytes).status_code == 413
    assert copy(hand, assignment, "missing", "b").status_code == 404
    # Another process counts what is there.
    service.stop()
    service.start()
    assert copy(hand, assignment, "a", "b").status_code == 413
    four = [A | {"path": path, "size": size_bytes} for path in ("a", *stored[:3])]
    assert refused(listed(hand, assignment, *four), "--max-artifacts")
    assert listed(hand, assignment, *four[:3]).status_code == 204
    assert hand.finish(assignment, has_artifacts=True).status_code == 204
