"""A blueprint for each resource, and how a route declares its need of a token."""

from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from reactorcide.web.api import PREFIX

Security = list[dict[str, list[Any]]]

NO_TOKEN: Security = [{}]
"""The ``security`` of a route that needs no token."""
TOKEN_IF_ANY: Security = [{}, {"token": []}]
"""The ``security`` of a route with an optional token."""


def resource(
    name: str, module: str, *, tag: str, prefix: str | None = PREFIX, security: Security | None = None
) -> APIBlueprint:
    """Return the blueprint for the routes in ``module``. Operations are named after their functions."""
    return APIBlueprint(
        name,
        module,
        url_prefix=prefix,
        abp_tags=[Tag(name=tag)],
        abp_security=security,
        operation_id_callback=_operation_name,
    )


def _operation_name(*, name: str, **_: str) -> str:
    return name
