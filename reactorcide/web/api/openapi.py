"""The OpenAPI document of the API.

flask-openapi3 knows the models and answers of each route. This module adds what all routes of a kind have in
common, so that no route repeats it.
"""

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from threading import Lock
from typing import Any

from flask import current_app
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.utils import parse_rule
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from reactorcide.web.api import media, schemas
from reactorcide.web.api.accounts import schemas as accounts
from reactorcide.web.api.artifacts import schemas as artifacts
from reactorcide.web.api.caches import schemas as caches
from reactorcide.web.api.deliveries import schemas as deliveries
from reactorcide.web.api.examples import EXAMPLES
from reactorcide.web.api.jobs import request
from reactorcide.web.api.jobs import schemas as jobs
from reactorcide.web.api.logs import schemas as logs
from reactorcide.web.api.projects import schemas as projects
from reactorcide.web.api.queues import schemas as queues
from reactorcide.web.api.resource import TOKEN_IF_ANY, Resource
from reactorcide.web.api.runs import schemas as runs
from reactorcide.web.api.schedules import schemas as schedules
from reactorcide.web.api.secrets import schemas as secrets
from reactorcide.web.api.service import schemas as service
from reactorcide.web.api.sources import schemas as sources
from reactorcide.web.api.webhooks import schemas as webhooks
from reactorcide.web.api.worker import schemas as worker
from reactorcide.web.api.workers import schemas as workers
from reactorcide.web.auth import PUBLIC
from reactorcide.web.errors import HTTP_CODES

_MODULES = (
    *(schemas, request, jobs, artifacts, logs, sources, accounts, queues, workers, worker, service, runs),
    *(projects, secrets, schedules, caches, deliveries, webhooks),
)
# Models of the data of server-sent events, which no route names.
_IN_EVENTS = ("LogEvent", "LogEnd", "JobEvent", "RunEvent")
_EXTENSION = "reactorcide.document"

Operation = dict[str, Any]

SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A user's token."}
}

_HEADERS: dict[str, Any] = {
    "X-Request-ID": {
        "description": "The request's id in the service's log: the client's own, if it sent a valid one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The address of what was created.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next try, if known.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to send a token.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "Content-Range": {
        "description": "The range of bytes in this answer, and the total size.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^bytes (?:\*|[0-9]+-[0-9]+)/[0-9]+$"},
    },
    "Content-Disposition": {
        "description": "The name of the file.",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-Log-Position": {
        "description": "The position at which the body begins, as attempt and byte, for `Last-Event-ID`.",
        "schema": {"type": "string", "pattern": f"^{logs.LOG_POSITION.pattern}$"},
    },
    "X-Log-Lines": {
        "description": "How many lines the log has at the moment (of `stream`); not of one that is followed.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "ETag": {"description": "For `If-None-Match`.", "required": True, "schema": {"type": "string"}},
}
# The header of all answers with a status, beside the request's id.
_HEADERS_OF = {
    "206": "Content-Range",
    "304": "ETag",
    "401": "WWW-Authenticate",
    "416": "Content-Range",
    "429": "Retry-After",
    "503": "Retry-After",
}
# The headers of an operation's answers.
_HEADERS_OF_OPERATION = {
    ("job_logs", "200"): ("X-Log-Position", "X-Log-Lines"),
    ("job_logs", "206"): ("X-Log-Lines",),
    ("get_artifact", "200"): ("Content-Disposition", "ETag"),
    ("get_artifacts", "200"): ("Content-Disposition",),
}
# A 201 with one of these models has a Location.
_HAS_AN_ADDRESS = ("JobResponse", "RunResponse", "SourceResponse", "NewProjectResponse", "ScheduleResponse")

_MESSAGES = {
    400: "colour: there is no such field",
    401: "unknown token; check it, or ask for another one",
    403: "this job is somebody else's",
    404: "there is no job 0198c0de-0000-7000-8000-000000000000",
    409: "the job is already completed, so it cannot be cancelled",
    408: "the request did not arrive in time",
    413: "the body is larger than the service takes",
    414: "Request Line is too large (5000 > 4094)",
    415: "send the body as JSON, with Content-Type: application/json",
    416: "the log has only 1024 bytes",
    421: "ci.example.com is not a name of this service; use its address",
    429: "too many requests; try again in a few seconds",
    431: "the header fields are larger than the service takes",
    500: "the service failed to answer this; its log says more, by the request's id",
    503: "too many followers at the moment; try again in a few seconds",
}


def install(app: OpenAPI) -> None:
    """Make ``document_json`` return the document of ``app``."""
    app.extensions[_EXTENSION] = _Document(app)


def document_json() -> str:
    """Return the document of the current application as JSON. Thread-safe."""
    document: _Document = current_app.extensions[_EXTENSION]
    return document.as_json()


class _Document:
    """The document of one application, built at the first request so that the start does not wait for it."""

    def __init__(self, app: OpenAPI) -> None:
        self._app = app
        self._lock = Lock()
        self._json: str | None = None

    def as_json(self) -> str:
        with self._lock:
            if self._json is None:
                self._json = json.dumps(document(self._app))
            return self._json


def document(app: OpenAPI) -> dict[str, Any]:
    """Return the complete OpenAPI 3.1 document of ``app``, without validation. Not thread-safe."""
    for blueprint in app.blueprints.values():
        if isinstance(blueprint, Resource):
            blueprint.describe(app)
    whole: dict[str, Any] = deepcopy(app.api_doc)
    whole["security"] = [{"token": []}]
    whole["components"]["headers"] = _HEADERS
    whole["components"]["schemas"] |= _schemas(whole["components"]["schemas"])
    public = {parse_rule(route) for route in PUBLIC}
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            for status in _common(operation):
                operation["responses"][str(status)] = operation["responses"].get(str(status)) or _error(
                    status
                )
            if f"{method.upper()} {path}" in public:
                # It also answers 401, for items that are not public.
                operation["security"] = TOKEN_IF_ANY
            # Replace the library's own error, which has another shape.
            operation["responses"]["400"] = _error(400)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            for status, response in operation["responses"].items():
                _complete(status, response, _HEADERS_OF_OPERATION.get((operation["operationId"], status), ()))
            if "requestBody" in operation:
                _exemplify(operation["requestBody"])
    return whole


def _schemas(names: Iterable[str]) -> dict[str, Any]:
    """Return pydantic's schemas of our models: the library drops the keywords that it does not know."""
    models = [model for name in (*names, *_IN_EVENTS) if (model := model_of(name)) is not None]
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation" if issubclass(model, schemas.Body) else "serialization") for model in models
    ]
    _, whole = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    shared: dict[str, Any] = whole["$defs"]
    return shared | request.job_shapes(shared["JobRequest"]) | media.SCHEMAS


def model_of(name: str) -> type[BaseModel] | None:
    """Return the model of a schema; ``None`` for one of the library's own."""
    for module in _MODULES:
        model = vars(module).get(name)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return model
    return None


def needs_token(operation: Operation) -> bool:
    """Return whether an operation needs a token."""
    return {} not in operation.get("security", [])


def _common(operation: Operation) -> Iterator[int]:
    """Yield the error statuses that all routes of this kind can answer."""
    yield from (400, 408, 413, 414, 421, 431, 500, 503)
    if needs_token(operation):
        yield from (401, 403, 429)
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        yield 404
    if "requestBody" in operation:
        yield 415


def _error(status: int) -> dict[str, Any]:
    return {
        "description": HTTP_CODES[status].replace("_", " ").capitalize(),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }


def _complete(status: str, response: dict[str, Any], more: Iterable[str]) -> None:
    """Add the headers and the example of an answer."""
    names = ["X-Request-ID", *more]
    if status in _HEADERS_OF:
        names.append(_HEADERS_OF[status])
    if status == "201" and _schema_of(response) in _HAS_AN_ADDRESS:
        names.append("Location")
    headers = response.setdefault("headers", {})
    headers.update({name: {"$ref": f"#/components/headers/{name}"} for name in names})
    if _schema_of(response) == "ErrorResponse":
        code = int(status)
        example = {"error": HTTP_CODES[code], "message": _MESSAGES[code]}
        response["content"]["application/json"]["example"] = example
    else:
        _exemplify(response)


def _exemplify(body: dict[str, Any]) -> None:
    example = EXAMPLES.get(_schema_of(body))
    if example is not None:
        body["content"]["application/json"]["example"] = example


def _schema_of(body: dict[str, Any]) -> str:
    """Return the name of the schema of a JSON body; empty if there is none."""
    media = body.get("content", {}).get("application/json", {})
    return str(media.get("schema", {}).get("$ref", "")).rpartition("/")[2]
