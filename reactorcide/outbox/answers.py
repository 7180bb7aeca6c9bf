"""Interpreting answers of other hosts: how long to wait, and what is wrong."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from reactorcide.domain.http import HttpAnswer

_MAX_MESSAGE_CHARS = 200
_MAX_WAIT_S = 24 * 3600.0
_LEAST_TIME_S = 10**9
"""A smaller value is a number of seconds, not a Unix time."""
_SECONDS = re.compile(r"[0-9]{1,12}")
_WAIT = (429, 503)


def wait_s(answer: HttpAnswer, *, now_s: float) -> float | None:
    """Return how long an answer asks to pause; ``None`` if it does not.

    By ``Retry-After`` of a refusal (RFC 9110, 10.2.3), and by the headers of GitHub, Gitea and GitLab that
    tell that the requests of a time are used up. ``now_s`` is the Unix time of an answer without ``Date``.
    """
    headers = answer.headers
    here_s = _time_s(headers.get("date", "")) or now_s
    after = headers.get("retry-after", "")
    if after and not answer.is_success:
        if _SECONDS.fullmatch(after):
            return _bounded(float(after))
        if (until_s := _time_s(after)) is not None:
            return _bounded(until_s - here_s)
    for prefix in ("x-ratelimit", "ratelimit"):
        reset = headers.get(f"{prefix}-reset", "")
        if headers.get(f"{prefix}-remaining") == "0" and _SECONDS.fullmatch(reset):
            value = float(reset)
            return _bounded(value - here_s if value >= _LEAST_TIME_S else value)
    return None


def asks_to_wait(answer: HttpAnswer) -> bool:
    """Return whether an answer refuses a request only for its rate or its time."""
    return answer.status in _WAIT


def reason(answer: HttpAnswer) -> str:
    """Return an answer's status as a metric label with few values."""
    try:
        return str(HTTPStatus(answer.status).value)
    except ValueError:
        return f"{answer.status // 100}xx"


def phrase(answer: HttpAnswer, *secrets: str) -> str:
    """Return a phrase about an answer, with the message of the other side, if any, without secrets."""
    try:
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        status = str(answer.status)
    body = answer.json()
    message = None
    if isinstance(body, dict):
        message = next((body[key] for key in ("message", "error") if isinstance(body.get(key), str)), None)
    if not message:
        return f"answered {status}"
    # Remove the secrets before cutting, so that no part of one remains at the end.
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    text = "".join(char if char.isprintable() else " " for char in message[:_MAX_MESSAGE_CHARS])
    return f"answered {status} ({text.strip()})"


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), _MAX_WAIT_S)


def _time_s(text: str) -> float | None:
    """Return an HTTP date as Unix time."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
