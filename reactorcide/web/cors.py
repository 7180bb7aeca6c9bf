"""CORS: which other origins may use the API from a browser."""

from collections.abc import Collection

from flask import Flask, Response, request

_METHODS = "DELETE, GET, PATCH, POST, PUT"
_SENT = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Request-ID"
_READ = "Content-Range, Location, Retry-After, X-Request-ID"
_REMEMBERED_S = "600"


def allowance(origin: str, origins: Collection[str]) -> dict[str, str]:
    """Return the header fields by which a page of ``origin`` may read an answer; few, where it may not."""
    if not origins:
        return {}
    fields = {"Vary": "Origin"}
    if origin in origins:
        fields["Access-Control-Allow-Origin"] = origin
        fields["Access-Control-Expose-Headers"] = _READ
    return fields


def install(app: Flask, origins: Collection[str]) -> None:
    """Let pages of ``origins`` use the API; without origins nothing is installed."""
    if not origins:
        return

    def is_preflight() -> bool:
        return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers

    @app.before_request
    def answer_preflight() -> Response | None:
        # Before anybody asks for a token: browsers send none with it.
        if is_preflight() and request.headers.get("Origin") in origins:
            return Response(status=204)
        return None

    @app.after_request
    def allow(response: Response) -> Response:
        fields = allowance(request.headers.get("Origin", ""), origins)
        response.vary.add(fields.pop("Vary"))
        response.headers.update(fields)
        if fields and is_preflight():
            response.headers["Access-Control-Allow-Methods"] = _METHODS
            response.headers["Access-Control-Allow-Headers"] = _SENT
            response.headers["Access-Control-Max-Age"] = _REMEMBERED_S
        return response
