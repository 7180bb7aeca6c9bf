"""Map errors to HTTP answers, all in one table."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NoReturn

from flask import Flask, Response, g, jsonify
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from reactorcide.domain import errors
from reactorcide.domain.workers import LOG_ENDS_HEADER

log = logging.getLogger("reactorcide.web")

MAX_DETAILS = 20
"""The most fields that an error names."""
_MAX_FIELD_CHARS = 255

Detail = dict[str, str]

# The first class that an error is an instance of decides.
_TABLE: tuple[tuple[type[errors.ReactorcideError], int], ...] = (
    (errors.InvalidInput, 400),
    (errors.TooLarge, 413),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.JobFailed, 409),
    (errors.TooManyFailures, 429),
    (errors.Busy, 503),
    (errors.InfrastructureError, 503),
)

# Codes of errors that clients tell from others with the same status.
_CODES: tuple[tuple[type[errors.ReactorcideError], str], ...] = (
    (errors.AttemptStale, "attempt_stale"),
    (errors.SessionGone, "session_gone"),
    (errors.LogConflict, "log_conflict"),
    (errors.JobFailed, "job_failed"),
)

HTTP_CODES = {
    400: "invalid_input",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "payload_too_large",
    414: "invalid_input",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    421: "misdirected_request",
    429: "rate_limited",
    431: "header_too_large",
    500: "internal_error",
    503: "unavailable",
}


def code_of(status: int) -> str:
    """Return the code of an error with this status."""
    return HTTP_CODES.get(status, "internal_error" if status >= 500 else "invalid_input")


_HTTP_MESSAGES = {
    404: "there is nothing at this address",
    405: "this address does not take that method",
    413: "the body is larger than the service takes",
    415: "send the body as JSON, with Content-Type: application/json",
}


_NOT_PUBLIC = "nothing here is public; send a token: Authorization: Bearer <token>"


class InvalidFields(errors.InvalidInput):
    """Several fields of a request are wrong."""

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__("; ".join(f"{item['field']}: {item['message']}" for item in details))
        self.details = list(details)


def validation_failed(error: ValidationError) -> NoReturn:
    """Raise ``InvalidFields`` for an error of pydantic's."""
    details: dict[str, Detail] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        # For a field with two possible types pydantic reports an error for each: one is enough.
        field = ".".join(str(part) for part in item["loc"] if part not in ("int", "str")) or "body"
        field = field[:_MAX_FIELD_CHARS]
        message = "there is no such field" if item["type"] == "extra_forbidden" else item["msg"]
        details.setdefault(field, {"field": field, "message": message})
        if len(details) == MAX_DETAILS:
            break
    raise InvalidFields(list(details.values()))


def answer(status: int, message: str, details: Sequence[Detail] = (), *, code: str | None = None) -> Response:
    """Return an error in the common format."""
    body: dict[str, Any] = {"error": code or code_of(status), "message": message}
    if details:
        body["details"] = list(details)
    response = jsonify(body)
    response.status_code = status
    return response


def install(app: Flask) -> None:
    """Answer every error from the table, also those of the framework."""
    app.register_error_handler(errors.ReactorcideError, _answer_own_error)
    app.register_error_handler(HTTPException, _answer_http)
    app.register_error_handler(Exception, _answer_unexpected)


def _answer_own_error(error: errors.ReactorcideError) -> Response:
    status = next((status for kind, status in _TABLE if isinstance(error, kind)), None)
    if status is None:
        return _answer_unexpected(error)
    if status in (403, 404) and "user" in g and g.user.is_anonymous:
        # Whether the item exists is only for users who may see it.
        status, error = 401, errors.Unauthorized(_NOT_PUBLIC)
    if status >= 500:
        log.warning("%s", error)
    details: Sequence[Detail] = ()
    if isinstance(error, InvalidFields):
        details = error.details
    elif isinstance(error, errors.InvalidInput) and error.field is not None:
        details = [{"field": error.field, "message": str(error)}]
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    response = answer(status, str(error), details, code=code)
    if isinstance(error, errors.LogConflict):
        response.headers[LOG_ENDS_HEADER] = f"{error.log_bytes}:{error.index_bytes}"
    if isinstance(error, errors.Busy | errors.TooManyFailures):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _answer_http(error: HTTPException) -> Response:
    """Answer an error of the framework."""
    status = error.code or 500
    phrase = HTTPStatus(status).phrase.lower()
    response = answer(status, _HTTP_MESSAGES.get(status) or error.description or phrase)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _answer_unexpected(error: Exception) -> Response:
    log.error("a request failed unexpectedly", exc_info=error)
    return answer(500, "the service failed to answer this; its log says more, by the request's id")
