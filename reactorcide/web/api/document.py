"""The OpenAPI document of the API, and the page that shows it.

flask-openapi3 knows each route's own words: its models and its answers. What is true of all routes of a kind
is added here, so that no route has to repeat it.
"""

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, cast

from flask import Response, current_app, send_from_directory
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from reactorcide.domain.errors import NotFound
from reactorcide.web.api import PREFIX, media, models, operation_name
from reactorcide.web.api.examples import EXAMPLES
from reactorcide.web.api.models import AssetPath, NoQuery
from reactorcide.web.errors import HTTP_CODES

Operation = dict[str, Any]

SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of a user."}
}
NO_TOKEN: list[dict[str, list[Any]]] = [{}]
"""The ``security`` of a route that needs no token."""
TOKEN_IF_ANY: list[dict[str, list[Any]]] = [{}, {"token": []}]
"""The ``security`` of a route that needs no token and looks at the one that it is sent."""

_HEADERS: dict[str, Any] = {
    "X-Request-ID": {
        "description": "The request's id in the service's log: the client's own, if it sent a sane one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Where what was made is to be found.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "After how many seconds to come back, where that can be told.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to send a token.",
        "required": True,
        "schema": {"type": "string", "const": "Bearer"},
    },
    "Content-Range": {
        "description": "Which bytes these are, and of how many.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^bytes (?:\*|[0-9]+-[0-9]+)/[0-9]+$"},
    },
    "Content-Disposition": {
        "description": "The name of the file.",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-Log-Position": {
        "description": "Where a follower begins: attempt and bytes, for `Last-Event-ID`.",
        "schema": {"type": "string", "pattern": f"^{models.LOG_POSITION.pattern}$"},
    },
    "ETag": {"description": "For `If-None-Match`.", "required": True, "schema": {"type": "string"}},
}
# What the answers of a status have, beside the request's id.
_HEADERS_OF = {
    "206": "Content-Range",
    "304": "ETag",
    "401": "WWW-Authenticate",
    "416": "Content-Range",
    "429": "Retry-After",
    "503": "Retry-After",
}
# What those of an operation have.
_HEADERS_OF_OPERATION = {
    ("job_logs", "200"): ("X-Log-Position",),
    ("get_artifact", "200"): ("Content-Disposition", "ETag"),
    ("get_artifacts", "200"): ("Content-Disposition",),
}
# A 201 that answers with one of these says where it is.
_HAS_AN_ADDRESS = ("JobResponse", "SourceResponse")

_MESSAGES = {
    400: "colour: there is no such field",
    401: "this token is not known; check it, or ask for another one",
    403: "this job is somebody else's",
    404: "there is no job 0198c0de-0000-7000-8000-000000000000",
    409: "the job is completed, so that it cannot be cancelled",
    408: "the request did not arrive in time",
    413: "the body is larger than the service takes",
    414: "Request Line is too large (5000 > 4094)",
    415: "send the body as JSON, with Content-Type: application/json",
    416: "the log has only 1024 bytes",
    421: "ci.example.com is no name of this service; call it by its address",
    429: "too many requests; come back in a few seconds",
    431: "the header fields are larger than the service takes",
    500: "the service failed to answer this; its log says more, by the request's id",
    503: "too many followers just now; come back in a few seconds",
}

_ASSETS = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}
# Nothing of the page comes from another host, nor could it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def blueprint() -> APIBlueprint:
    """Return the routes to the document and to the page that shows it."""
    api = APIBlueprint(
        "document",
        __name__,
        abp_tags=[Tag(name="service")],
        abp_security=NO_TOKEN,
        operation_id_callback=operation_name,
    )
    lock = Lock()
    made: list[str] = []

    @api.get(f"{PREFIX}/openapi.json", responses={200: {"content": {"application/json": media.DOCUMENT}}})
    def show_document(query: NoQuery) -> Response:
        """Return this document."""
        with lock:
            # Made when it is first asked for: the start of the service does not wait for it.
            if not made:
                made.append(json.dumps(document(cast(OpenAPI, current_app))))
        return Response(made[0], mimetype="application/json")

    @api.get("/api/docs", responses={200: {"content": {"text/html": media.PAGE}}})
    def show_docs(query: NoQuery) -> Response:
        """Show the document to a person."""
        response = send_from_directory(_OWN, "index.html")
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    @api.get(
        "/api/docs/<name>",
        responses={200: {"content": {"text/css": media.STYLE, "text/javascript": media.SCRIPT}}},
    )
    def docs_asset(path: AssetPath, query: NoQuery) -> Response:
        """Return a part of that page."""
        if path.name == "show.js":
            return send_from_directory(_OWN, path.name)
        if path.name not in _ASSETS:
            raise NotFound("there is nothing at this address")
        swagger = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"
        return send_from_directory(swagger / _ASSETS[path.name], path.name)

    return api


_OWN = Path(__file__).resolve().parents[1] / "docs"


def document(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of ``app``, whole and checked by nobody; not thread-safe."""
    made: dict[str, Any] = deepcopy(app.api_doc)
    made["security"] = [{"token": []}]
    made["components"]["headers"] = _HEADERS
    made["components"]["schemas"] |= _schemas(made["components"]["schemas"])
    for path in made["paths"].values():
        for operation in path.values():
            for status in _common(operation):
                operation["responses"][str(status)] = operation["responses"].get(str(status)) or _error(
                    status
                )
            # The library's own, of another shape.
            operation["responses"]["400"] = _error(400)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            for status, response in operation["responses"].items():
                _complete(status, response, _HEADERS_OF_OPERATION.get((operation["operationId"], status), ()))
            if "requestBody" in operation:
                _exemplify(operation["requestBody"])
    return made


def _schemas(names: Iterable[str]) -> dict[str, Any]:
    """Return the schemas of our models as pydantic says them: the library keeps only what it knows of."""
    found = [getattr(models, name, None) for name in (*names, "LogEvent", "LogEnd", "JobEvent")]
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation" if issubclass(model, models.Body) else "serialization")
        for model in found
        if isinstance(model, type) and issubclass(model, BaseModel)
    ]
    _, whole = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = whole["$defs"]
    return schemas | models.job_shapes(schemas["JobRequest"]) | media.SCHEMAS


def needs_token(operation: Operation) -> bool:
    """Tell whether a route's operation in the document is for known callers only."""
    return {} not in operation.get("security", [])


def _common(operation: Operation) -> Iterator[int]:
    """Yield the errors that all routes of this kind can answer."""
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
    """Return the name of the schema of a JSON body; empty, where there is none."""
    media = body.get("content", {}).get("application/json", {})
    return str(media.get("schema", {}).get("$ref", "")).rpartition("/")[2]
