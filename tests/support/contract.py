"""Holds every answer that the tests' clients get against the OpenAPI document."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from flask import Flask
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.utils import parse_rule
from jsonschema_rs import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from reactorcide.app.service import Service
from reactorcide.settings import Settings
from reactorcide.web.api.openapi import document

# Answered by Flask itself, everywhere.
_AUTOMATIC = ("HEAD", "OPTIONS")


@cache
def app() -> Flask:
    """The application with its routes; nothing is started."""
    return Service(Settings(data_dir=Path("/nonexistent")), {}).wsgi


@cache
def api_document() -> dict[str, Any]:
    """The document."""
    return document(cast(OpenAPI, app()))


def operation_of(rule: Rule, method: str) -> dict[str, Any] | None:
    """Return what the document says of a route, if it says anything."""
    item: dict[str, Any] | None = api_document()["paths"].get(parse_rule(rule.rule), {}).get(method.lower())
    return item


def is_page(rule: Rule) -> bool:
    """Return whether a route is one of the web page, which the document does not describe."""
    return str(rule.endpoint).startswith("ui.")


def routes() -> Iterator[tuple[Rule, str]]:
    """Yield every route of the API with each of its methods."""
    for rule in app().url_map.iter_rules():
        if is_page(rule):
            continue
        for method in sorted((rule.methods or set()) - set(_AUTOMATIC)):
            yield rule, method


def check_answer(method: str, response: requests.Response) -> None:
    """Fail unless the document has this answer: its status, headers and type, and each key of its body."""
    address = urlsplit(response.url).path
    if method in _AUTOMATIC:
        return
    rule = _rule(method, address)
    if rule is None:
        assert response.status_code in (400, 401, 404, 405, 408, 413, 414, 421, 431), (
            f"{method} {address}: {response.text}"
        )
        _check_schema("ErrorResponse", response)
        return
    if is_page(rule):
        return
    operation = operation_of(rule, method)
    where = f"{method} {rule.rule} -> {response.status_code}"
    assert operation is not None, f"{where} is not in the document"
    answer = operation["responses"].get(str(response.status_code))
    assert answer is not None, f"{where} is not in the document: {response.text}"
    for name in answer["headers"]:
        if api_document()["components"]["headers"].get(name, {}).get("required"):
            assert name in response.headers, f"{where} lacks {name}"
    types = answer.get("content", {})
    sent = response.headers.get("Content-Type", "").partition(";")[0]
    if not types:
        assert not response.headers.get("Content-Length", "0").strip("0"), f"{where} has a body"
        return
    assert sent in types or "*/*" in types, f"{where} is {sent}, not {list(types)}"
    reference = types.get(sent, {}).get("schema", {}).get("$ref", "")
    if reference and sent == "application/json":
        _check_schema(reference.rpartition("/")[2], response)


def _rule(method: str, address: str) -> Rule | None:
    try:
        rule, _ = app().url_map.bind("").match(address, method, return_rule=True)
    except HTTPException:
        return None
    return rule


def _check_schema(name: str, response: requests.Response) -> None:
    error = next(_validator(name).iter_errors(response.json()), None)
    assert error is None, f"{response.url} is no {name}: {error}"


@cache
def _validator(name: str) -> Draft202012Validator:
    """Return what checks a body; stricter than the document, for clients are told of keys that may come."""
    schemas = {key: _closed(schema) for key, schema in api_document()["components"]["schemas"].items()}
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}, validate_formats=True
    )


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    return {"additionalProperties": False} | schema if "properties" in schema else schema
