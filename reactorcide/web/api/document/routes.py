"""Routes to the OpenAPI document, and to the page that shows it."""

from importlib.resources import files
from pathlib import Path

from flask import Response, jsonify, send_from_directory

from reactorcide.domain.errors import NotFound
from reactorcide.web.api import PREFIX, media, openapi
from reactorcide.web.api.document.schemas import AssetPath
from reactorcide.web.api.resource import NO_TOKEN, resource
from reactorcide.web.api.schemas import NoQuery

_OWN = Path(__file__).resolve().parents[2] / "docs"
_ASSETS = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}
# The page loads nothing from other hosts.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

api = resource("document", __name__, tag="service", prefix=None, security=NO_TOKEN)


@api.get(f"{PREFIX}/openapi.json", responses={200: {"content": {"application/json": media.DOCUMENT}}})
def show_document(query: NoQuery) -> Response:
    """Return the OpenAPI document."""
    return Response(openapi.document_json(), mimetype="application/json")


@api.get(
    f"{PREFIX}/schemas/workflow.json", responses={200: {"content": {"application/json": media.JSON_SCHEMA}}}
)
def show_workflow_schema(query: NoQuery) -> Response:
    """Return the JSON Schema of workflow files, for editors."""
    # Imported late: the service reads workflow files in another process.
    from reactorcide.workflows import keys

    return jsonify(keys.schema())


@api.get("/api/docs", responses={200: {"content": {"text/html": media.PAGE}}})
def show_docs(query: NoQuery) -> Response:
    """Show the OpenAPI document as a page."""
    response = send_from_directory(_OWN, "index.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@api.get(
    "/api/docs/<name>",
    responses={200: {"content": {"text/css": media.STYLE, "text/javascript": media.SCRIPT}}},
)
def docs_asset(path: AssetPath, query: NoQuery) -> Response:
    """Return a file of the page of the OpenAPI document."""
    if path.name == "show.js":
        return send_from_directory(_OWN, path.name)
    if path.name not in _ASSETS:
        raise NotFound("there is nothing at this address")
    swagger = Path(str(files("flask_openapi3_swagger"))) / "templates" / "swagger"
    return send_from_directory(swagger / _ASSETS[path.name], path.name)
