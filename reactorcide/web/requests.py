"""Handling of every request: its id, its body, its log line, the headers of its answer."""

import json
import logging
import re
from functools import partial
from time import perf_counter
from typing import Any, cast

from flask import Flask, Request, Response, g, request
from flask.json.provider import DefaultJSONProvider

from reactorcide.domain.errors import InvalidInput
from reactorcide.lib.ids import new_id
from reactorcide.logconfig import hide, request_id
from reactorcide.metrics import Metrics
from reactorcide.settings import MAX_BODY_BYTES
from reactorcide.web.address import client_address

log = logging.getLogger("reactorcide.web")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_MAX_QUOTED_CHARS = 100
_FIRST_INEXACT = 2**53
# Python reads no more.
_MAX_DIGITS = 4300
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class StrictJSON(DefaultJSONProvider):
    """Reads JSON by RFC 8259, and refuses texts that two parsers could read differently."""

    sort_keys = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return the value of a text; raises ``ValueError``, or ``InvalidInput`` with the wrong key."""
        text = s if isinstance(s, str) else s.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_constant,
        )
        if _SURROGATE.search(text) is not None:
            _refuse_lone_surrogates(value)
        return value


def _refuse_lone_surrogates(value: Any) -> None:
    """Raise ``InvalidInput``, with the field, for a lone surrogate, which can be neither stored nor run."""
    for name, part in value.items() if isinstance(value, dict) else [("", value)]:
        try:
            json.dumps({name: part}, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as exc:
            field = name[:_MAX_QUOTED_CHARS].encode(errors="replace").decode()
            half = exc.object[exc.start]
            raise InvalidInput(
                f"{field!r} has half a character, the lone surrogate U+{ord(half):04X}", field or None
            ) from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            field = name[:_MAX_QUOTED_CHARS]
            raise InvalidInput(f"{field!r} occurs more than once", field)
        members[name] = value
    return members


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> int | float:
    """Return a number written with a point or an exponent: 5.0 is 5 in JSON."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < _FIRST_INEXACT else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The default headers of every answer."""


class StrictRequest(Request):
    """A request whose body is a JSON object, or an error that says what is wrong with it."""

    max_content_length = MAX_BODY_BYTES

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body; never silent, because an invalid body must not pass as a missing one."""
        try:
            body = super().get_json(force=force, silent=False, cache=cache)
        except RecursionError as exc:
            raise InvalidInput("the body is nested too deeply") from exc
        if not isinstance(body, dict):
            raise InvalidInput("the body must be a JSON object")
        return body

    def on_json_loading_failed(self, e: ValueError | None) -> Any:
        """Raise ``InvalidInput`` that says where the JSON is invalid."""
        if e is None:
            return super().on_json_loading_failed(e)
        if isinstance(e, UnicodeError):
            raise InvalidInput("the body is not valid JSON: it is not UTF-8") from e
        raise InvalidInput(f"the body is not valid JSON: {e}") from e


def install(app: Flask, metrics: Metrics) -> None:
    """Give every request an id, a line in the log and a place in the metrics."""
    app.request_class = StrictRequest
    app.json = StrictJSON(app)
    app.before_request(_begin)
    app.after_request(partial(_end, metrics))


def _begin() -> None:
    sent = request.headers.get("X-Request-ID", "")
    own_id = sent if _SANE_ID.fullmatch(sent) else new_id()
    g.began_at = perf_counter()
    g.request_id = own_id
    request_id.set(own_id)
    hide.set(str)


def _end(metrics: Metrics, response: Response) -> Response:
    status = response.status_code
    if status == 100:
        # Permission to send the body: the answer follows after it.
        return response
    # Looked up once: each use of the proxies takes as long as a statement of its own.
    current: Request = cast(Any, request)._get_current_object()
    about: Any = cast(Any, g)._get_current_object()
    response.headers["X-Request-ID"] = about.request_id
    names = {name.lower() for name, _ in response.headers}
    response.headers.extend([item for item in HEADERS.items() if item[0].lower() not in names])
    method, path = current.method, current.path
    seconds = perf_counter() - about.began_at
    route = current.url_rule.rule if current.url_rule is not None else "none"
    metrics.observe_request(method, route, status, seconds)
    fields = {
        "request_id": about.request_id,
        "method": method,
        "path": path,
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
        "address": client_address(),
    }
    if "user" in about:
        fields["user_id"] = about.user.user_id
    if current.view_args and "job_id" in current.view_args:
        fields["job_id"] = current.view_args["job_id"]
    log.info("%s %s %s in %.1f ms", method, path, status, seconds * 1000, extra=fields)
    return response
