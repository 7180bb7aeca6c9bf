"""Expect: 100-continue: accept or refuse a request before its body arrives."""

from flask import Flask, Response, request

from reactorcide.settings import MAX_BODY_BYTES
from reactorcide.web.api import PREFIX
from reactorcide.web.auth import NEEDS

_IS_A_QUESTION = "reactorcide.asks"
_MAX_BODY_BYTES = "reactorcide.max_body_bytes"
_OF_ATTEMPT = f"{PREFIX}/worker/attempts/<job_id>/<int:attempt>"
_STREAMED = {
    f"POST {PREFIX}/sources",
    f"PUT {_OF_ATTEMPT}/artifacts/<path:path>",
    f"PUT {_OF_ATTEMPT}/listing",
    f"PUT {_OF_ATTEMPT}/report",
    f"PUT {_OF_ATTEMPT}/services/<service>/log",
    f"PUT {_OF_ATTEMPT}/caches",
}
_MAX_ANONYMOUS_BODY_BYTES = 16 << 10
_HOOK = f"POST {PREFIX}/hooks/<project_id>"
MAX_HOOK_BODY_BYTES = 256 << 10
"""A delivery that announces no more is read before the application sees it; a larger one is streamed."""


def install(app: Flask) -> None:
    """Answer 100 if the server asks for it, unless an earlier hook has refused the request.

    The environment tells the server the size of the body that it may accept; ``None`` is no limit, for a
    route that reads the body while it arrives.
    """
    app.before_request(_answer_question)


def _answer_question() -> Response | None:
    if _IS_A_QUESTION not in request.environ or request.routing_exception is not None:
        return None
    route = f"{request.method} {'' if request.url_rule is None else request.url_rule.rule}"
    if route in _STREAMED:
        max_body_bytes = None
    elif route == _HOOK:
        announced_bytes = request.content_length
        is_held = announced_bytes is not None and announced_bytes <= MAX_HOOK_BODY_BYTES
        max_body_bytes = MAX_HOOK_BODY_BYTES if is_held else None
    else:
        max_body_bytes = _MAX_ANONYMOUS_BODY_BYTES if NEEDS.get(route) is None else MAX_BODY_BYTES
    request.environ[_MAX_BODY_BYTES] = max_body_bytes
    return Response(status=100)
