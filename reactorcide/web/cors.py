"""CORS: use of the API by web pages of other origins."""

from collections.abc import Collection

from flask import Flask, Response, request

_METHODS = "DELETE, GET, PATCH, POST, PUT"
_REQUEST_FIELDS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, X-Request-ID"
_RESPONSE_FIELDS = "Content-Range, Location, Retry-After, X-Request-ID"
_MAX_AGE_S = "600"


def allowance(origin: str, origins: Collection[str]) -> dict[str, str]:
    """Return the header fields that permit a page of ``origin`` to read an answer, if it may."""
    if not origins:
        return {}
    fields = {"Vary": "Origin"}
    if origin in origins:
        fields["Access-Control-Allow-Origin"] = origin
        fields["Access-Control-Expose-Headers"] = _RESPONSE_FIELDS
    return fields


def install(app: Flask, origins: Collection[str]) -> None:
    """Let pages of ``origins`` use the API; without origins nothing is installed."""
    if not origins:
        return

    def is_preflight() -> bool:
        return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers

    @app.before_request
    def answer_preflight() -> Response | None:
        # Before the token is checked: browsers send none with a preflight.
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
            response.headers["Access-Control-Allow-Headers"] = _REQUEST_FIELDS
            response.headers["Access-Control-Max-Age"] = _MAX_AGE_S
        return response
