"""The routes below ``/api/v1``, and the models they validate and answer with."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from reactorcide.web.api.models import ErrorResponse

PREFIX = "/api/v1"

ERRORS: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = dict.fromkeys(
    (400, 401, 403, 404, 409, 413, 415, 500, 503), ErrorResponse
)
"""The answers that every route may give."""
