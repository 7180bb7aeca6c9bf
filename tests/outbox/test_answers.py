"""What the other side asks for in an answer, whatever it writes there."""

from email.utils import formatdate

import pytest

from reactorcide.domain.http import HttpAnswer
from reactorcide.outbox.answers import phrase, reason, wait_s

NOW_S = 1_800_000_000.0


def answer(status: int, body: bytes = b"", **headers: str) -> HttpAnswer:
    return HttpAnswer(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body,
    )


@pytest.mark.parametrize(
    ("received", "expected_s"),
    [
        (answer(429), None),
        (answer(429, retry_after="30"), 30),
        (answer(503, retry_after="30"), 30),
        (answer(403, retry_after="30"), 30),
        # Of something that has arrived it does not mean that.
        (answer(201, retry_after="30"), None),
        (answer(429, retry_after="0"), 1),
        (answer(429, retry_after="99999999999"), 86_400),
        (answer(429, retry_after="-5"), None),
        (answer(429, retry_after="1e9"), None),
        (answer(429, retry_after="9" * 10_000), None),
        (answer(429, retry_after="soon"), None),
        (answer(429, retry_after="Jan 99999 00:00:00 99999 9999999999999999999999"), None),
        (answer(429, retry_after=formatdate(NOW_S + 90, usegmt=True)), 90),
        (answer(429, retry_after=formatdate(NOW_S - 90, usegmt=True)), 1),
        # By the clock of the other side.
        (
            answer(
                429,
                retry_after=formatdate(NOW_S - 500, usegmt=True),
                date=formatdate(NOW_S - 560, usegmt=True),
            ),
            60,
        ),
        (answer(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW_S) + 40)), 40),
        (answer(201, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW_S) + 40)), 40),
        (answer(429, ratelimit_remaining="0", ratelimit_reset=str(int(NOW_S) + 40)), 40),
        (answer(429, ratelimit_remaining="0", ratelimit_reset="40"), 40),
        (answer(201, x_ratelimit_remaining="1", x_ratelimit_reset=str(int(NOW_S) + 40)), None),
        (answer(201, x_ratelimit_remaining="0", x_ratelimit_reset="never"), None),
        (answer(201, x_ratelimit_remaining="0"), None),
    ],
)
def test_retry_delay_follows_the_answer(received: HttpAnswer, expected_s: float | None) -> None:
    assert wait_s(received, now_s=NOW_S) == expected_s


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (answer(404), "answered 404 Not Found"),
        (answer(404, b'{"message": "Not found"}'), "answered 404 Not Found (Not found)"),
        (answer(400, b'{"error": "bad sha"}'), "answered 400 Bad Request (bad sha)"),
        (answer(400, b'{"message": {"a": 1}, "error": "b"}'), "answered 400 Bad Request (b)"),
        (answer(400, b"<html>"), "answered 400 Bad Request"),
        (answer(400, b"[1]"), "answered 400 Bad Request"),
        (answer(400, b"[" * 100_000), "answered 400 Bad Request"),
        (answer(600), "answered 600"),
        (answer(401, b'{"message": "no s3cret\\u001b[2J\\n"}'), "answered 401 Unauthorized (no *** [2J)"),
        (answer(401, b'{"message": "\\ud800\\u202ea"}'), "answered 401 Unauthorized (a)"),
        (answer(401, b'{"message": "%s"}' % (b"x" * 1000)), f"answered 401 Unauthorized ({'x' * 200})"),
    ],
)
def test_answer_is_described_by_a_short_phrase(received: HttpAnswer, expected: str) -> None:
    assert phrase(received, "s3cret") == expected


def test_number_of_metric_labels_is_bounded() -> None:
    labels = {reason(answer(status)) for status in range(100, 1000)}
    assert len(labels) < 80
    assert {"404", "2xx"} <= labels
