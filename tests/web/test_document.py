"""The OpenAPI document says what the routes do, all of it, and nothing else."""

import re
from typing import Any

import pytest
import requests
from flask_openapi3.utils import parse_rule
from jsonschema_rs import Draft202012Validator, meta
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from reactorcide.web.api.examples import EXAMPLES
from reactorcide.web.api.openapi import needs_token
from reactorcide.web.auth import PUBLIC
from reactorcide.workflows import keys
from tests.support.contract import api_document, app, check_answer, routes

OPERATIONS = [
    (path, method, operation)
    for path, methods in api_document()["paths"].items()
    for method, operation in methods.items()
]
_ERRORS_OF_ALL = {"400", "408", "413", "414", "431", "500", "503"}
# No JSON can show its bytes.
_NO_TEXT = "application/octet-stream"


def media_types() -> list[tuple[str, dict[str, Any]]]:
    """Every body in the document, with where it is."""
    return [
        (f"{method} {path} {key} {kind}", media)
        for path, method, operation in OPERATIONS
        for key, body in [("body", operation.get("requestBody", {})), *operation["responses"].items()]
        for kind, media in body.get("content", {}).items()
    ]


def test_document_has_exactly_the_routes() -> None:
    of_the_app = {(parse_rule(rule.rule), method.lower()) for rule, method in routes()}
    assert of_the_app == {(path, method) for path, method, _ in OPERATIONS}


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_route_has_a_summary_and_answers(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"].endswith(".")
    answers = operation["responses"]
    assert [status for status in answers if status.startswith("2")]
    assert answers.keys() >= _ERRORS_OF_ALL
    # A delivery has a signature in place of a token.
    is_public = f"{method.upper()} {path}" in {parse_rule(route) for route in PUBLIC}
    answers_401 = needs_token(operation) or is_public or path.startswith("/api/v1/hooks/")
    assert answers_401 == ("401" in answers)
    assert ("requestBody" in operation) == ("415" in answers)
    named = {part for part in path.split("/") if part.startswith("{")}
    assert {
        f"{{{item['name']}}}" for item in operation.get("parameters", []) if item["in"] == "path"
    } == named
    for answer in answers.values():
        assert "X-Request-ID" in answer["headers"]


def test_operation_ids_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert [name for name in names if "api_v1" in name or "__" in name] == []


def test_every_body_has_a_schema_and_a_valid_example() -> None:
    schemas = {"components": api_document()["components"]}
    for where, media in media_types():
        assert media.get("schema"), f"{where} has no schema"
        if where.endswith(f" body {_NO_TEXT}"):
            continue
        assert "example" in media, f"{where}: add an example of {media['schema']} to EXAMPLES"
        Draft202012Validator(media["schema"] | schemas, validate_formats=True).validate(media["example"])


def test_document_is_valid_openapi_3_1_with_valid_schemas() -> None:
    OPENAPI_31_VALIDATOR.validate(api_document())
    for schema in api_document()["components"]["schemas"].values():
        meta.validate(schema)


def test_every_example_belongs_to_a_body() -> None:
    assert EXAMPLES.keys() <= api_document()["components"]["schemas"].keys()


def test_the_document_says_which_routes_need_a_token() -> None:
    client = app().test_client()
    for path, method, operation in OPERATIONS:
        if needs_token(operation):
            address = re.sub("{[^{}]+}", "x" * 36, path.replace("{attempt}", "1"))
            assert client.open(address, method=method.upper()).status_code == 401, path


def test_document_is_served() -> None:
    answer = app().test_client().get("/api/v1/openapi.json")
    assert answer.json == api_document()
    assert answer.json["openapi"].startswith("3.1.")


def test_the_schema_of_workflow_files_is_served() -> None:
    assert app().test_client().get("/api/v1/schemas/workflow.json").json == keys.schema()


def test_documentation_page_loads_only_from_the_service() -> None:
    client = app().test_client()
    with client.get("/api/docs") as page:
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        text = page.get_data(as_text=True)
        assert "//" not in text
        assets = re.findall('="docs/([^"]+)"', text)
    assert len(assets) == 3
    for name in assets:
        with client.get(f"/api/docs/{name}") as asset:
            assert (asset.status_code, str(asset.mimetype)[:5]) == (200, "text/")
    assert client.get("/api/docs/plugins.py").status_code == 404
    assert client.get("/api/docs/..%2findex.html").status_code == 404


def _answer(status: int, body: bytes, path: str = "/api/v1/queues") -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.url = f"http://localhost{path}"
    answer.headers.update({"X-Request-ID": "x", "Content-Type": "application/json"})
    answer._content = body
    return answer


def test_undocumented_answer_fails_its_test() -> None:
    check_answer("GET", _answer(200, b'{"queues": []}'))
    for status, body in ((418, b"{}"), (200, b"{}"), (200, b'{"queues": [], "more": 1}')):
        with pytest.raises(AssertionError):
            check_answer("GET", _answer(status, body))
